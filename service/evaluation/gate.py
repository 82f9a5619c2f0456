"""The check that a version passes before it serves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite, sqrt

import torch
from torch import Tensor

from service.evaluation.membership import MembershipProbe
from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.recommender.ranking import ranking_quality
from service.recommender.soundness import flaw
from service.unlearning.calibration import Calibration
from service.unlearning.protocol import ForgetResult
from service.unlearning.request import MODES, UnlearningRequest
from service.unlearning.state import TrainedState

RANKED_USERS = 1_000
DRIFT_PAIRS = 20_000
NEGATIVE_PAIRS = 10_000  # give the mean of a probability to half a hundredth; more would be most of the gate's time
MIN_REACH = 0.02  # standard deviations: a base that has learnt next to nothing of its pairs is no measure
RANKED_PAIRS = 1_000  # bounds the score matrix of the ranks
MAX_SLACK = 0.5
"""Chance may explain so much of the way, 2 noise / sqrt(n), where n pairs are judged by their score; fewer are measured
and not judged. With a noise of .75 that is 9 pairs: none forgotten (1) is then told from the threshold (.25 + .5), half
forgotten is from some 60 on."""
RECENT_PAIRS = 512
"""Pairs forgotten last, over all batches since the base, that are judged together: where requests name one pair each,
no batch can be judged by itself (docs/gate.md)."""


@dataclass(frozen=True)
class GateThresholds:
    """When a candidate is held back. All in units that do not depend on data set, backbone or score scale."""

    max_residual: float = 0.25
    """Share of the way to its calibrated target that the batch's mean score may still have to go. Good versions of a
    hundred pairs and more are at or a little beyond it, half forgotten ones have half left (docs/gate.md)."""
    max_overshoot: float = 1.5
    """How far beyond the target it may be, in the same unit: an unnaturally low score tells as much as a high one.
    Wider than the other side, since a low score is the lesser harm to the person who asked."""
    noise: float = 0.75
    """Spread of one pair's residual in good versions, in the same unit: n pairs may stray by 2 noise / sqrt(n) more.
    The pairs of one person go too low together: on that side people are counted, not pairs."""
    min_quality: float = 0.98
    """Validation NDCG over the base's. Deleting 2 % of the interactions at random costs a retrained model about 1 %."""
    max_drift: float = 0.25
    """Mean absolute change of the remaining pairs' scores, in held-out standard deviations; between two retrainings
    that differ in the seed alone it is larger than this."""


@dataclass(frozen=True)
class GateReport:
    """What the gate measured, and whether the candidate may serve.

    `figures` are plain floats; `reasons` is empty exactly when `passed`.
    """

    passed: bool
    figures: dict[str, float]
    reasons: tuple[str, ...]


