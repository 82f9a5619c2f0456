"""How each plot of docs/results is drawn, for print: colours that all readers tell apart, markers and lines besides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from benchmarks.evaluation import measures as m
from benchmarks.evaluation.load import Block, Cell, Read, Results
from benchmarks.evaluation.names import BACKBONES, FAMILIES, SHARES, family_of, label_of
from benchmarks.evaluation.targets import stream_reference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STUDY_METHODS: Final = ("retrain", "none", "expunge", "unlearnrec_0", "gif", "unlearnrec_3", "amplified_swap")
# Okabe and Ito's colours: told apart by colour-blind readers; markers and lines differ too, for print without colour.
_COLOURS: Final = ("#000000", "#999999", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00")
_MARKERS: Final = ("*", "x", "o", "s", "^", "D", "v")
_LINES: Final = ("-", (0, (1, 1)), "-", "--", "-.", ":", (0, (5, 1, 1, 1)))
_PAIRS: Final = (("erased", "-", "#D55E00"), ("kept", "--", "#0072B2"), ("negative", ":", "#000000"))
_LABEL_HEIGHT: Final = 0.037  # of a panel
_LEAST_GAP: Final = 1e-4
"""Distances below are drawn here: a logarithmic axis has no zero."""
_WIDTH: Final = 7.2  # inches: the text width of a printed page


def pareto(blocks: Sequence[Block]) -> Figure:
    """Seconds a request against both distances; one column a block, the AUC above, JS below."""
    figure, panels = _panels(2 * len(blocks), columns=len(blocks), height=2.9)
    families: set[str] = set()
    for place, block in enumerate(blocks):
        gaps = {name: block.minus_retrain(name, m.AUC) for name in block.unlearners}
        js = {name: block.stat(name, m.JS_OVER_FLOOR).mean for name in block.unlearners}
        untouched = [block.stat(name, m.JS_NONE_OVER_FLOOR).mean for name in js]
        above, below = panels[place], panels[len(blocks) + place]
        spread = block.stat("retrain", m.AUC).sd
        families |= _scatter(above, block, gaps, spread, block.minus_retrain("none", m.AUC))
        families |= _scatter(below, block, js, 1.0, next((value for value in untouched if value), None))
        _plain_log(below.yaxis)
        above.set_title(_backbone(block))
        below.set_xlabel("seconds a request")
    panels[0].set_ylabel("distance of AUC to Retrain's")
    panels[len(blocks)].set_ylabel("JS to Retrain / between retrainings")
    shown = [family for family in (*FAMILIES, "other") if family in families]
    _legend(figure, [(family, {"linestyle": "none", **_family_style(family)}) for family in shown])
    return figure


def _scatter(
    panel: Axes, block: Block, values: dict[str, float | None], floor: float | None, untouched: float | None
) -> set[str]:
    """Time against a distance, with a full line at its floor, a dashed one at the untouched model's; the families."""
    times = {name: block.stat(name, m.SECONDS).mean for name in values}
    points = {
        name: (time, max(abs(value), _LEAST_GAP))
        for name, value in values.items()
        if (time := times[name]) and value is not None
    }
    for name, point in points.items():
        panel.plot(*point, linestyle="none", markersize=5, **_family_style(family_of(name)))
    for level, line in ((floor, "-"), (untouched, "--")):
        if level:
            panel.axhline(abs(level), color="black", linewidth=0.8, linestyle=line)
    whole = block.stat("retrain", m.SECONDS).mean
    if whole:
        panel.axvline(whole, color="black", linewidth=0.8, linestyle=":")
    panel.set(xscale="log", yscale="log")
    panel.margins(x=0.3, y=0.15)
    _annotate(panel, {label_of(name): point for name, point in points.items()})
    return {family_of(name) for name in points}


