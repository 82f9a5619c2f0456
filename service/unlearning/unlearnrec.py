"""UnlearnRec and what came of it: influence encoder, correction, and fine-tuning where it is asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from service.recommender.backbones import Triples
from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.recommender.sampling import batches
from service.unlearning.amplification import swap_graph
from service.unlearning.corrector import Corrector
from service.unlearning.encoder import InfluenceEncoder
from service.unlearning.idm import InfluenceDependencyMatrix
from service.unlearning.losses import calibrated_loss, preserving_loss, unlearning_loss
from service.unlearning.protocol import ForgetResult, Guarantee, Unlearner
from service.unlearning.readout import unlearned_readout
from service.unlearning.request import MODES, Mode, UnlearningRequest
from service.unlearning.state import TrainedState, zero_isolated

MAX_PRESERVED = 1_024
"""Interactions of a batch in L_p, which compares each with each: the paper's batch."""


@dataclass(frozen=True)
class FineTuningConfig:
    """The short training that follows the encoder (methods.md section 4.5)."""

    batch_size: int = 4096
    """Interactions in a step; best that of the base's training: smaller ones take longer and forget too much."""
    learning_rate: float = 1e-3
    unlearn_weight: float = 0.05
    """lambda_u. The paper's script has .2, which forgets far more than retraining does on a simulated attack."""
    preserve_weight: float = 0.01
    """lambda_p; 0 is the paper's text, its code has 0.01."""
    temperature: float = 10.0
    seed: int = 0


@dataclass
class UnlearnRec(Unlearner):
    """Applies a request by one forward pass of the influence encoder of its mode, swaps the graph, and corrects.

    The correction (`Corrector`) follows where the encoder's configuration asks for one. With an encoder as its paper
    has it (`PretrainingConfig.published`) there is none. With one as it ships, which shifts nothing unless it was
    trained for some steps, the correction does it all.

    Guarantee: approximate.
    Source: UnlearnRec, arXiv 2505.22649, Algorithm 1 lines 9 and 10; `epochs` = k is the paper's Ours(k). The
    correction is this project's (docs/decisions/0013).
    Cost: encoder O(m d + |V_D| d^2), propagation O(L M d); each epoch of fine-tuning costs one of training.

    Args:
        encoders: by mode; a request with interactions of a mode that has none is refused.
        epochs: of fine-tuning, >= 0.
        fine_tuning: its settings.
    """

    encoders: Mapping[Mode, InfluenceEncoder]
    epochs: int = 0
    fine_tuning: FineTuningConfig = field(default_factory=FineTuningConfig)

    guarantee = Guarantee.APPROXIMATE

    def __post_init__(self) -> None:
        self._prepared: tuple[TrainedState, Corrector] | None = None

    def prepare(self, state: TrainedState) -> None:
        """Computes what all requests to a base share: its readout, its calibration, its metric."""
        # What a forgotten pair should score is the same for both modes: any encoder that has learnt it will do.
        known = (self.encoders[mode].expectation for mode in MODES if mode in self.encoders)
        self._prepared = (state, Corrector(state, next((each for each in known if each is not None), None)))

    def _corrector(self, state: TrainedState) -> Corrector:
        if self._prepared is None or self._prepared[0] is not state:
            self.prepare(state)
        assert self._prepared is not None
        return self._prepared[1]

    def forget(self, state: TrainedState, request: UnlearningRequest) -> ForgetResult:
        """The model without the request.

        An empty request gives the base itself, bit for bit (with the masked readout).

        Raises:
            ValueError: interactions of a mode without an encoder.
        """
        started = time.perf_counter()
        remaining = state.graph.without(request.edges) if request.n_edges else state.graph
        with torch.no_grad():
            shift = self._shift(state, request)
            e0 = zero_isolated(state.e0 if shift is None else state.e0 + shift, remaining)
            encoded = time.perf_counter()
            correction, swapped = self._correction(state, request, remaining)
            if shift is None and swapped is not None and correction is not None:
                readout = zero_isolated(swapped.add_(correction), remaining)  # one propagation is enough
            else:
                readout = unlearned_readout(state, e0, remaining, correction)
        applied = time.perf_counter()
        seconds = {"encode": encoded - started, "propagate": applied - encoded}
        result = ForgetResult(e0, readout, remaining, 0, seconds)
        return _fine_tune(self, state, request, result, correction) if self.epochs else result

    def with_epochs(self, epochs: int) -> UnlearnRec:
        """The same method with another number of fine-tuning epochs."""
        other = replace(self, epochs=epochs)
        other._prepared = self._prepared
        return other

    def _shift(self, state: TrainedState, request: UnlearningRequest) -> Tensor | None:
        """The encoders' change of layer 0, (n_nodes, d), or None where there is none at all."""
        total = None
        for mode in MODES:
            encoder = self.encoders.get(mode)
            edges = request.of_mode(mode)
            if not edges.shape[1] and (encoder is None or encoder.config.readout == "sum0_masked"):
                continue
            if encoder is None:
                msg = f"No influence encoder for mode {mode!r} is at hand; pre-train one."
                raise ValueError(msg)
            if encoder.is_idle:
                continue
            shift = encoder.shift(InfluenceDependencyMatrix(state.graph, edges), state.readout)
            total = shift if total is None else total + shift
        return total

    def _correction(
        self, state: TrainedState, request: UnlearningRequest, remaining: InteractionGraph
    ) -> tuple[Tensor | None, Tensor | None]:
        """The correction for the modes whose encoder asks for one, and the swapped readout it starts from.

        The published method has neither.
        """
        modes = tuple(
            mode
            for mode in MODES
            if request.of_mode(mode).shape[1] and mode in self.encoders and self.encoders[mode].config.correct
        )
        if not modes:
            return None, None
        swapped = swap_graph(state, remaining)
        return self._corrector(state).change(swapped, remaining, request, modes), swapped