class Gate:
    """Compares candidates with the base they come from.

    Args:
        state: the base; its figures are measured once.
        thresholds: when to hold back.
        seed: decides the sample of pairs and users.
    """

    def __init__(self, state: TrainedState, thresholds: GateThresholds | None = None, seed: int = 0) -> None:
        self.state, self.thresholds = state, thresholds or GateThresholds()
        self.calibration = Calibration.of(state)
        graph = state.graph
        generator = torch.Generator(graph.device).manual_seed(seed)
        order = torch.randperm(graph.n_edges, generator=generator, device=graph.device)
        self._sample = graph.edges[:, order[:DRIFT_PAIRS]].long()
        held_out = InteractionGraph(graph.n_users, graph.n_items, state.validation)
        users = torch.randperm(graph.n_users, generator=generator, device=graph.device)
        users = users[held_out.user_degree[users] > 0][:RANKED_USERS]
        self._ranked = InteractionGraph(graph.n_users, graph.n_items, held_out.edges_of_users(users))
        self._base_quality = ranking_quality(state.readout, graph, self._ranked)
        probe = MembershipProbe.of(graph, graph.edges[:, :0], state.validation, seed)
        self._negatives = probe.negatives[:, :NEGATIVE_PAIRS]
        self._before = self._scores(state.readout, self._sample)
        learnt = self._before - self.calibration.targets(state, self._sample)
        self._reach = max(float(learnt.mean()) / self.calibration.spread, MIN_REACH)

    def check(
        self,
        batch: UnlearningRequest,
        result: ForgetResult,
        request: UnlearningRequest | None = None,
        recent: UnlearningRequest | None = None,
    ) -> GateReport:
        """Measures a candidate.

        Too few pairs cannot be judged by their score. Then the books, the rest of the model and the pairs forgotten
        last decide.

        Args:
            batch: the interactions that this step is about.
            result: the candidate.
            request: everything forgotten since the base, the batch included; default the batch alone. Its held-out
                interactions leave the measurements of quality.
            recent: the pairs of it that were forgotten last, the batch's included; default the batch alone.
        """
        with torch.no_grad():
            figures = self._quality(request or batch, result) | self._drift(result) | self._batch(batch, result)
            if recent is not None and recent.n_edges > batch.n_edges:
                figures |= {f"recent_{name}": value for name, value in self._modes(recent, result).items()}
        reasons = (*self._books(request or batch, result), *self._reasons(figures))
        wrong = flaw(result.readout, result.graph)
        if wrong is not None:
            reasons = (f"the candidate must not serve: {wrong}", *reasons)
        return GateReport(not reasons, {name: value for name, value in figures.items() if isfinite(value)}, reasons)

    def _books(self, request: UnlearningRequest, result: ForgetResult) -> tuple[str, ...]:
        """What holds of a candidate whatever was measured."""
        reasons = []
        if bool(result.graph.contains(request.edges).any()):
            reasons.append("the candidate's graph still holds erased interactions")
        alone = result.graph.degree == 0
        if bool(result.readout[alone].any()):
            reasons.append("rows without an interaction still hold values")
        return tuple(reasons)

    def _quality(self, request: UnlearningRequest, result: ForgetResult) -> dict[str, float]:
        # Both are measured on the same pairs: an erased pair, or one of a reset row, can be looked for in neither; and
        # what was erased stays masked, as the service suppresses it.
        ranked = self._ranked.without(request.held_out)
        ranked = ranked.without(ranked.edges[:, ~result.graph.keeps(ranked.edges)])
        whole = ranked.n_edges == self._ranked.n_edges
        before = self._base_quality if whole else ranking_quality(self.state.readout, self.state.graph, ranked)
        after = ranking_quality(result.readout, self.state.graph, ranked)
        ratio = after.ndcg / before.ndcg if before.ndcg else 1.0
        return {
            "recall_at_20": after.recall,
            "ndcg_at_20": after.ndcg,
            "base_recall_at_20": before.recall,
            "base_ndcg_at_20": before.ndcg,
            "quality_ratio": ratio,
        }

    def _drift(self, result: ForgetResult) -> dict[str, float]:
        remains = result.graph.contains(self._sample)
        if not bool(remains.any()):
            return {"drift": 0.0}
        change = self._scores(result.readout, self._sample[:, remains]) - self._before[remains]
        return {"drift": float(change.abs().mean()) / self.calibration.spread}

    def _batch(self, batch: UnlearningRequest, result: ForgetResult) -> dict[str, float]:
        figures = {"n_interactions": float(batch.n_edges)}
        if not batch.n_edges:
            return figures
        heldout = self.state.validation[:, self.calibration.matched(self.state, batch.edges)]
        if not heldout.shape[1]:
            heldout = self.state.validation
        probe = MembershipProbe(self.state.graph.n_users, batch.edges.long(), heldout.long(), self._negatives)
        figures |= asdict(probe.measure(result.readout, self.state.readout))
        figures |= self._modes(batch, result)
        for mode in MODES:
            edges = self._measurable(batch.of_mode(mode), result)
            if edges.shape[1]:
                figures[f"{mode}_mean_rank"] = self._mean_rank(edges[:, :RANKED_PAIRS], result)
        return figures

    def _measurable(self, edges: Tensor, result: ForgetResult) -> Tensor:
        """(2, k) those of rows that were not reset: the others score 0 whatever is done."""
        return edges[:, result.graph.keeps(edges)].long()

    def _modes(self, request: UnlearningRequest, result: ForgetResult) -> dict[str, float]:
        figures: dict[str, float] = {}
        for mode in MODES:
            edges = self._measurable(request.of_mode(mode), result)
            if edges.shape[1]:
                figures |= {f"{mode}_{name}": value for name, value in self._residuals(edges, result).items()}
        return figures

    def _residuals(self, edges: Tensor, result: ForgetResult) -> dict[str, float]:
        spread, targets = self.calibration.spread, self.calibration.targets(self.state, edges)
        scores, before = self._scores(result.readout, edges), self._scores(self.state.readout, edges)
        residuals, wanted = (scores - targets) / spread, (targets - before) / spread
        figures = {
            "interactions": float(edges.shape[1]),
            "residual": float(residuals.mean()),
            "moved": float((scores - before).mean()) / spread,
            "wanted": float(wanted.mean()),
            "reach": max(self._reach, -float(wanted.mean())),
        }
        # Who loses most of a history keeps too little of it to score by, retrained or not: low is no sign there.
        remaining = self._keeps_half(edges, result)
        if bool(remaining.any()):
            people = torch.unique(edges[0, remaining], return_counts=True)[1].double()
            figures["shortfall"] = -float(residuals[remaining].mean())
            figures["people"] = float(people.sum().square() / people.square().sum())
        return figures

    def _keeps_half(self, edges: Tensor, result: ForgetResult) -> Tensor:
        """(k,) bool: both rows of a pair keep at least half of their interactions."""
        before, after = self.state.graph, result.graph
        users = 2 * after.user_degree[edges[0]] >= before.user_degree[edges[0]]
        return users & (2 * after.item_degree[edges[1]] >= before.item_degree[edges[1]])

    def _mean_rank(self, edges: Tensor, result: ForgetResult) -> float:
        items = result.readout[self.state.graph.n_users :]
        above = (result.readout[edges[0]] @ items.T) > self._scores(result.readout, edges)[:, None]  # (pairs, n_items)
        return float(above.sum(dim=1).double().mean()) + 1

    def _reasons(self, figures: dict[str, float]) -> tuple[str, ...]:
        limits = self.thresholds
        parts = [f"{part}{mode}_" for part in ("", "recent_") for mode in MODES]
        reasons = [reason for part in parts for reason in self._residual_reasons(part, figures)]
        quality, drift = figures["quality_ratio"], figures["drift"]
        if quality < limits.min_quality:
            reasons.append(f"quality is {quality:.3f} of the base's, at least {limits.min_quality}")
        if drift > limits.max_drift:
            reasons.append(f"remaining scores moved by {drift:.3f}, at most {limits.max_drift}")
        return tuple(reasons)

    def _residual_reasons(self, part: str, figures: dict[str, float]) -> list[str]:
        """What is wrong with the scores of one part: `forget_`, `recent_dislike_`, ..."""
        limits, who = self.thresholds, part.rstrip("_").replace("recent_", "recent pairs, ")
        slack = 2 * limits.noise / sqrt(figures.get(f"{part}interactions", 1.0))
        if f"{part}residual" not in figures or slack > MAX_SLACK:
            return []
        residual, reach = figures[f"{part}residual"], figures[f"{part}reach"]
        leak = reach * (limits.max_residual + slack)
        if residual > leak:
            return [f"{who}: pairs score {residual:.3f} above their target, at most {leak:.3f}"]
        # Who dislikes something wants it low: only `forget` can be too low.
        if part.endswith("forget_") and f"{part}shortfall" in figures:
            shortfall = figures[f"{part}shortfall"]
            hollow = reach * (limits.max_overshoot + 2 * limits.noise / sqrt(figures[f"{part}people"]))
            if shortfall > hollow:
                return [f"{who}: pairs score {shortfall:.3f} below their target, at most {hollow:.3f}"]
        return []

    def _scores(self, readout: Tensor, edges: Tensor) -> Tensor:
        return pair_scores(readout, self.state.graph.n_users, edges[0], edges[1])
