"""Pre-training an influence encoder on simulated requests (methods.md section 10.4)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from service.recommender.backbones import Triples
from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.recommender.propagation import product
from service.recommender.sampling import batches
from service.recommender.soundness import Diverged, cause_of
from service.recommender.training import EpochReport, TrainingConfig
from service.unlearning.amplification import swap_graph
from service.unlearning.corrector import Corrector
from service.unlearning.encoder import EncoderConfig, InfluenceEncoder
from service.unlearning.expectation import Expectation
from service.unlearning.idm import InfluenceDependencyMatrix
from service.unlearning.judging import Judge, Judgement
from service.unlearning.losses import (
    MAX_CONTRAST_NODES,
    calibrated_loss,
    contrast_loss,
    preserving_loss,
    unlearning_loss,
)
from service.unlearning.readout import unlearned_readout
from service.unlearning.request import Mode
from service.unlearning.shadow import Shadow, learn_expectation
from service.unlearning.simulation import Requests, shapes_of, simulate
from service.unlearning.state import TrainedState


@dataclass(frozen=True)
class PretrainingConfig:
    """How an influence encoder is pre-trained. The lambdas are those of equation (25)."""

    mode: Mode = "forget"
    """`dislike` uses the published unlearning loss (20), `forget` the calibrated one."""
    steps: int = 0
    """Steps of Adam, >= 0; 0 leaves the encoder as it starts: the correction meets the same aims in closed form."""
    batch_size: int = 1024
    """Remaining interactions in a step, >= 2."""
    learning_rate: float = 3e-4
    """Of Adam; the paper has 1e-3 without the correction, beside which a third of it is steadier."""
    weight_learning_rate: float | None = None
    """Of Adam for W_eta alone; None: `learning_rate`. W_eta starts at .002 and weighs a readout scaled by kappa = .1:
    a few dozen steps of 1e-3 would leave it without effect."""
    unlearn_weight: float = 0.5
    """lambda_u."""
    preserve_weight: float = 0.02
    """lambda_p; L_p is a sum over the batch."""
    contrast_weight: float = 1e-3
    """lambda_c."""
    temperature: float = 10.0
    """tau of equation (21)."""
    contrast_temperature: float = 1.0
    drop: float = 0.05
    """Share of entries dropped from A_D in equation (23)."""
    requests: Requests = "mixed"
    """What is simulated: requests of every shape, or only pairs that the base itself finds unlikely."""
    steps_a_request: int = 8
    """A fresh request is simulated after so many steps, >= 1."""
    judge_every: int = 25
    """Held-out requests are judged after so many steps, >= 1."""
    max_quality_loss: float = 0.01
    """A checkpoint counts only while its quality ratio is no further below that of the encoder before training."""
    correct: bool = True
    """Bring revoked pairs to what they should score after the encoder; the published method does not."""
    shadow_share: float = 0.02
    """Share of the interactions that the shadow does without, from which the encoder learns what a forgotten pair
    should score; 0 trains no shadow and aims at quantiles."""
    seed: int = 0
    encoder: EncoderConfig = field(default_factory=EncoderConfig)

    @classmethod
    def published(cls, **options: Any) -> PretrainingConfig:
        """UnlearnRec as its paper has it: no correction, its losses and learning rate, mode `dislike`.

        Its loss is meant for what nobody stands by, so unlikely pairs are simulated. Number of steps and W_eta's rate
        were chosen on a simulated attack on ML-1M (docs/learning.md).
        """
        chosen: dict[str, Any] = {
            "mode": "dislike",
            "steps": 50,
            "learning_rate": 1e-3,
            "weight_learning_rate": 0.1,
            "correct": False,
            "requests": "unlikely",
            "judge_every": 50,
            "max_quality_loss": 0.05,
        }
        return cls(**chosen | options)


@dataclass(frozen=True)
class PretrainingReport:
    """Where pre-training stands: `step` of `steps` epochs of the shadow, or steps of the encoder."""

    step: int
    steps: int
    loss: float
    judgement: Judgement | None
    seconds: float
    stage: Literal["shadow", "encoder"] = "encoder"


@dataclass(frozen=True)
class PretrainingResult:
    """The chosen encoder, what the judge said of it, and of every other checkpoint."""

    encoder: InfluenceEncoder
    steps: int
    judgement: Judgement
    history: tuple[tuple[int, Judgement], ...]
    seconds: float
    shadow_seconds: float = 0.0


@dataclass(frozen=True)
class _Simulated:
    """One simulated request and the graph that remains without it."""

    remaining: InteractionGraph
    idm: InfluenceDependencyMatrix
    edges: Tensor  # (2, m) int64, of rows that keep an interaction on both ends
    aims: Tensor  # (m,)
    correction: Tensor | None  # (n_nodes, d)
    batches: Iterator[Triples]


class Pretraining:
    """Trains H_0 and W_eta so that any request of the simulated shapes is forgotten in one forward pass.

    Loss (25): L = L_M + lambda_u L_u + lambda_p L_p + lambda_c L_c, with E0 frozen. Mode `forget` puts the calibrated
    loss in the place of L_u. With the correction, a shadow shows first what a forgotten pair should score.

    Selection looks at held-out simulated requests and the validation part only (`Judge`), never at a real request or
    at test interactions.

    Args:
        state: the base.
        config: settings.
        training: the settings that the base was trained with; without them no shadow is trained.
        taught: what a shadow of this base taught another encoder: then none is trained.
        checkpoint: a file from which the shadow's training is taken up again.
    """

    def __init__(
        self,
        state: TrainedState,
        config: PretrainingConfig,
        training: TrainingConfig | None = None,
        taught: Expectation | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        self.state, self.config, self.training, self.taught = state, config, training, taught
        self.checkpoint = checkpoint
        device = state.e0.device
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.corrector = Corrector(state)
        shape = (state.graph.n_nodes, state.e0.shape[1])
        # Beside the correction the encoder starts at nothing, so that what it adds is what it has learnt.
        weight = 0.0 if config.correct else config.encoder.init_weight
        encoder_config = replace(config.encoder, correct=config.correct, init_weight=weight)
        self.encoder = InfluenceEncoder.fresh(encoder_config, shape, device)
        self.parameters = [self.encoder.h0.requires_grad_(), self.encoder.weight.requires_grad_()]
        weight_rate = config.weight_learning_rate or config.learning_rate
        groups = [
            {"params": self.parameters[:1], "lr": config.learning_rate},
            {"params": self.parameters[1:], "lr": weight_rate},
        ]
        self.optimiser = torch.optim.Adam(groups)
        self.shapes = shapes_of(config.requests, state.readout, state.graph)
        self.spread = self.corrector.calibration.spread

    def run(self, report: Callable[[PretrainingReport], None] | None = None) -> PretrainingResult:
        """The shadow, then all steps; the best judged checkpoint is kept, the start included."""
        started = time.perf_counter()
        shadow_seconds = self._learn_expectation(report)
        judge = Judge(self.state, self.corrector, self.config.mode, self.config.seed, self.shapes)
        best, history = self.encoder.copy(), [(0, judge(self.encoder))]
        chosen = 0
        simulated = self._simulate() if self.config.steps else None
        for step in range(1, self.config.steps + 1):
            if simulated is None or step % self.config.steps_a_request == 0:
                simulated = self._simulate()
            loss = self._step(simulated)
            if not isfinite(loss):
                msg = f"The pre-training diverged in step {step} of {self.config.steps}: its loss is not finite. "
                raise Diverged(msg + cause_of(self.config.learning_rate, PretrainingConfig.learning_rate))
            judgement = None
            if step % self.config.judge_every == 0 or step == self.config.steps:
                judgement = judge(self.encoder)
                history.append((step, judgement))
                if self._better(judgement, history[chosen][1], history[0][1]):
                    best, chosen = self.encoder.copy(), len(history) - 1
            if report is not None:
                seconds = time.perf_counter() - started
                report(PretrainingReport(step, self.config.steps, loss, judgement, seconds))
        seconds = time.perf_counter() - started
        step, judgement = history[chosen]
        return PretrainingResult(best, step, judgement, tuple(history), seconds, shadow_seconds)

    def _learn_expectation(self, report: Callable[[PretrainingReport], None] | None) -> float:
        config = self.config
        if not config.correct or not config.shadow_share:
            return 0.0
        if self.taught is not None:
            self._expect(self.taught)
            return 0.0
        if self.training is None:
            return 0.0
        started = time.perf_counter()

        def told(epoch: EpochReport) -> None:
            if report is not None:
                seconds = time.perf_counter() - started
                report(PretrainingReport(epoch.epoch + 1, epoch.epochs, epoch.loss, None, seconds, "shadow"))

        shadow = Shadow.train(self.state, self.training, config.shadow_share, config.seed, told, self.checkpoint)
        self._expect(learn_expectation(self.state, shadow, self.corrector.calibration))
        return shadow.seconds

    def _expect(self, expectation: Expectation | None) -> None:
        self.encoder.expectation = expectation
        self.corrector = Corrector(self.state, expectation, self.corrector.calibration)

    def _better(self, new: Judgement, old: Judgement, start: Judgement) -> bool:
        # Forgetting costs some quality whatever is learnt, so the start is the measure, not the base.
        floor = min(1.0, start.quality_ratio) - self.config.max_quality_loss
        return new.quality_ratio >= floor and new.score < old.score

    def _simulate(self) -> _Simulated:
        shapes = list(self.shapes.values())
        edges, remaining = self.state.graph.edges[:, :0], self.state.graph
        while not edges.shape[1] or not remaining.n_edges:
            pick = int(torch.randint(len(shapes), (), generator=self.generator, device=self.state.e0.device))
            edges = simulate(shapes[pick], self.state.graph, self.generator)
            remaining = self.state.graph.without(edges)
        counted = edges[:, remaining.keeps(edges)].long()
        with torch.no_grad():
            swapped = swap_graph(self.state, remaining)
            aims = self.corrector.aims(swapped, remaining, counted, self.config.mode, edges.long())
            correction = None
            if self.config.correct:
                stretch = self.config.mode == "forget"
                correction = self.corrector.meet(swapped, remaining, counted, aims, stretch=stretch)
        return _Simulated(
            remaining,
            InfluenceDependencyMatrix(self.state.graph, edges),
            counted,
            aims,
            correction,
            self._batches(remaining),
        )

    def _batches(self, remaining: InteractionGraph) -> Iterator[Triples]:
        while True:  # a small data set has fewer batches than a request has steps
            yield from batches(remaining, self.config.batch_size, self.generator)

    def _step(self, simulated: _Simulated) -> float:
        self.optimiser.zero_grad()
        loss = self._loss(simulated, next(simulated.batches))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return float(loss.detach())

    def _loss(self, simulated: _Simulated, batch: Triples) -> Tensor:
        state, config, n_users = self.state, self.config, self.state.graph.n_users
        hidden = self.encoder.hidden(simulated.idm)
        e0 = state.e0 + self.encoder.shift(simulated.idm, state.readout, hidden)
        readout = unlearned_readout(state, e0, simulated.remaining, simulated.correction)
        scores = pair_scores(readout, n_users, simulated.edges[0], simulated.edges[1])
        if config.mode == "dislike":
            unlearn = unlearning_loss(scores)
        else:
            unlearn = calibrated_loss(scores, simulated.aims, self.spread)
        loss = state.backbone.loss(e0, simulated.remaining, batch, readout)
        loss = loss + config.unlearn_weight * unlearn
        loss = loss + config.preserve_weight * preserving_loss(
            readout, state.readout, n_users, batch, config.temperature
        )
        if config.contrast_weight:
            loss = loss + config.contrast_weight * self._contrast(simulated.idm, hidden)
        return loss

    def _contrast(self, idm: InfluenceDependencyMatrix, hidden: list[Tensor]) -> Tensor:
        """L_c of equation (24) over a sample of the touched nodes: a fresh drop at each layer, one-step views."""
        nodes = _sample(idm.n_nodes, MAX_CONTRAST_NODES, self.generator)
        total = hidden[0].new_zeros(())
        for before, after in pairwise(hidden):
            matrix, transposed = idm.dropped(self.config.drop, self.generator)
            dropped = product(matrix, before, transposed)
            total = total + contrast_loss(after[nodes], dropped[nodes], self.config.contrast_temperature)
        return total


def _sample(size: int, limit: int, generator: Generator) -> Tensor:
    return torch.randperm(size, generator=generator, device=generator.device)[:limit]
