"""Tables of docs/learning.md, from the cells in benchmarks/results/cells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

CELLS = Path(__file__).resolve().parent / "results" / "cells"
MISSING = "Not measured yet."


def blocks() -> dict[str, str]:
    """The text of each marked place, by the name in its marker."""
    return {
        "recipes": recipes(),
        "shapes": shapes(_cell("shapes-ml-100k")),
        "timing": timing(_cell("timing-ml-1m")),
        "aims": aims(_cell("aims-ml-100k")),
        **{name: gate(_cell(name)) for name in ("gate-ml-100k", "gate-ml-1m", "gate-ml-1m-simgcl", "gate-ml-1m-sgl")},
    }


def gate(cell: Mapping[str, Any] | None) -> str:
    """Share of good versions held back, and of each kind of spoilt ones passed, by the shape of the request."""
    if cell is None:
        return MISSING
    spoilt = [name for name in next(iter(cell["requests"].values())) if name != "good"]
    rows = [
        [shape, f"{1 - made['good']['passed']:.0%}", *(f"{made[name]['passed']:.0%}" for name in spoilt)]
        for shape, made in cell["requests"].items()
    ]
    limits = ", ".join(f"{name} {value:g}" for name, value in cell["thresholds"].items())
    head = ("request", "good, held back", *(f"{name.replace('_', ' ')}, passed" for name in spoilt))
    way = cell["requests"]["1 %"]["good"]["figures"]["forget_reach"]["p50"]
    told = (
        f"{cell['draws']} requests of each shape. The way from a learnt pair's score to its target is {way:.2f} "
        f"standard deviations of the held-out scores. Thresholds: {limits}."
    )
    return f"{_table(head, rows)}\n\n{told}\n\n{_residuals(cell)}"


def _residuals(cell: Mapping[str, Any]) -> str:
    """Median share of the way that is left to go, by request and by how the version was made."""
    names = ("good", "half_forgotten", "graph_only", "nothing_forgotten")
    rows = []
    for shape, made in cell["requests"].items():
        figures = [made[name]["figures"] for name in names]
        of = "recent_forget" if "recent_forget_residual" in figures[0] else "forget"
        if all(f"{of}_residual" in each for each in figures):
            left = (each[f"{of}_residual"]["p50"] / each[f"{of}_reach"]["p50"] for each in figures)
            rows.append([shape, *(f"{share:.2f}" for share in left)])
    head = ("request: median share left to go", *(name.replace("_", " ") for name in names))
    return _table(head, rows)


def aims(cell: Mapping[str, Any] | None) -> str:
    """Lowest and highest correlation and slope of each way over the bases."""
    if cell is None:
        return MISSING
    ways = sorted(cell["ways"].items(), key=lambda named: _by_numbers(named[0]))
    rows = [[name, _range(way["correlation"]), _range(way["slope"])] for name, way in ways]
    rows.append(["one retraining, against the mean of the others", f"{cell['ceiling']:.2f}", ""])
    return _table(("aims", "correlation", "slope"), rows)


def _by_numbers(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def timing(cell: Mapping[str, Any] | None) -> str:
    """Seconds of a request by method, and how many of them a retraining takes."""
    if cell is None:
        return MISSING
    retrain = cell["retrain"]["seconds"]
    rows = [
        [name, f"{timed['seconds'] * 1e3:,.0f} ms", f"{retrain / timed['seconds']:,.0f}"]
        for name, timed in cell["methods"].items()
    ]
    rows.append(["retrain", f"{retrain:,.1f} s", "1"])
    return _table(("method", "a request of 1 % of the pairs", "retraining takes so many times that"), rows)


def recipes() -> str:
    """Best epoch by validation NDCG of each recipe, and where it crossed the mark."""
    rows = []
    for path in sorted(CELLS.glob("recipe-*.json")):
        recipe = json.loads(path.read_text())
        epochs = recipe["epochs"]
        best = max(range(len(epochs)), key=lambda number: epochs[number]["validation_ndcg_at_20"])
        decay = recipe["backbone"]["weight_decay"]
        chosen = epochs[best]
        figures = [chosen[key] for key in ("validation_ndcg_at_20", "test_recall_at_20", "test_ndcg_at_20")]
        rows.append([f"{decay:g}", f"{best + 1} of {len(epochs)}", *(f"{figure:.4f}" for figure in figures)])
    head = ("weight decay", "best epoch", "validation NDCG@20", "test Recall@20", "test NDCG@20")
    return _table(head, rows) if rows else MISSING


def shapes(cell: Mapping[str, Any] | None) -> str:
    """Mean move, correlation and distance of each method, by the shape of the request."""
    if cell is None:
        return MISSING
    rows = []
    for shape, facts in cell["shapes"].items():
        for method, figures in facts["methods"].items():
            measured = (facts["retrain"], figures["moved"], figures["correlation"], figures["distance"])
            rows.append([shape, str(facts["n"]), method, *(f"{value:.3f}" for value in measured)])
    head = ("request", "pairs", "method", "retraining moved", "moved", "correlation", "distance to retraining")
    return _table(head, rows)


def _cell(name: str) -> dict[str, Any] | None:
    path = CELLS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
