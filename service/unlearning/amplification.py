"""The calibrated correction: how far each row must follow the graph's own effect."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.unlearning.calibration import Calibration
from service.unlearning.simulation import simulate
from service.unlearning.state import TrainedState, zero_isolated

MAX_AMPLIFICATION = 10.0
PRIOR_PAIRS = 4.0  # a row with so many revoked pairs weighs what they say as much as the base's common factor
_SHAPES = ("0.5pct", "1pct", "2pct")
_ROUNDS = 12
_SOLVER_STEPS = 25


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


def graph_correction(state: TrainedState, swapped: Tensor, edges: Tensor, aims: Tensor, amplification: float) -> Tensor:
    """What to add to the readout on the remaining graph so that revoked pairs score what they should.

    Row r follows the graph's own effect delta_r = swapped_r - ebar_r by a factor a_r of its own. Scattered pairs all
    want the base's common factor; many pairs of one user or item add up and want less; a pair that must fall far
    wants more. So the factors solve

        min_a  sum_{(u,i) in D} (y_ui + a_u <delta_u, ebar_i> + a_i <ebar_u, delta_i> - t_ui)^2
               + PRIOR_PAIRS m sum_r (a_r - amplification)^2

    with m the mean square of the coefficients: a regression on the aims t, with a ridge towards the common factor.
    The product <delta_u, delta_i> is left out: Gauss-Newton steps that take it in change no figure.

    Args:
        state: the base.
        swapped: (n_nodes, d) of `swap_graph`; rows left without interactions are zero.
        edges: (2, m) int64 revoked pairs whose rows keep an interaction.
        aims: (m,) t, from `Calibration.aims`.
        amplification: the common factor, from `fit_amplification`; rows that no pair speaks for follow it.

    Returns:
        (n_nodes, d) (a_r - 1) delta_r; it means nothing for rows without interactions.
        Cost: O(N d + m d), and at most 25 conjugate gradient steps of O(m).
    """
    delta = swapped - state.readout
    factors = torch.full((state.graph.n_nodes,), amplification, device=delta.device)
    if edges.shape[1]:
        users, items = edges[0], edges[1] + state.graph.n_users
        user, item = state.readout[users], state.readout[items]  # (m, d)
        sides = ((users, (delta[users] * item).sum(dim=1)), (items, (user * delta[items]).sum(dim=1)))
        factors += _departures(sides, aims - (user * item).sum(dim=1), factors)
    return delta.mul_((factors.clamp(0, MAX_AMPLIFICATION) - 1)[:, None])


def _departures(sides: tuple[tuple[Tensor, Tensor], ...], wanted: Tensor, prior: Tensor) -> Tensor:
    """(n_nodes,) how far each factor departs from its prior: the normal equations of the regression above.

    Args:
        sides: for users and for items, (m,) node rows and (m,) coefficients.
        wanted: (m,) changes of score.
        prior: (n_nodes,) factors without a request.
    """
    ridge = PRIOR_PAIRS * torch.stack([weight.square().mean() for _, weight in sides]).mean() + 1e-12

    def predict(factors: Tensor) -> Tensor:
        return sum((factors[rows] * weight for rows, weight in sides), torch.zeros_like(wanted))

    def gather(residual: Tensor) -> Tensor:
        total = torch.zeros_like(prior)
        for rows, weight in sides:
            total.index_add_(0, rows, residual * weight)
        return total

    def product(change: Tensor) -> Tensor:
        return gather(predict(change)) + ridge * change

    return conjugate_gradient(product, gather(wanted - predict(prior)), _SOLVER_STEPS)


def correction_of(
    state: TrainedState, remaining: InteractionGraph, edges: Tensor, aims: Tensor, amplification: float
) -> Tensor | None:
    """`graph_correction`, or None where the amplification is 1: the published method has no correction."""
    if amplification == 1.0:
        return None
    return graph_correction(state, swap_graph(state, remaining), edges, aims, amplification)


def _move(state: TrainedState, edges: Tensor) -> Tensor:
    return swap_graph(state, state.graph.without(edges)) - state.readout


def conjugate_gradient(product: Callable[[Tensor], Tensor], right: Tensor, steps: int) -> Tensor:
    """Solves A x = right for a symmetric positive definite A given by its product; stops at relative residual 1e-4."""
    solution = torch.zeros_like(right)
    residual, direction = right.clone(), right.clone()
    norm = float(residual @ residual)
    floor = norm * 1e-8
    for _ in range(steps):
        if norm <= floor:
            break
        image = product(direction)
        step = norm / float(direction @ image)
        solution += step * direction
        residual -= step * image
        norm, previous = float(residual @ residual), norm
        direction = residual + (norm / previous) * direction
    return solution
