"""Which recipe trains LightGCN soonest on ML-1M: one cell a recipe, every epoch in it.

    EXPUNGE_DATA_DIR=... python -m benchmarks.recipe

Recipes differ from the shipped one in what their name says. Chosen by validation NDCG; the test part is measured beside
it and decides nothing.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch

from benchmarks.cells import cell
from benchmarks.learning import BACKBONE, RECIPE, graphs, ranked
from service.recommender.training import EpochReport, Training, TrainingConfig

RECIPES = {
    "decay-1e-4": (replace(BACKBONE, weight_decay=1e-4), replace(RECIPE, epochs=9)),
    "decay-1e-3": (replace(BACKBONE, weight_decay=1e-3), replace(RECIPE, epochs=9)),
    "decay-1e-2": (BACKBONE, replace(RECIPE, epochs=9)),
}


def measure(name: str) -> dict[str, Any]:
    """Trains one recipe to its end, without early stopping."""
    backbone, config = RECIPES[name]
    _, train, validation, _ = graphs()
    run = Training(backbone, train, validation, replace(config, patience=config.epochs))
    epochs: list[dict[str, float]] = []

    def report(epoch: EpochReport) -> None:
        with torch.no_grad():
            test = ranked(backbone.propagate(run.e0, run.graph))
        epochs.append(
            {
                "loss": epoch.loss,
                "validation_recall_at_20": epoch.quality.recall,
                "validation_ndcg_at_20": epoch.quality.ndcg,
                "test_recall_at_20": test["recall_at_20"],
                "test_ndcg_at_20": test["ndcg_at_20"],
                "seconds": epoch.seconds,
            }
        )

    run.run(report)
    return {"backbone": backbone.config(), "training": facts(config), "epochs": epochs}


def facts(config: TrainingConfig) -> dict[str, Any]:
    """The settings as plain values."""
    return asdict(config)


if __name__ == "__main__":
    for each in RECIPES:
        cell(f"recipe-{each}", lambda each=each: measure(each))  # type: ignore[misc]
