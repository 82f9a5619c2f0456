"""The simplest things that one can do: nothing, and swapping the graph."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from service.unlearning.amplification import fit_amplification, swap_graph
from service.unlearning.calibration import Calibration
from service.unlearning.protocol import ForgetResult, Guarantee, Unlearner
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState, zero_isolated


@dataclass
class NoForgetting(Unlearner):
    """Goes on serving the base, whatever is asked: what every method must be told apart from.

    Guarantee: none; it stands with the approximate ones, since there is nothing below.
    Source: the untouched model of methods.md section 6.
    Cost: none.
    """

    guarantee = Guarantee.APPROXIMATE

    def prepare(self, state: TrainedState) -> None:
        """Nothing to prepare."""

    def forget(self, state: TrainedState, request: UnlearningRequest) -> ForgetResult:
        """The base's own embeddings and readout, and the graph that would remain."""
        return ForgetResult(state.e0, state.readout, state.graph.without(request.edges))


@dataclass(frozen=True)
class SwapResult(ForgetResult):
    """A model read out on another graph, and how far it followed that graph's own effect."""

    amplification: float = 1.0


@dataclass
class GraphSwap(Unlearner):
    """Reads the trained embeddings out on what remains: Ebar + a (Ebar_swapped - Ebar), E0 untouched.

    With a = 1 it is the swap alone, a third of the way of a retraining; a common factor fitted to the base
    goes the whole way on average.

    Guarantee: approximate.
    Source: design.md section 7.
    Cost: one propagation, O(L m d); where the factor is fitted, `prepare` takes one propagation a simulated request.

    Args:
        amplification: a >= 1; None fits it in `prepare`, on simulated requests and the validation part.
        seed: of the simulated requests.
    """

    amplification: float | None = 1.0
    seed: int = 0

    guarantee = Guarantee.APPROXIMATE

    def __post_init__(self) -> None:
        self._prepared: tuple[TrainedState, float] | None = None

    def prepare(self, state: TrainedState) -> None:
        """Fits the factor where none is given.

        Raises:
            ValueError: the factor is to be fitted and the base has no validation part.
        """
        factor = self.amplification
        if factor is None:
            factor = fit_amplification(state, Calibration.of(state), self.seed)
        self._prepared = (state, factor)

    def factor(self, state: TrainedState) -> float:
        """The factor a that is used for a base."""
        if self._prepared is None or self._prepared[0] is not state:
            self.prepare(state)
        assert self._prepared is not None
        return self._prepared[1]

    def forget(self, state: TrainedState, request: UnlearningRequest) -> SwapResult:
        """The readout of the swapped graph, amplified; an empty request gives the base, bit for bit."""
        factor = self.factor(state)
        started = time.perf_counter()
        if not request.n_edges:
            return SwapResult(zero_isolated(state.e0, state.graph), state.readout, state.graph, amplification=factor)
        remaining = state.graph.without(request.edges)
        with torch.no_grad():
            readout = swap_graph(state, remaining)
            if factor != 1.0:
                readout = zero_isolated(torch.lerp(state.readout, readout, factor), remaining)
        seconds = {"propagate": time.perf_counter() - started}
        return SwapResult(zero_isolated(state.e0, remaining), readout, remaining, 0, seconds, factor)
