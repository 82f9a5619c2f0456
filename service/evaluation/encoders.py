"""Influence encoders of an experiment, pre-trained once for each base and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from service.evaluation.cost import Cost, measured
from service.recommender.arrays import array_text, text_array, write_arrays
from service.recommender.training import TrainingConfig
from service.unlearning.encoder import InfluenceEncoder, OutdatedEncoder
from service.unlearning.pretraining import Pretraining, PretrainingConfig
from service.unlearning.protocol import ForgetResult, Guarantee, Unlearner
from service.unlearning.request import Mode, UnlearningRequest
from service.unlearning.state import TrainedState
from service.unlearning.unlearnrec import FineTuningConfig, UnlearnRec


@dataclass(frozen=True)
class EncoderCache:
    """A folder of encoders; a file's name carries a digest of the base and the settings.

    Args:
        folder: where the files lie; made where it does not exist.
        report: called with (step, steps) while one is pre-trained.
    """

    folder: Path
    report: Callable[[int, int], None] | None = None

    def get(
        self, state: TrainedState, config: PretrainingConfig, training: TrainingConfig
    ) -> tuple[InfluenceEncoder, Cost]:
        """The encoder of a base, and what its pre-training took when it was made.

        Args:
            state: the base.
            config: settings of the pre-training.
            training: those of the base, for the shadow; an encoder without a correction has none.
        """
        shadow = training if config.correct else None
        path = self.folder / f"encoder-{config.mode}-{config.seed}-{_digest(state, config, shadow)}.npz"
        if not path.exists():
            self._make(path, state, config, shadow)
        try:
            return _read(path, state.e0.device)
        except OutdatedEncoder:
            self._make(path, state, config, shadow)
            return _read(path, state.e0.device)

    def _make(self, path: Path, state: TrainedState, config: PretrainingConfig, shadow: TrainingConfig | None) -> None:
        told = self.report
        result, cost = measured(
            lambda: Pretraining(state, config, shadow).run(
                None if told is None else lambda report: told(report.step, report.steps)
            ),
            state.e0.device,
        )
        facts = asdict(cost) | {"encoder": result.encoder.facts()}
        write_arrays(path, {"facts": text_array(json.dumps(facts)), **result.encoder.tensors()})


@dataclass
class PretrainedUnlearnRec(Unlearner):
    """UnlearnRec with the encoder of the base it was prepared for; a base made of its results keeps that encoder.

    Guarantee: approximate.
    Source and cost: those of `UnlearnRec`.

    Args:
        pretraining: of the encoder.
        encoder_cache: where encoders are kept.
        training: of the base: its shadow is trained like it, and fine-tuning takes batches of its size.
        epochs: of fine-tuning.
        fine_tuning: its settings, but for batch size and seed.
        mode: the one that requests must have; default the encoder's. An encoder without steps of its own knows only
            what a shadow taught it, which serves both.
    """

    pretraining: PretrainingConfig
    encoder_cache: EncoderCache
    training: TrainingConfig
    epochs: int = 0
    fine_tuning: FineTuningConfig = field(default_factory=FineTuningConfig)
    mode: Mode | None = None
    oneoff: Cost | None = field(default=None, init=False)
    """What the pre-training took when it was done: reading its outcome takes nothing."""

    guarantee = Guarantee.APPROXIMATE

    def prepare(self, state: TrainedState) -> None:
        """Pre-trains the encoder, or reads it."""
        encoder, self.oneoff = self.encoder_cache.get(state, self.pretraining, self.training)
        tuning = replace(self.fine_tuning, batch_size=self.training.batch_size, seed=self.pretraining.seed)
        self._method = UnlearnRec({self.mode or self.pretraining.mode: encoder}, self.epochs, tuning)
        self._method.prepare(state)

    def forget(self, state: TrainedState, request: UnlearningRequest) -> ForgetResult:
        """What `UnlearnRec` makes of it."""
        return self._method.forget(state, request)


def _read(path: Path, device: torch.device) -> tuple[InfluenceEncoder, Cost]:
    with np.load(path, allow_pickle=False) as stored:
        facts = json.loads(array_text(stored["facts"]))
        tensors = {name: torch.from_numpy(stored[name]) for name in stored.files if name != "facts"}
    return InfluenceEncoder.from_tensors(facts["encoder"], tensors, device), Cost(facts["seconds"], facts["peak_bytes"])


def _digest(state: TrainedState, config: PretrainingConfig, shadow: TrainingConfig | None) -> str:
    settings = [state.backbone.config(), asdict(config), None if shadow is None else asdict(shadow)]
    tensors = state.tensors()
    parts = (tensors[name].numpy().tobytes() for name in ("e0", "edges", "validation"))
    return hashlib.sha256(b"".join((json.dumps(settings, sort_keys=True).encode(), *parts))).hexdigest()[:16]
