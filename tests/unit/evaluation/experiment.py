"""A data set that is learnt in a blink, and grids on it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from service.evaluation.encoders import EncoderCache, PretrainedUnlearnRec
from service.evaluation.grid import Grid
from service.evaluation.methods import METHODS, REFERENCES, Method, MethodContext
from service.evaluation.runner import Runner
from service.recommender.dataset import Dataset, Vocabulary
from service.unlearning.pretraining import PretrainingConfig
from service.unlearning.protocol import Unlearner
from service.unlearning.request import Mode
from tests.unit.learning import blocks

RECIPES = {
    "default": {
        "lightgcn": {
            "backbone": {"layers": 2},
            "training": {"embedding_size": 8, "batch_size": 1024, "learning_rate": 0.05, "epochs": 3},
        }
    }
}


def tiny(name: str = "tiny") -> Dataset:
    """Four communities; a fifth of the interactions is the test part."""
    edges = blocks().edges.T.numpy()
    order = np.random.default_rng(0).permutation(len(edges))
    test, train = edges[np.sort(order[: len(edges) // 5])], edges[np.sort(order[len(edges) // 5 :])]
    graph = blocks()
    users = Vocabulary(tuple(f"u{row:03}" for row in range(graph.n_users)))
    items = Vocabulary(tuple(f"i{row:03}" for row in range(graph.n_items)))
    return Dataset(name, users, items, train, test)


def a_grid(
    methods: list[str], protocols: list[str], seeds: tuple[int, ...] = (0,), more: dict[str, Method] | None = None
) -> Grid:
    """The product of these on the tiny data set."""
    block = {
        "datasets": ["tiny"],
        "backbones": ["lightgcn"],
        "methods": methods,
        "protocols": protocols,
        "seeds": list(seeds),
    }
    document = {"recipes": RECIPES, "cells": [block], "retrain_seeds": [0, 1]}
    return Grid.of(document, tuple({**METHODS, **(more or {})}), REFERENCES)


def a_runner(grid: Grid, folder: Path, results: str = "results", **options: Any) -> Runner:
    """A runner that keeps everything in a folder."""
    torch.set_num_threads(1)
    return Runner(grid, tiny, folder / results, folder / "models", **options)


def without_cost(value: Any) -> Any:
    """A cell without what two measurements of it may differ in."""
    if isinstance(value, dict):
        return {
            name: without_cost(part)
            for name, part in value.items()
            if name not in {"seconds", "memory", "peak_memory_bytes", "_measured"}
        }
    return [without_cost(part) for part in value] if isinstance(value, list) else value


def quick(mode: Mode, **options: Any) -> Method:
    """UnlearnRec with an encoder that is made in a few steps."""

    def make(context: MethodContext) -> Unlearner:
        config = PretrainingConfig(mode=mode, steps=4, batch_size=64, judge_every=2, seed=context.seed, **options)
        return PretrainedUnlearnRec(config, EncoderCache(context.encoders, context.report), context.training)

    return Method(make, mode)


QUICK = {
    **METHODS,
    "expunge": quick("forget"),
    "expunge_dislike": quick("dislike"),
    "unlearnrec_0": quick("dislike", correct=False),
}
"""The methods, those that pre-train in a few steps."""
