"""CEU: certified edge unlearning (Wu et al., KDD 2023), without its certificate."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.unlearning.influence.newton import DampedProduct, NewtonStep, PreparedObjective, touched, within
from service.unlearning.influence.objective import GradientDifference
from service.unlearning.influence.solvers import SolverReport, conjugate_gradient
from service.unlearning.protocol import ForgetResult
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState

DEFAULT_LAYERS = 3


@dataclass(frozen=True)
class CeuResidual:
    """How near the step comes to a stationary point of what remains; of the mean loss, measured, not bounded.

    Args:
        before: |grad F(E0; S_r, T_r) - grad F(E0; S, T)| / |T_r|: what the step has to make up for.
        after: |grad F(E0 + dE; S_r, T_r) - grad F(E0; S, T)| / |T_r|: what it left.
        squared_step: (|dE| / |T|)^2: the paper's data-dependent bound but for the unknown Lipschitz constant gamma_1.
    """

    before: float
    after: float
    squared_step: float


@dataclass
class CEU(NewtonStep):
    """A Newton step by conjugate gradients on the Gauss-Newton matrix.

    The paper's certificate asks for a strictly convex loss and noise in training. BPR over embeddings is bilinear, so
    it does not hold and none is claimed: `residual` is a diagnostic. (For a base without noise this is its "UEU".)

    Unlike in node classification, samples disappear with a request, so the adapted method has the direct term.
    `literal` transplants the paper: spillover alone, of interactions around the request, c = regularisation * |T|. On
    ML-1M that c is ten times the largest curvature, and nothing says that a positive is gone: next to nothing moves.

    Guarantee: approximate.
    Source: CEU, equations (8)-(12) with its code; methods.md sections 3.3 and 10.3. SSL terms: off.
    Cost: O(n L M d) time for n <= `iterations`, O(N d + |T|) memory; the diagnostic takes 4 propagations more.

    Args:
        literal: the transplant instead of the adaptation.
        regularisation: lambda of the paper, on the mean loss; used by `literal` alone.
    """

    literal: bool = False
    regularisation: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self.residual: CeuResidual | None = None

    def forget(self, state: TrainedState, request: UnlearningRequest) -> ForgetResult:
        """As `NewtonStep.forget`, then the diagnostic."""
        self.residual = None
        result = super().forget(state, request)
        if request.n_edges and self._prepared is not None:
            self.residual = self._measured(self._prepared, result)
        return result

    def _measured(self, prepared: PreparedObjective, result: ForgetResult) -> CeuResidual:
        state, objective = prepared.state, prepared.objective
        kept = result.graph.contains(state.graph.edges)
        triples = max(int(kept.sum()) * self.k_neg, 1)
        alive = (result.graph.degree > 0)[:, None]  # rows that were reset are no part of the model
        aim = objective.gradient(state.e0, state.graph)
        before = objective.gradient(state.e0, result.graph, kept) - aim
        after = objective.gradient(result.e0, result.graph, kept) - aim
        step = (result.e0 - state.e0) * alive
        return CeuResidual(
            float((before * alive).norm()) / triples,
            float((after * alive).norm()) / triples,
            float(step.norm() / objective.triples.n_triples) ** 2,
        )

    def _spilled(self, state: TrainedState, remaining: InteractionGraph, request: UnlearningRequest) -> Tensor | None:
        if not self.literal:
            return None
        near = within(state.graph, touched(state, request), int(getattr(state.backbone, "layers", DEFAULT_LAYERS)))
        users, items = state.graph.edges.long()
        return near[users] | near[items + state.graph.n_users]

    def _right(self, difference: GradientDifference) -> Tensor:
        return difference.spillover if self.literal else difference.total

    def _solve(
        self, prepared: PreparedObjective, right: Tensor, rows: Tensor | None
    ) -> tuple[Tensor, SolverReport, float]:
        triples = prepared.objective.triples.n_triples
        damping = self.regularisation * triples if self.literal else self.damping * prepared.mean_diagonal
        # The paper starts from x0 = k on the mean loss: k / |T| on the sum.
        start = right / triples if self.literal else None
        product = DampedProduct(prepared.curvature, damping)
        step, report = conjugate_gradient(product, right, self.iterations, self.tolerance, start)
        return step, report, damping