def _fine_tune(
    method: UnlearnRec, state: TrainedState, request: UnlearningRequest, start: ForgetResult, correction: Tensor | None
) -> ForgetResult:
    """k epochs over the remaining interactions: E0 moves, a new Adam, L_M + lambda_u L_u + lambda_p L_p.

    The encoder's MLP is trained along with E0: its shift is recomputed in every step, H_0 and W_eta frozen.
    """
    started = time.perf_counter()
    config, n_users = method.fine_tuning, state.graph.n_users
    generator = torch.Generator(state.e0.device).manual_seed(config.seed)
    tuned = {mode: encoder.copy() for mode, encoder in method.encoders.items()}
    e0 = state.e0.detach().clone().requires_grad_()
    parts = [part.requires_grad_() for encoder in tuned.values() for part in encoder.mlp]
    optimiser = torch.optim.Adam([e0, *parts], lr=config.learning_rate)
    student = UnlearnRec(tuned)

    def shifted_e0() -> Tensor:
        shift = student._shift(state, request)
        return e0 if shift is None else e0 + shift

    objective = _Objective(state, request, start.graph, method)
    for _ in range(method.epochs):
        for batch in batches(start.graph, config.batch_size, generator):
            optimiser.zero_grad()
            shifted = shifted_e0()
            readout = unlearned_readout(state, shifted, start.graph, correction)
            loss = state.backbone.loss(shifted, start.graph, batch, readout) + objective.unlearn(readout)
            if config.preserve_weight:
                loss = loss + config.preserve_weight * preserving_loss(
                    readout, state.readout, n_users, _first(batch, MAX_PRESERVED), config.temperature
                )
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    with torch.no_grad():
        final = zero_isolated(shifted_e0().detach().clone(), start.graph)
        readout = unlearned_readout(state, final, start.graph, correction)
    seconds = start.seconds | {"fine_tune": time.perf_counter() - started}
    return ForgetResult(final, readout, start.graph, method.epochs, seconds)


def _first(batch: Triples, count: int) -> Triples:
    return Triples(batch.users[:count], batch.positives[:count], batch.negatives[:count], batch.seed)


class _Objective:
    """lambda_u L_u over the whole request, the loss of each mode on its own interactions."""

    def __init__(
        self, state: TrainedState, request: UnlearningRequest, remaining: InteractionGraph, method: UnlearnRec
    ) -> None:
        self.weight, self.n_users = method.fine_tuning.unlearn_weight, state.graph.n_users
        # A pair with a reset end scores 0 whatever is learnt.
        self.dislike = request.dislike[:, remaining.keeps(request.dislike)].long()
        self.forget = request.forget[:, remaining.keeps(request.forget)].long()
        self.spread, self.targets = 1.0, torch.zeros(0, device=state.e0.device)
        if self.forget.shape[1]:
            corrector = method._corrector(state)
            self.spread = corrector.calibration.spread
            with torch.no_grad():
                swapped = swap_graph(state, remaining)
                self.targets = corrector.aims(swapped, remaining, self.forget, "forget", request.edges.long())

    def unlearn(self, readout: Tensor) -> Tensor:
        disliked = pair_scores(readout, self.n_users, self.dislike[0], self.dislike[1])
        forgotten = pair_scores(readout, self.n_users, self.forget[0], self.forget[1])
        loss = unlearning_loss(disliked) + calibrated_loss(forgotten, self.targets, self.spread)
        return self.weight * loss
