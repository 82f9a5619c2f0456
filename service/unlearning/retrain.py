"""Retraining from scratch on what remains: the reference that all else is measured against."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from service.recommender.training import EpochReport, Training, TrainingConfig
from service.unlearning.protocol import ForgetResult, Guarantee, Unlearner
from service.unlearning.request import Request
from service.unlearning.state import TrainedState, zero_isolated


@dataclass
class Retrain(Unlearner):
    """Trains the base's backbone anew, from another seed, on the interactions that remain.

    Guarantee: exact.
    Source: methods.md section 2. Stopping is decided on the base's validation part, never on test data.
    Cost: a whole training.

    Args:
        training: the settings the base was trained with; `seed` is replaced.
        seed: of the new training; another than the base's, or its noise is shared.
        report: called after each epoch.
    """

    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 1
    report: Callable[[EpochReport], None] | None = None

    guarantee = Guarantee.EXACT

    def prepare(self, state: TrainedState) -> None:
        """Nothing to prepare."""

    def forget(self, state: TrainedState, request: Request) -> ForgetResult:
        """The model that never saw the request."""
        started = time.perf_counter()
        remaining = state.graph.without(request.edges)
        config = replace(self.training, seed=self.seed)
        run = Training(state.backbone, remaining, state.validation, config, state.e0.device)
        e0 = run.run(self.report).e0
        with torch.no_grad():
            readout = zero_isolated(state.backbone.propagate(e0, remaining), remaining)
        return ForgetResult(e0, readout, remaining, 0, {"train": time.perf_counter() - started})
