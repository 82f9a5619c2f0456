"""What a grid measured, as a table for people: a block for each data set, backbone and protocol, a line a method."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from service.cli.terminal import count, duration

HEADER = ("method", "NDCG@20", "Recall@20", "AUC", "MI-BF", "to retrain", "a request")
LEGEND = (
    "AUC: an erased pair scores above a held-out one; retrain is the aim. MI-BF: mean p before over after. "
    "To retrain: JS distance of the touched users' rankings, 0 is equal. Means over seeds."
)
WIDTH = 80


def table(results: Path, keys: Iterable[Any]) -> str:
    """The table of those cells of a grid (`CellKey`) that are measured; empty where none is.

    At most 80 columns wide; a figure that was not measured is a dash.
    """
    blocks: dict[tuple[str, str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for key in keys:
        cell = _read(results / key.path)
        if cell is not None:
            name = (str(cell["dataset"]), str(cell["backbone"]), str(cell["protocol"]))
            blocks.setdefault(name, {}).setdefault(str(cell["method"]), []).append(cell)
    lines: list[str] = []
    for (dataset, backbone, protocol), methods in blocks.items():
        seeds = max(len(cells) for cells in methods.values())
        lines += ["", f"{dataset}, {backbone}, {protocol} ({count(seeds, 'seeds')})"]
        lines += _aligned([HEADER, *((name, *_figures(cells)) for name, cells in methods.items())])
    return "\n".join([*lines[1:], "", *_wrapped(LEGEND)]) if lines else ""


def _figures(cells: list[Mapping[str, Any]]) -> tuple[str, ...]:
    return (
        _mean(cells, "quality", "overall", "ndcg_at_20"),
        _mean(cells, "quality", "overall", "recall_at_20"),
        _mean(cells, "membership", "auc_heldout", digits=3),
        _mean(cells, "membership", "mi_bf", digits=2),
        _mean(cells, "distances", "touched", "js_to_retrain"),
        _seconds(cells),
    )


def _values(cells: list[Mapping[str, Any]], path: tuple[str, ...]) -> list[float]:
    found = []
    for cell in cells:
        value: Any = cell
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, int | float):
            found.append(float(value))
    return found


def _mean(cells: list[Mapping[str, Any]], *path: str, digits: int = 4) -> str:
    values = _values(cells, path)
    return f"{fmean(values):.{digits}f}" if values else "-"


def _seconds(cells: list[Mapping[str, Any]]) -> str:
    values = _values(cells, ("seconds", "request"))
    return duration(fmean(values)) if values else "-"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEADER))]
    return ["  ".join((row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]))).rstrip() for row in rows]


def _wrapped(text: str) -> list[str]:
    from textwrap import wrap

    return wrap(text, WIDTH)


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        cell = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cell if isinstance(cell, dict) else None
