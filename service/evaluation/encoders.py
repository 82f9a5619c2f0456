"""Influence encoders of an experiment, pre-trained once for each base and kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from service.evaluation.cost import Cost, measured
from service.recommender.training import TrainingConfig
from service.unlearning.encoder import InfluenceEncoder
from service.unlearning.pretraining import Pretraining, PretrainingConfig, PretrainingReport
from service.unlearning.protocol import ForgetResult, Guarantee, Unlearner
from service.unlearning.request import Request
from service.unlearning.state import TrainedState
from service.unlearning.unlearnrec import FineTuningConfig, UnlearnRec


@dataclass(frozen=True)
class EncoderShelf:
    """A folder of encoders; a file's name carries a digest of the base and the settings.

    Args:
        folder: where the files lie; made where it does not exist.
        report: called with (step, steps) while one is pre-trained.
    """

    folder: Path
    report: Callable[[int, int], None] | None = None

    def get(
        self, state: TrainedState, config: PretrainingConfig, training: TrainingConfig | None
    ) -> tuple[InfluenceEncoder, Cost]:
        """The encoder of a base, and what its pre-training took when it was made.

        Args:
            state: the base.
            config: of the pre-training.
            training: of the base, for methods that train a shadow of it.
        """
        path = self.folder / f"encoder-{config.mode}-{config.seed}-{_digest(state, config, training)}.npz"
        if not path.exists():
            self._make(path, state, config, training)
        with np.load(path, allow_pickle=False) as stored:
            facts = json.loads(stored["facts"].tobytes().decode())
            tensors = {name: torch.from_numpy(stored[name]) for name in stored.files if name != "facts"}
        encoder = InfluenceEncoder.from_tensors(facts["encoder"], tensors, state.e0.device)
        return encoder, Cost(facts["seconds"], facts["peak_bytes"])

    def _make(
        self, path: Path, state: TrainedState, config: PretrainingConfig, training: TrainingConfig | None
    ) -> None:
        def told(report: PretrainingReport) -> None:
            if self.report is not None:
                self.report(report.step, report.steps)

        run = lambda: Pretraining(state, config, training).run(told)  # noqa: E731
        result, cost = measured(run, state.e0.device)
        facts = json.dumps(asdict(cost) | {"encoder": result.encoder.facts()})
        tensors = {name: tensor.numpy() for name, tensor in result.encoder.tensors().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}.tmp")
        with aside.open("wb") as file:
            np.savez(file, allow_pickle=False, facts=np.frombuffer(facts.encode(), dtype=np.uint8), **tensors)
        aside.replace(path)


@dataclass
class PretrainedUnlearnRec(Unlearner):
    """UnlearnRec with the encoder of the base it was prepared for; a base made of its results keeps that encoder.

    Guarantee: approximate.
    Source and cost: those of `UnlearnRec`.

    Args:
        pretraining: of the encoder; its mode is the one that requests must have.
        shelf: where encoders are kept.
        training: of the base, for a shadow; None trains none.
        epochs: of fine-tuning.
    """

    pretraining: PretrainingConfig
    shelf: EncoderShelf
    training: TrainingConfig | None = None
    epochs: int = 0
    oneoff: Cost | None = field(default=None, init=False)
    """What the pre-training took when it was done: reading its outcome takes nothing."""

    guarantee = Guarantee.APPROXIMATE

    def prepare(self, state: TrainedState) -> None:
        """Pre-trains the encoder, or reads it."""
        encoder, self.oneoff = self.shelf.get(state, self.pretraining, self.training)
        tuning = FineTuningConfig(seed=self.pretraining.seed)
        self._method = UnlearnRec({self.pretraining.mode: encoder}, self.epochs, tuning)
        self._method.prepare(state)

    def forget(self, state: TrainedState, request: Request) -> ForgetResult:
        """What `UnlearnRec` makes of it."""
        return self._method.forget(state, request)


def _digest(state: TrainedState, config: PretrainingConfig, training: TrainingConfig | None) -> str:
    settings = [state.backbone.config(), asdict(config), None if training is None else asdict(training)]
    tensors = state.tensors()
    parts = (tensors[name].numpy().tobytes() for name in ("e0", "edges", "validation"))
    return hashlib.sha256(b"".join((json.dumps(settings, sort_keys=True).encode(), *parts))).hexdigest()[:16]
