"""Tables of docs/learning.md, from the cells in benchmarks/results/cells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

CELLS = Path(__file__).resolve().parent / "results" / "cells"
MISSING = "Not measured yet."

COLUMNS = ("recall_at_20", "ndcg_at_20", "auc_heldout", "p_erased", "p_heldout", "p_negative", "mi_bf", "mi_ng")
MODELS = {
    "before": "untouched",
    "graph_swap": "graph swapped",
    "published": "published method",
    "unlearned": "Expunge, encoder only",
}


def blocks() -> dict[str, str]:
    """The text of each marked place, by the name in its marker."""
    return {
        "recipes": recipes(),
        "shapes": shapes(_cell("shapes-ml-100k")),
        "adversarial": models(_cell("adversarial")),
        "genuine": models(_cell("genuine")),
        "encoders": encoders(),
        "gate-ml-100k": gate(_cell("gate-ml-100k")),
        "gate-ml-1m": gate(_cell("gate-ml-1m")),
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
    return f"{_table(head, rows)}\n\n{cell['draws']} requests of each shape. Thresholds: {limits}."


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


def models(cell: Mapping[str, Any] | None) -> str:
    """One row a model: the untouched one, the methods, every retraining."""
    if cell is None:
        return MISSING
    named = {key: name for key, name in MODELS.items() if key in cell}
    named |= {key: f"retrained, seed {key[8:]}" for key in sorted(cell) if key.startswith("retrain_")}
    rows = [[name, *(f"{cell[key][column]:.4f}" for column in COLUMNS)] for key, name in named.items()]
    head = ("model", "Recall@20", "NDCG@20", "AUC", "p erased", "p held-out", "p negative", "MI-BF", "MI-NG")
    return _table(head, rows)


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


def encoders() -> str:
    """What pre-training added to the correction, by the judge's score on held-out simulated requests."""
    rows = []
    for name in ("encoder-forget", "encoder-dislike", "encoder-published"):
        cell = _cell(name)
        if cell is not None:
            start = cell["history"][0]
            kept = next(each for each in cell["history"] if each["step"] == cell["chosen_step"])
            measured = [f"{each[key]:.4f}" for key in ("score", "quality_ratio") for each in (start, kept)]
            rows.append([name.removeprefix("encoder-"), f"{cell['chosen_step']} of {cell['steps']}", *measured])
    head = ("encoder", "step kept", "score at the start", "score kept", "quality at the start", "quality kept")
    return _table(head, rows) if rows else MISSING


def _cell(name: str) -> dict[str, Any] | None:
    path = CELLS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