def _annotate(panel: Axes, points: dict[str, tuple[float, float]]) -> None:
    """Labels beside their points, pushed up where they would cover each other."""
    panel.autoscale_view()
    to_panel = panel.transData + panel.transAxes.inverted()
    places = {label: to_panel.transform(point) for label, point in points.items()}
    above = -1.0
    for label, (x, y) in sorted(places.items(), key=lambda item: (item[1][1], item[0])):
        above = max(y, above + _LABEL_HEIGHT)
        line = {"arrowstyle": "-", "linewidth": 0.3, "color": "#777777", "shrinkA": 0, "shrinkB": 2}
        panel.annotate(
            label, (x, y), (x + 0.04, above), "axes fraction", "axes fraction", line, fontsize=5.5, va="center"
        )


def distributions(cells: dict[str, Cell]) -> Figure:
    """Histograms of scores: of the base, then of each method's cell."""
    first = next(iter(cells.values()))
    shown: list[tuple[str, Any, Any]] = [("before", first["histograms"]["edges"], first["histograms"].get("before"))]
    shown += [
        (label_of(name), cell["histograms"]["edges"], cell["histograms"]["after"]) for name, cell in cells.items()
    ]
    shown = [each for each in shown if each[2]]
    figure, panels = _panels(len(shown), columns=4, height=1.7, share=True)
    for panel, (title, edges, counts) in zip(panels, shown, strict=True):
        for kind, line, colour in _PAIRS:
            if counts.get(kind):
                panel.stairs(_density(counts[kind], edges), edges, color=colour, linestyle=line, linewidth=1.2)
        panel.set(title=title, yticks=[])
    for panel in panels[-4:]:
        panel.set_xlabel("score")
        panel.tick_params(labelbottom=True)
    for panel in panels[::4]:
        panel.set_ylabel("density")
    _legend(figure, [(kind, {"color": colour, "linestyle": line}) for kind, line, colour in _PAIRS])
    return figure


def memory_rows(block: Block) -> list[tuple[str, float]]:
    """Megabytes for a request, by method."""
    found = [(name, block.stat(name, m.MEMORY_REQUEST).mean) for name in block.unlearners]
    return [(name, value / 1e6) for name, value in found if value]


def memory(blocks: Sequence[Block]) -> Figure:
    """Bars of the memory for a request; one panel a block, a line at that of training."""
    most = max(len(memory_rows(block)) for block in blocks)
    figure, panels = _panels(len(blocks), height=0.6 + 0.16 * most)
    for panel, block in zip(panels, blocks, strict=True):
        rows = memory_rows(block)[::-1]
        panel.barh([label_of(name) for name, _ in rows], [value for _, value in rows], color="#7aa6c2", height=0.7)
        training = block.stat(rows[-1][0], m.MEMORY_TRAIN).mean
        if training:
            panel.axvline(training / 1e6, color="black", linestyle="--", linewidth=1)
        panel.tick_params(axis="y", labelsize=6)
        panel.set(xlabel="MB for a request", title=_backbone(block))
        panel.grid(visible=False, axis="y")
    _legend(figure, [("training", {"color": "black", "linestyle": "--"})])
    return figure


def ratio_study(results: Results, dataset: str, backbone: str) -> Figure:
    """Recall, AUC and JS by the share of pairs that is erased."""
    blocks = [(share, results.block(dataset, backbone, name)) for name, share in SHARES.items()]
    there = [(share, block) for share, block in blocks if block is not None]
    drawn: tuple[tuple[str, Read], ...] = (
        ("Recall@20", m.RECALL),
        ("AUC erased, held-out", m.AUC),
        ("JS / floor, touched users", m.JS_OVER_FLOOR),
    )
    figure, panels = _panels(len(drawn), height=2.4)
    names = [name for name in STUDY_METHODS if any(name in block.methods for _, block in there)]
    styles = _styles(names)
    for panel, (label, read) in zip(panels, drawn, strict=True):
        for name in names:
            found = [(share, block.stat(name, read).mean) for share, block in there]
            known = [(share, value) for share, value in found if value is not None]
            if known:
                panel.plot(*zip(*known, strict=True), markersize=4, linewidth=1.1, **styles[name])
        panel.set(xlabel="% of the pairs erased", title=label)
    _legend(figure, [(label_of(name), styles[name]) for name in names])
    return figure


