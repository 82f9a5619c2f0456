"""How far the graph's own effect must be amplified: one factor, found on simulated requests."""

import torch

from service.recommender.losses import pair_scores
from service.unlearning.calibration import Calibration
from service.unlearning.readout import unlearned_readout
from service.unlearning.simulation import simulate
from service.unlearning.state import TrainedState

MAX_AMPLIFICATION = 10.0
_SHAPES = ("0.5pct", "1pct", "2pct")
_ROUNDS = 12


def fit_amplification(state: TrainedState, calibration: Calibration, seed: int) -> float:
    """The factor a in Ebar + a (Ebar_swapped - Ebar) at which simulated requests meet their target on average.

    Swapping the graph moves a forgotten pair's score the right way, but only part of the way that retraining moves it
    (design.md section 7). The mean move is smooth and falls with a, so bisection finds it.

    Returns:
        A factor in [1, MAX_AMPLIFICATION]. Cost: one propagation a round and shape.
    """
    generator = torch.Generator(state.e0.device).manual_seed(seed)
    requests = [simulate(shape, state.graph, generator) for shape in _SHAPES]
    prepared = [
        (state.graph.without(edges), edges.long(), calibration.targets(state, edges).mean()) for edges in requests
    ]

    def excess(factor: float) -> float:
        with torch.no_grad():
            moves = [
                pair_scores(
                    unlearned_readout(state, state.e0, remaining, factor - 1),
                    state.graph.n_users,
                    edges[0],
                    edges[1],
                ).mean()
                - target
                for remaining, edges, target in prepared
            ]
        return float(torch.stack(moves).mean())

    low, high = 1.0, MAX_AMPLIFICATION
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return low
