"""The methods of an experiment by name. What a method needs is imported when it is made: a broken one fails alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from service.evaluation.cost import Cost
from service.evaluation.model_cache import RETRAIN_SEEDS, TrainedModel
from service.recommender.training import TrainingConfig
from service.unlearning.protocol import ForgetResult, Guarantee, Unlearner
from service.unlearning.request import Mode, UnlearningRequest
from service.unlearning.state import TrainedState


class LatencyClass(StrEnum):
    """How long a method takes for a request; it decides how many of them are made."""

    INSTANT = "instant"
    """Milliseconds."""
    MODERATE = "moderate"
    """Seconds."""
    TRAINING = "training"
    """As long as a training."""


@dataclass(frozen=True)
class MethodContext:
    """What a method may be made from: never a request, never the test part.

    `training` is that of the base, its seed included; `retrained` gives the kept model of the cell's retraining.
    """

    training: TrainingConfig
    seed: int
    encoders: Path
    retrained: Callable[[], TrainedModel]
    report: Callable[[int, int], None] | None = None

    @property
    def other_seed(self) -> int:
        """For what is trained anew: it must share no random number with the base."""
        return self.training.seed + RETRAIN_SEEDS


@dataclass(frozen=True)
class Method:
    """How a method takes part.

    `reference`: it uses no backbone and is not compared with the retrained ones. `stepwise`: it can start from a base
    that is its own last result.
    """

    make: Callable[[MethodContext], Unlearner]
    mode: Mode = "forget"
    latency: LatencyClass = LatencyClass.INSTANT
    reference: bool = False
    stepwise: bool = True


@dataclass
class KeptRetraining(Unlearner):
    """The model that was retrained without the whole request and kept: one training for all cells.

    Guarantee: exact.
    Source: `Retrain`.
    Cost: a whole training, as measured when it was done.
    """

    retrained: Callable[[], TrainedModel]
    request: Cost | None = field(default=None, init=False)

    guarantee = Guarantee.EXACT

    def prepare(self, state: TrainedState) -> None:
        """Nothing to prepare."""

    def forget(self, state: TrainedState, request: UnlearningRequest) -> ForgetResult:
        """The kept model, whatever the request: a part of the whole has no training of its own."""
        trained = self.retrained()
        self.request = Cost(trained.seconds, None)
        model = trained.state
        return ForgetResult(model.e0, model.readout, model.graph, 0, {"train": trained.seconds})


def _unlearnrec(
    epochs: int, readout: str = "sum0_masked", without: str | None = None
) -> Callable[[MethodContext], Unlearner]:
    """The published method: no correction, its loss and learning rate; `without` one of the loss's weights."""

    def make(context: MethodContext) -> Unlearner:
        from service.evaluation.encoders import EncoderCache, PretrainedUnlearnRec
        from service.unlearning.encoder import EncoderConfig
        from service.unlearning.pretraining import PretrainingConfig
        from service.unlearning.unlearnrec import FineTuningConfig

        shape: dict[str, Any] = {"readout": readout}
        weights: dict[str, Any] = {} if without is None else {without: 0.0}
        config = PretrainingConfig.published(seed=context.seed, encoder=EncoderConfig(**shape), **weights)
        known = {field.name for field in fields(FineTuningConfig)}
        tuning = FineTuningConfig(**{name: weight for name, weight in weights.items() if name in known})
        encoder_cache = EncoderCache(context.encoders, context.report)
        return PretrainedUnlearnRec(config, encoder_cache, context.training, epochs, tuning)

    return make


def _expunge(mode: Mode) -> Callable[[MethodContext], Unlearner]:
    """What the service ships; one shadow serves both modes."""

    def make(context: MethodContext) -> Unlearner:
        from service.evaluation.encoders import EncoderCache, PretrainedUnlearnRec
        from service.unlearning.pretraining import PretrainingConfig

        encoder_cache = EncoderCache(context.encoders, context.report)
        return PretrainedUnlearnRec(PretrainingConfig(seed=context.seed), encoder_cache, context.training, mode=mode)

    return make


def _no_forgetting(context: MethodContext) -> Unlearner:
    from service.unlearning.baselines import NoForgetting

    return NoForgetting()


def _graph_swap(amplification: float | None) -> Callable[[MethodContext], Unlearner]:
    def make(context: MethodContext) -> Unlearner:
        from service.unlearning.baselines import GraphSwap

        return GraphSwap(amplification, context.seed)

    return make