def curves(block: Block) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Method, way of applying the stream, and its measurements; of the first seed."""
    found = []
    for name, cells in block.methods.items():
        for mode in m.STREAM_MODES:
            points = (cells[0].get("stream") or {}).get(mode) or []
            if points:
                found.append((name, mode, points))
    return found


def stream(results: Results, block: Block) -> Figure:
    """Recall, AUC and seconds along the stream."""
    drawn = (
        ("recall_at_20", "Recall@20", m.RECALL),
        ("auc_heldout", "AUC erased, held-out", m.AUC),
        ("seconds", "seconds a batch", None),
    )
    figure, panels = _panels(len(drawn), height=2.4)
    reference = stream_reference(results, block)
    courses = curves(block)
    styles = _styles(name for name, _, _ in courses)
    for panel, (key, title, read) in zip(panels, drawn, strict=True):
        for name, mode, points in courses:
            known = [(point["batch"], point[key]) for point in points if point.get(key) is not None]
            style = styles[name] | {"linestyle": "-" if mode == m.STREAM_MODES[0] else "--"}
            if known:
                panel.plot(*zip(*known, strict=True), markersize=3, linewidth=1, **style)
        level = reference.stat("retrain", read).mean if reference is not None and read is not None else None
        if level is not None:
            panel.axhline(level, color="black", linestyle=":", linewidth=1)
        panel.set(xlabel="batches", title=title)
    entries = [(label_of(name), style | {"linestyle": "none"}) for name, style in styles.items()]
    entries += [
        (mode, {"color": "#555555", "linestyle": line}) for mode, line in zip(m.STREAM_MODES, ("-", "--"), strict=True)
    ]
    _legend(figure, [*entries, ("Retrain, in the end", {"color": "black", "linestyle": ":"})])
    return figure


def _panels(number: int, *, height: float, columns: int = 3, share: bool = False) -> tuple[Figure, list[Axes]]:
    """So many panels, so many beside each other, with room for a legend above them."""
    import matplotlib.pyplot as plt

    columns = min(columns, number)
    rows = -(-number // columns)
    width = _WIDTH if columns > 1 else _WIDTH * 0.7
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(width, rows * height + 0.5),
        squeeze=False,
        layout="constrained",
        sharex=share,
        sharey=share,
    )
    panels = list(grid.flat)
    for panel in panels[number:]:
        panel.remove()
    return figure, panels[:number]


def _legend(figure: Figure, entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=label, **style) for label, style in entries]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5), fontsize=7)


def _plain_log(axis: Any) -> None:
    """Labels 1, 1.5, 2 rather than powers of ten: distances span less than a decade."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _family_style(family: str) -> dict[str, Any]:
    place = (*FAMILIES, "other").index(family) % 7
    return {"color": _COLOURS[place], "marker": _MARKERS[place]}


def _styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A style a method: those of the study always the same, others what is left."""
    wanted = list(dict.fromkeys(names))
    free = iter([place for place, name in enumerate(STUDY_METHODS) if name not in wanted] * 2 + list(range(7)) * 4)
    places = {name: STUDY_METHODS.index(name) if name in STUDY_METHODS else next(free) for name in wanted}
    return {
        name: {"color": _COLOURS[place], "marker": _MARKERS[place], "linestyle": _LINES[place]}
        for name, place in places.items()
    }


def _density(counts: Sequence[float], edges: Sequence[float]) -> list[float]:
    total = sum(counts) or 1
    return [count / total / (high - low) for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)]


def _backbone(block: Block) -> str:
    return BACKBONES.get(block.backbone, block.backbone)
