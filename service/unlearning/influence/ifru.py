"""IFRU: influence function-based recommendation unlearning (Zhang et al., TORS 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.unlearning.influence.newton import DampedProduct, NewtonStep, PreparedObjective, touched
from service.unlearning.influence.solvers import SolverReport, conjugate_gradient
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState


@dataclass
class IFRU(NewtonStep):
    """A Newton step for the rows that matter: direct influence, spillover of changed data, importance pruning.

    Spillover is that of the interactions of nodes whose degree changed by more than `threshold`. The system is solved
    on the block of the important rows, by conjugate gradients on the Gauss-Newton matrix; the paper's code runs Adam at
    rate 1e4 and keeps the iterate that does best on validation: no peeking here. The Hessian is that of the propagated
    model (the code's is of raw embeddings), and the result is read out on what remains (the code's is not).

    Guarantee: approximate.
    Source: IFRU with its code; methods.md sections 3.4 and 10.3. SSL terms: off.
    Cost: O(n (L M d + |T| d)) time for n iterations, O(N d + |T|) memory.

    Args:
        keep_frac: share of all rows kept by importance, in (0, 1]; the request's own rows are always kept, rows of
            importance zero never.
        hops: of the importance; 0 moves the request's own rows only.
        threshold: share of a node's degree whose loss makes its interactions changed data.
    """

    keep_frac: float = 0.6
    hops: int = 1
    threshold: float = 0.01

    def _spilled(self, state: TrainedState, remaining: InteractionGraph, request: UnlearningRequest) -> Tensor:
        before = state.graph.degree.float()
        changed = (before - remaining.degree) > self.threshold * before
        users, items = state.graph.edges.long()
        return changed[users] | changed[items + state.graph.n_users]

    def _rows(self, state: TrainedState, request: UnlearningRequest) -> Tensor:
        own = touched(state, request)
        if not self.hops:
            return own
        importance = importances(state.graph, request, self.hops)
        dropped = int((1 - self.keep_frac) * importance.numel())
        least = importance.kthvalue(dropped).values if dropped else importance.new_zeros(())
        return own | (importance > least)

    def _solve(
        self, prepared: PreparedObjective, right: Tensor, rows: Tensor | None
    ) -> tuple[Tensor, SolverReport, float]:
        assert rows is not None
        damping = self.damping * prepared.mean_diagonal
        product = DampedProduct(prepared.curvature, damping, rows)
        step, report = conjugate_gradient(product, right * rows[:, None], self.iterations, self.tolerance)
        return step, report, damping


def importances(graph: InteractionGraph, request: UnlearningRequest, hops: int) -> Tensor:
    """(n_nodes,) s_k = D'^-1 (A + I) s_(k-1), D' = D + 1, from s_0 = (a node's lost degree) / (its degree + 1).

    Cost: O(hops m).
    """
    lost = InteractionGraph(graph.n_users, graph.n_items, request.edges).degree
    width = (graph.degree + 1).float()
    # A = D^1/2 S D^1/2, so the adjacency at hand serves
    root = graph.degree.to(graph.adjacency.dtype).sqrt()
    importance = lost / width
    for _ in range(hops):
        neighbours = root * (graph.adjacency @ (root * importance)[:, None]).squeeze(1)
        importance = (importance + neighbours) / width
    return importance
