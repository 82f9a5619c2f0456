"""The plots of docs/results: which there are follows from the cells; matplotlib is needed only to draw them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.evaluation import drawing
from benchmarks.evaluation.load import Block, Results
from benchmarks.evaluation.names import BACKBONES, DATASETS, PROTOCOLS
from benchmarks.evaluation.tables import ratio_studies

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS: Final = ("png", "svg")
DISTRIBUTION_PROTOCOLS: Final = ("adversarial", "genuine_1pct")
DISTRIBUTION_METHODS: Final = (
    "retrain",
    "expunge",
    "expunge_dislike",
    "unlearnrec_0",
    "unlearnrec_3",
    "gif",
    "receraser",
)
PARETO_PROTOCOL: Final = "genuine_1pct"

_STYLE: Final[Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "svg.hashsalt": "expunge",
}


@dataclass(frozen=True)
class Plot:
    """A plot: its file name without ending, what it shows, of which blocks, and how it is drawn."""

    name: str
    title: str
    blocks: tuple[Block, ...]
    draw: Callable[[], Figure]


def pareto(results: Results) -> list[Plot]:
    """Seconds a request against distance to Retrain, one plot a data set and device, one panel a backbone."""
    blocks = [block for block in results.blocks if block.protocol == PARETO_PROTOCOL and block.unlearners]
    return [
        Plot(
            f"pareto-{_slug(*key)}",
            f"Time of a request against distance to Retrain, {_dataset(key[0])}",
            tuple(same),
            lambda same=same: drawing.pareto(same),  # type: ignore[misc]
        )
        for key, same in _by(blocks, lambda block: (block.dataset, block.device))
    ]


def distributions(results: Results) -> list[Plot]:
    """Score distributions before and after, one plot a block that has histograms."""
    found = []
    for block in results.blocks:
        cells = {name: block.methods[name][0] for name in DISTRIBUTION_METHODS if name in block.methods}
        shown = {name: cell for name, cell in cells.items() if (cell.get("histograms") or {}).get("after")}
        if block.protocol in DISTRIBUTION_PROTOCOLS and shown:
            found.append(
                Plot(
                    f"scores-{_slug(block.dataset, block.backbone, block.protocol, block.device)}",
                    f"Scores, {_title(block)}",
                    (block,),
                    lambda shown=shown: drawing.distributions(shown),  # type: ignore[misc]
                )
            )
    return found


def memory(results: Results) -> list[Plot]:
    """Peak memory for a request and for training, one plot a data set and device, one panel a backbone."""
    blocks = [block for block in results.blocks if block.protocol == PARETO_PROTOCOL and drawing.memory_rows(block)]
    return [
        Plot(
            f"memory-{_slug(*key)}",
            f"Peak memory of a request, {_dataset(key[0])}",
            tuple(same),
            lambda same=same: drawing.memory(same),  # type: ignore[misc]
        )
        for key, same in _by(blocks, lambda block: (block.dataset, block.device))
    ]


def ratio_study(results: Results) -> list[Plot]:
    """Quality, membership and distance by the share of pairs that is erased."""
    return [
        Plot(
            f"ratio-{_slug(dataset, backbone)}",
            f"The share of pairs that is erased, {_dataset(dataset)}, {BACKBONES.get(backbone, backbone)}",
            (),
            lambda dataset=dataset, backbone=backbone: drawing.ratio_study(results, dataset, backbone),  # type: ignore[misc]
        )
        for dataset, backbone in ratio_studies(results)
    ]


def stream(results: Results) -> list[Plot]:
    """Quality, membership and time along a stream of batches."""
    return [
        Plot(
            f"stream-{_slug(block.dataset, block.backbone, block.device)}",
            f"A stream of batches, {_dataset(block.dataset)}, {BACKBONES.get(block.backbone, block.backbone)}",
            (block,),
            lambda block=block: drawing.stream(results, block),  # type: ignore[misc]
        )
        for block in results.blocks
        if block.protocol == "stream" and any(drawing.curves(block))
    ]


def every(results: Results) -> list[Plot]:
    """All plots, in the order of the page."""
    return [plot for kind in (distributions, pareto, memory, ratio_study, stream) for plot in kind(results)]


def write(plots: Iterable[Plot], folder: Path) -> None:
    """Draws each plot as PNG and SVG; the same cells give the same bytes.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        for plot in plots:
            figure = plot.draw()
            figure.savefig(folder / f"{plot.name}.png", metadata={"Software": None})
            figure.savefig(folder / f"{plot.name}.svg", metadata={"Date": None, "Creator": None})
            plt.close(figure)


def _by(blocks: Iterable[Block], key: Callable[[Block], tuple[str, ...]]) -> list[tuple[tuple[str, ...], list[Block]]]:
    found: dict[tuple[str, ...], list[Block]] = {}
    for block in blocks:
        found.setdefault(key(block), []).append(block)
    return list(found.items())


def _slug(*parts: str) -> str:
    return "-".join("".join(c if c.isalnum() or c in "._" else "-" for c in part.lower()).strip("-") for part in parts)


def _dataset(name: str) -> str:
    return DATASETS.get(name, name)


def _title(block: Block) -> str:
    backbone, protocol = BACKBONES.get(block.backbone, block.backbone), PROTOCOLS.get(block.protocol, block.protocol)
    return f"{_dataset(block.dataset)}, {backbone}, {protocol}"
