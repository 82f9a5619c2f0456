"""The graph's own effect, and how far it must be taken to meet its target on average."""

from __future__ import annotations

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.unlearning.calibration import Calibration
from service.unlearning.simulation import simulate
from service.unlearning.state import TrainedState, zero_isolated

MAX_AMPLIFICATION = 10.0
_SHAPES = ("0.5pct", "1pct", "2pct")
_ROUNDS = 12


def swap_graph(state: TrainedState, remaining: InteractionGraph) -> Tensor:
    """(n_nodes, d) the trained E0 read out on what remains: the graph's own effect and nothing else."""
    return zero_isolated(state.backbone.propagate(state.e0, remaining), remaining)


def fit_amplification(state: TrainedState, calibration: Calibration, seed: int) -> float:
    """The factor a in Ebar + a (Ebar_swapped - Ebar) at which simulated requests meet their target on average.

    Swapping the graph moves a forgotten pair's score the right way, but only part of the way that retraining moves it
    (design.md section 7). The mean move is smooth and falls with a, so bisection finds it.

    Returns:
        A factor in [1, MAX_AMPLIFICATION]. Cost: one propagation a shape.
    """
    generator = torch.Generator(state.e0.device).manual_seed(seed)
    requests = [simulate(shape, state.graph, generator) for shape in _SHAPES]
    with torch.no_grad():
        moves = [
            (
                swap_graph(state, state.graph.without(edges)) - state.readout,
                edges.long(),
                calibration.targets(state, edges),
            )
            for edges in requests
        ]

    def excess(factor: float) -> float:
        gaps = [
            (pair_scores(state.readout + factor * move, state.graph.n_users, edges[0], edges[1]) - targets).mean()
            for move, edges, targets in moves
        ]
        return float(torch.stack(gaps).mean())

    low, high = 1.0, MAX_AMPLIFICATION
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return low
