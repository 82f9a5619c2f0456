"""What the Newton-step methods share: one step from the base towards the optimum of what remains."""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.unlearning.influence.objective import Curvature, FixedTriples, GradientDifference, Objective
from service.unlearning.influence.solvers import SolverReport, capped
from service.unlearning.protocol import ForgetResult, Guarantee, Unlearner
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState, zero_isolated


@dataclass(frozen=True)
class StepReport:
    """What a Newton step was made of.

    Args:
        solver: how its linear system was solved.
        direct: |g| of the lost supervision.
        spillover: |g| of the changed propagation.
        damping: c, absolute.
        rows: of layer 0 that were free to move.
        capped: share of the moved rows that the trust region shortened.
    """

    solver: SolverReport
    direct: float
    spillover: float
    damping: float
    rows: int
    capped: float


@dataclass(frozen=True)
class PreparedObjective:
    """What all requests to a base share: the objective, its curvature at the base, and two scales of that."""

    state: TrainedState
    objective: Objective
    curvature: Curvature
    mean_diagonal: float
    largest: float
    """lambda_max; 0 for methods that do not need it."""
    lowest: float = 0.0
    """lambda_min where it is negative; 0 otherwise, and for methods that do not need it."""


@dataclass
class NewtonStep(Unlearner):
    """E0 + (H + c I)^-1 g, then the graph of what remains: the skeleton of GIF, CEU and IFRU.

    g is the difference of two gradients over the same fixed triples, so that a base which is not stationary (Adam,
    early stopping, mini-batches) is not trained on. Both modes of a request are treated alike. The contrast of SGL and
    SimGCL has no part in g and H (ssl=off, methods.md 3.6).

    Source: methods.md sections 3 and 10.
    Cost: preparing, 4 products with the Hessian, 44 for GIF's series; a request, five propagations for g, then two and
    O(|T| d) an iteration. Memory: O(N d + |T|). All is float32: against float64, g of one ML-1M interaction is off by
    1.5e-3, of a hundred by 1e-4.

    Args:
        k_neg: negatives of each interaction, >= 1.
        seed: of the negatives and of the probes of the curvature.
        damping: c, in mean diagonals of the Gauss-Newton matrix: independent of the size of the data; > 0.
        iterations: of the solver, at most.
        tolerance: of its relative residual.
        radius: a row moves at most by radius * |E0_v|; `inf` for no cap.
        report: of the latest request; None before, and after an empty one.
    """

    k_neg: int = field(default=1, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    damping: float = field(default=0.1, kw_only=True)
    iterations: int = field(default=100, kw_only=True)
    tolerance: float = field(default=1e-4, kw_only=True)
    radius: float = field(default=1.0, kw_only=True)

    guarantee = Guarantee.APPROXIMATE

    def __post_init__(self) -> None:
        self.report: StepReport | None = None
        self._prepared: PreparedObjective | None = None

    def prepare(self, state: TrainedState) -> None:
        """Draws the triples and measures the curvature at a base."""
        self._prepared = self._prepare(state)

    def forget(self, state: TrainedState, request: UnlearningRequest) -> ForgetResult:
        """The model without the request; an empty one gives the base itself, bit for bit."""
        self.report = None
        if not request.n_edges:
            return ForgetResult(state.e0, state.readout, state.graph)
        if self._prepared is None or self._prepared.state is not state:
            self.prepare(state)
        assert self._prepared is not None
        started = time.perf_counter()
        remaining = state.graph.without(request.edges)
        lost = ~remaining.contains(state.graph.edges)
        spilled = self._spilled(state, remaining, request)
        difference = self._prepared.objective.difference(state.e0, remaining, lost, spilled)
        differentiated = time.perf_counter()
        rows = self._rows(state, request)
        step, solved, damping = self._solve(self._prepared, self._right(difference), rows)
        step, share = capped(step, state.e0, self.radius)
        at = time.perf_counter()
        result = applied(state, remaining, step)
        self.report = StepReport(
            solved,
            float(difference.direct.norm()),
            float(difference.spillover.norm()),
            damping,
            state.graph.n_nodes if rows is None else int(rows.sum()),
            share,
        )
        seconds = {"gradient": differentiated - started, "solve": at - differentiated}
        seconds["propagate"] = time.perf_counter() - at
        return ForgetResult(result.e0, result.readout, remaining, 0, seconds)

    def _prepare(self, state: TrainedState) -> PreparedObjective:
        objective = Objective(state.backbone, FixedTriples.draw(state.graph, self.k_neg, self.seed))
        curvature = Curvature(objective, state.e0, gauss_newton=True)
        return PreparedObjective(state, objective, curvature, curvature.mean_diagonal(seed=self.seed), 0.0)

    def _spilled(self, state: TrainedState, remaining: InteractionGraph, request: UnlearningRequest) -> Tensor | None:
        """(m,) bool, whose changed propagation counts; None for all."""

    def _rows(self, state: TrainedState, request: UnlearningRequest) -> Tensor | None:
        """(n_nodes,) bool, the rows that may move; None for all."""

    def _right(self, difference: GradientDifference) -> Tensor:
        return difference.total

    @abstractmethod
    def _solve(
        self, prepared: PreparedObjective, right: Tensor, rows: Tensor | None
    ) -> tuple[Tensor, SolverReport, float]:
        """The step, the solver's report, and the absolute damping."""


def applied(state: TrainedState, remaining: InteractionGraph, step: Tensor) -> ForgetResult:
    """E0 + step read out on what remains; rows left without an interaction are zero in both."""
    e0 = zero_isolated(state.e0 + step, remaining)
    with torch.no_grad():
        readout = zero_isolated(state.backbone.propagate(e0, remaining), remaining)
    return ForgetResult(e0, readout, remaining)


def touched(state: TrainedState, request: UnlearningRequest) -> Tensor:
    """(n_nodes,) bool V_D: the nodes of the request's interactions."""
    nodes = torch.zeros(state.graph.n_nodes, dtype=torch.bool, device=state.e0.device)
    edges = request.edges.long()
    nodes[edges[0]] = True
    nodes[edges[1] + state.graph.n_users] = True
    return nodes


def within(graph: InteractionGraph, nodes: Tensor, hops: int) -> Tensor:
    """(n_nodes,) bool: nodes at most so many hops from the given ones, themselves included. Cost: O(hops m)."""
    for _ in range(hops):
        nodes = nodes | ((graph.adjacency @ nodes.to(graph.adjacency.dtype)[:, None]).squeeze(1) > 0)
    return nodes


@dataclass(frozen=True)
class DampedProduct:
    """V -> (H_BB + c I) V for V that is zero outside the rows B, (n_nodes,) bool; all rows where it is left out."""

    curvature: Curvature
    damping: float
    rows: Tensor | None = None

    def __call__(self, direction: Tensor) -> Tensor:
        """(n_nodes, d) -> (n_nodes, d). Cost: one product of the curvature."""
        image = self.curvature.product(direction).add_(direction, alpha=self.damping)
        return image if self.rows is None else image * self.rows[:, None]
