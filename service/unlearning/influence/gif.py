"""GIF: the graph influence function (Wu et al., WWW 2023)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from service.unlearning.influence.newton import DampedProduct, NewtonStep, PreparedObjective, touched, within
from service.unlearning.influence.objective import Curvature
from service.unlearning.influence.solvers import SolverReport, conjugate_gradient, neumann, power_iteration
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState

_MARGIN = 1.1  # a power iteration nears an eigenvalue from within the spectrum


@dataclass
class GIF(NewtonStep):
    """One Newton step with the full difference gradient, on the graph that the base was trained on.

    The published solver is a Neumann series of fixed length over the full Hessian: directions of curvature far below
    lambda_max / iterations are hardly moved, so it forgets little. `cg` solves the Gauss-Newton system instead.
    Where the paper's code takes the loss of nodes around the request, the whole difference is taken: it is exact, and
    cheaper than enumerating neighbourhoods that cover nearly everything. A series over a Hessian that is clearly
    indefinite (a base far from its optimum) would diverge: then c is raised to 1.1 |lambda_min|, and `report` says so.

    Guarantee: approximate.
    Source: GIF, equations (10)-(14) with its code; methods.md sections 3.2, 10.2, 10.3. SSL terms: off.
    Cost: O((T + 3) L M d) time for T iterations, O(N d + |T|) memory; preparing, 44 products with the Hessian.

    Args:
        solver: `neumann` over the full Hessian, scale from a power iteration, or `cg` over the Gauss-Newton matrix.
        hops: rows further from the request are not moved (GIF-k); None moves all.
    """

    solver: Literal["neumann", "cg"] = "neumann"
    hops: int | None = None

    def _prepare(self, state: TrainedState) -> PreparedObjective:
        prepared = super()._prepare(state)
        if self.solver == "cg":
            return prepared
        curvature = Curvature(prepared.objective, state.e0, gauss_newton=False)
        largest = power_iteration(curvature.product, state.e0, seed=self.seed)
        bottom = power_iteration(lambda x: largest * x - curvature.product(x), state.e0, seed=self.seed)
        return replace(prepared, curvature=curvature, largest=largest, lowest=min(largest - bottom, 0.0))

    def _rows(self, state: TrainedState, request: UnlearningRequest) -> Tensor | None:
        return None if self.hops is None else within(state.graph, touched(state, request), self.hops)

    def _solve(
        self, prepared: PreparedObjective, right: Tensor, rows: Tensor | None
    ) -> tuple[Tensor, SolverReport, float]:
        damping = max(self.damping * prepared.mean_diagonal, -_MARGIN * prepared.lowest)
        product = DampedProduct(prepared.curvature, damping)
        if self.solver == "cg":
            step, report = conjugate_gradient(product, right, self.iterations, self.tolerance)
        else:
            scale = _MARGIN * prepared.largest + damping
            step, report = neumann(product, right, self.iterations, scale, self.tolerance)
        # GIF-k leaves rows out after the solution: it is no block solve.
        return step if rows is None else step * rows[:, None], report, damping