def _softmax(context: MethodContext) -> Unlearner:
    from service.recommender.backbones.softmax import SoftmaxLightGCN
    from service.unlearning.retrain import Retrain

    return Retrain(context.training, context.other_seed, backbone=SoftmaxLightGCN())


def _popularity(context: MethodContext) -> Unlearner:
    from service.unlearning.popularity import Popularity

    return Popularity()


def _ease(context: MethodContext) -> Unlearner:
    from service.unlearning.ease import Ease

    return Ease()


def _sisa(context: MethodContext) -> Unlearner:
    from service.unlearning.partition import SISA

    return SISA(training=context.training, seed=context.other_seed)


def _receraser(strategy: str) -> Callable[[MethodContext], Unlearner]:
    def make(context: MethodContext) -> Unlearner:
        from service.unlearning.partition import RecEraser

        options: dict[str, Any] = {"strategy": strategy}
        return RecEraser(training=context.training, seed=context.other_seed, **options)

    return make


def _grapheraser(method: str) -> Callable[[MethodContext], Unlearner]:
    def make(context: MethodContext) -> Unlearner:
        from service.unlearning.partition import GraphEraser

        options: dict[str, Any] = {"method": method}
        return GraphEraser(training=context.training, seed=context.other_seed, **options)

    return make


def _influence(name: str, **options: Any) -> Callable[[MethodContext], Unlearner]:
    """A method of the influence family, by the name of its class."""

    def make(context: MethodContext) -> Unlearner:
        from importlib import import_module

        family = import_module("service.unlearning.influence")
        unlearner: Unlearner = getattr(family, name)(seed=context.seed, **options)
        return unlearner

    return make


def _partition(make: Callable[[MethodContext], Unlearner]) -> Method:
    # A result is many sub-models: it is no base that could be split again.
    return Method(make, latency=LatencyClass.TRAINING, stepwise=False)


_LOSSES: Final = {
    "unlearning": "unlearn_weight",
    "preserving": "preserve_weight",
    "contrast": "contrast_weight",
}
"""What the paper's Table 3 takes away, and the weight that has to be 0 for it."""

METHODS: Final[Mapping[str, Method]] = {
    "retrain": Method(lambda context: KeptRetraining(context.retrained), latency=LatencyClass.TRAINING, stepwise=False),
    "none": Method(_no_forgetting),
    "graph_swap": Method(_graph_swap(1.0)),
    "amplified_swap": Method(_graph_swap(None)),
    "lightgcn_softmax": Method(_softmax, latency=LatencyClass.TRAINING, reference=True, stepwise=False),
    "popularity": Method(_popularity, reference=True, stepwise=False),
    "ease_exact": Method(_ease, latency=LatencyClass.MODERATE, reference=True, stepwise=False),
    "sisa": _partition(_sisa),
    "receraser": _partition(_receraser("inbp")),
    "receraser_ubp": _partition(_receraser("ubp")),
    "receraser_ibp": _partition(_receraser("ibp")),
    "grapheraser": _partition(_grapheraser("bekm")),
    "grapheraser_blpa": _partition(_grapheraser("blpa")),
    **{
        name.lower(): Method(_influence(name), latency=LatencyClass.MODERATE) for name in ("GIF", "CEU", "IFRU", "SCIF")
    },
    "gif_cg": Method(_influence("GIF", solver="cg"), latency=LatencyClass.MODERATE),
    "gif_khop": Method(_influence("GIF", hops=1), latency=LatencyClass.MODERATE),
    "ceu_literal": Method(_influence("CEU", literal=True), latency=LatencyClass.MODERATE),
    **{
        f"unlearnrec_{k}": Method(_unlearnrec(k), "dislike", LatencyClass.MODERATE if k else LatencyClass.INSTANT)
        for k in range(4)
    },
    **{
        f"unlearnrec_3_no_{loss}_loss": Method(_unlearnrec(3, without=weight), "dislike", LatencyClass.MODERATE)
        for loss, weight in _LOSSES.items()
    },
    "unlearnrec_0_sum0": Method(_unlearnrec(0, "sum0"), "dislike"),
    "expunge": Method(_expunge("forget")),
    "expunge_dislike": Method(_expunge("dislike"), "dislike"),
}
"""By name; a caller may add others."""

REFERENCES: Final = frozenset(name for name, method in METHODS.items() if method.reference)
