"""Models of an experiment, trained once and kept: the most expensive part of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from service.evaluation.protocols import Scenario, Split
from service.recommender.arrays import write_arrays
from service.recommender.backbones import Backbone
from service.recommender.graph import InteractionGraph
from service.recommender.training import EpochReport, Training, TrainingConfig
from service.unlearning.state import TrainedState

RETRAIN_SEEDS = 100
"""Added to an experiment's seed for a retraining, so that it shares no random number with the base."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained model and what it took, in seconds and epochs."""

    state: TrainedState
    seconds: float
    epochs: int


@dataclass(frozen=True)
class ModelCache:
    """A folder of trained models. A model's file name carries a digest of its data and settings: change either, and
    another file is written.

    Args:
        folder: where the files lie; made where it does not exist.
        report: called with a model's name after each epoch of a training.
    """

    folder: Path
    report: Callable[[str, EpochReport], None] | None = None

    def base(
        self, split: Split, scenario: Scenario, backbone: Backbone, config: TrainingConfig, seed: int
    ) -> TrainedModel:
        """The model that must forget."""
        return self._model(split, scenario.base_key, scenario.trained_on, backbone, replace(config, seed=seed))

    def retrained(
        self, split: Split, scenario: Scenario, backbone: Backbone, config: TrainingConfig, seed: int
    ) -> TrainedModel:
        """The model that never saw the request."""
        seeded = replace(config, seed=seed + (0 if scenario.retrain_key == "clean" else RETRAIN_SEEDS))
        return self._model(split, scenario.retrain_key, scenario.remaining, backbone, seeded)

    def clean(self, split: Split, backbone: Backbone, config: TrainingConfig, seed: int = 0) -> TrainedModel:
        """A model of the clean training graph."""
        return self._model(split, "clean", split.train, backbone, replace(config, seed=seed))

    def _model(
        self, split: Split, key: str, graph: InteractionGraph, backbone: Backbone, config: TrainingConfig
    ) -> TrainedModel:
        # An attacked base must not share its random numbers with the clean model that is its retraining.
        config = replace(config, seed=config.seed + 2 * RETRAIN_SEEDS) if key == "adversarial" else config
        name = f"{split.name}/{backbone.name}/{key}-{config.seed}-{_digest(backbone, config, graph)}"
        path = self.folder / f"{name}.npz"
        if not path.exists():
            self._train(path, name, graph, split.validation, backbone, config)
        with np.load(path) as stored:
            e0, seconds = torch.from_numpy(stored["e0"]), stored["seconds"]
        state = TrainedState(graph, split.validation, e0, backbone)
        return TrainedModel(state, float(seconds.sum()), len(seconds))

    def _train(
        self,
        path: Path,
        name: str,
        graph: InteractionGraph,
        validation: Tensor,
        backbone: Backbone,
        config: TrainingConfig,
    ) -> None:
        told = self.report
        run = Training(backbone, graph, validation, config)
        result = run.run(None if told is None else lambda epoch: told(name, epoch))
        # Two processes that need the same model both train it, and agree.
        write_arrays(path, {"e0": result.e0, "seconds": np.array([epoch.seconds for epoch in result.history])})


def _digest(backbone: Backbone, config: TrainingConfig, graph: InteractionGraph) -> str:
    settings = json.dumps([backbone.config(), asdict(config)], sort_keys=True)
    edges = graph.edges.cpu().numpy().tobytes()
    return hashlib.sha256(settings.encode() + edges).hexdigest()[:10]
