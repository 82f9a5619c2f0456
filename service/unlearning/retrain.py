"""Retraining from scratch on what remains: the reference that all else is measured against."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from service.recommender.backbones import Backbone
from service.recommender.graph import InteractionGraph
from service.recommender.training import EpochReport, Training, TrainingConfig
from service.unlearning.protocol import ForgetResult, Guarantee, Unlearner
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState, zero_isolated


@dataclass
class Retrain(Unlearner):
    """Trains the base's backbone, or another one, anew, from another seed, on the interactions that remain.

    Guarantee: exact.
    Source: methods.md section 2. Stopping is decided on the base's validation part, never on test data.
    Cost: a whole training.

    Args:
        training: the settings the base was trained with; `seed` is replaced.
        seed: of the new training; another than the base's, or its noise is shared.
        report: called after each epoch.
        backbone: default the base's. Another one has a model of its own before the request, too.
    """

    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 1
    report: Callable[[EpochReport], None] | None = None
    backbone: Backbone | None = None

    guarantee = Guarantee.EXACT

    def __post_init__(self) -> None:
        self._prepared: tuple[TrainedState, Tensor] | None = None

    def prepare(self, state: TrainedState) -> None:
        """Nothing to prepare, unless there is another backbone to train."""
        if self.backbone is not None:
            self._prepared = (state, self._trained(state, state.graph)[1])

    def before(self, state: TrainedState) -> Tensor:
        """(n_nodes, d) the base's readout, or that of the other backbone."""
        if self.backbone is None:
            return state.readout
        if self._prepared is None or self._prepared[0] is not state:
            self.prepare(state)
        assert self._prepared is not None
        return self._prepared[1]

    def forget(self, state: TrainedState, request: UnlearningRequest) -> ForgetResult:
        """The model that never saw the request."""
        started = time.perf_counter()
        remaining = state.graph.without(request.edges)
        e0, readout = self._trained(state, remaining)
        return ForgetResult(e0, readout, remaining, 0, {"train": time.perf_counter() - started})

    def _trained(self, state: TrainedState, graph: InteractionGraph) -> tuple[Tensor, Tensor]:
        backbone = self.backbone or state.backbone
        config = replace(self.training, seed=self.seed)
        e0 = Training(backbone, graph, state.validation, config, state.e0.device).run(self.report).e0
        with torch.no_grad():
            return e0, zero_isolated(backbone.propagate(e0, graph), graph)
