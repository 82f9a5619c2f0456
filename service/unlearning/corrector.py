"""From a request to the correction of a base's readout: aims, then the least disturbance that meets them."""

from __future__ import annotations

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores, rows_of
from service.unlearning.calibration import Calibration
from service.unlearning.correction import least_disturbance
from service.unlearning.expectation import Expectation, PairFeatures
from service.unlearning.metric import ReadoutMetric
from service.unlearning.request import Mode, UnlearningRequest
from service.unlearning.state import TrainedState

LEVEL_PAIRS = 4_096  # held-out pairs on which the general level of scores is watched
MAX_STRETCH = 2.0
DISLIKE_DEPTH = 1.75
"""How far below a forgotten pair's aim a disliked one may be sent, in held-out standard deviations: enough to leave
every list. Many disliked pairs sent to the floor of the catalogue would take the ranking of their rows along."""


class Corrector:
    """Brings the revoked pairs of one base to what they should score.

    Mode `forget` aims at what a retrained model would give the pair: the expectation learnt from a shadow, or, without
    one, the quantile of held-out pairs like it (`Calibration`). Mode `dislike` aims below that, down to the floor of
    the person's catalogue.

    Args:
        state: the base. One-off cost: O(m d + N d^2).
        expectation: from `Shadow`; None falls back on the quantiles.
        calibration: of the base, where it is at hand.
    """

    def __init__(
        self, state: TrainedState, expectation: Expectation | None = None, calibration: Calibration | None = None
    ) -> None:
        self.state, self.expectation = state, expectation
        self.calibration = calibration or Calibration.of(state)
        self.metric = ReadoutMetric.of(state)
        self.features = PairFeatures(state, self.metric) if expectation is not None else None
        generator = torch.Generator(state.e0.device).manual_seed(0)
        order = torch.randperm(state.validation.shape[1], generator=generator, device=state.e0.device)
        self._level_pairs = state.validation[:, order[:LEVEL_PAIRS]].long()
        self._level = float(self._scores(state.readout, self._level_pairs).mean())

    def aims(self, swapped: Tensor, remaining: InteractionGraph, edges: Tensor, mode: Mode, revoked: Tensor) -> Tensor:
        """(m,) what revoked pairs should score.

        Args:
            swapped: (n_nodes, d) the trained E0 read out on what remains.
            remaining: the graph without the whole request.
            edges: (2, m) int64 pairs of this mode whose rows keep an interaction.
            mode: what was asked for.
            revoked: (2, k) int64 the whole request.
        """
        if self.expectation is not None and self.features is not None:
            forgotten = self.expectation(self.features(swapped, remaining, edges, revoked))
        else:
            forgotten = self.calibration.targets(self.state, edges)
        if mode == "forget":
            return forgotten
        deep = forgotten - DISLIKE_DEPTH * self.calibration.spread
        return torch.maximum(deep, self.calibration.floors(self.state, edges)).minimum(forgotten)

    def change(
        self, swapped: Tensor, remaining: InteractionGraph, request: UnlearningRequest, modes: tuple[Mode, ...]
    ) -> Tensor:
        """(n_nodes, d) what to add to the swapped readout so that the pairs of these modes meet their aims.

        Zero in every row that no such pair touches.
        """
        revoked = request.edges.long()
        pairs, aims = [revoked[:, :0]], [swapped.new_zeros(0)]
        for mode in modes:
            asked = request.of_mode(mode)
            edges = asked[:, remaining.keeps(asked)].long()
            if edges.shape[1]:
                pairs.append(edges)
                aims.append(self.aims(swapped, remaining, edges, mode, revoked))
        edges, wanted = torch.cat(pairs, dim=1), torch.cat(aims)
        # A mean over both modes would say nothing of either.
        stretch = "dislike" not in modes or not request.dislike.shape[1]
        return self.meet(swapped, remaining, edges, wanted, stretch=stretch)

    def meet(
        self, swapped: Tensor, remaining: InteractionGraph, edges: Tensor, aims: Tensor, *, stretch: bool = True
    ) -> Tensor:
        """The least disturbance; with `stretch`, so much of it that the mean of the pairs meets its aim exactly.

        The slack leaves pairs a little short, and what they lose other pairs of the same rows lose a little too: both
        would show as a difference to held-out pairs. So the mean is measured against the held-out level.
        """
        if not edges.shape[1]:
            return torch.zeros_like(swapped)
        change = least_disturbance(swapped, remaining, edges, aims, self.metric)
        if not stretch:
            return change
        before = self._scores(swapped, edges)
        moved = self._moved(swapped, change, edges)
        level = self._scores(swapped, self._level_pairs).mean() - self._level
        relative = moved.mean() - self._moved(swapped, change, self._level_pairs).mean()
        wanted = (aims - before).mean() + level
        if abs(relative) < 0.1 * moved.abs().mean():  # pairs that move both ways have no mean to meet
            return change
        return change * (wanted / relative).clamp(1 / MAX_STRETCH, MAX_STRETCH)

    def _moved(self, readout: Tensor, change: Tensor, edges: Tensor) -> Tensor:
        users, items = edges[0], edges[1] + self.state.graph.n_users
        by_user = (rows_of(change, users) * rows_of(readout, items)).sum(dim=1)
        return by_user + (rows_of(readout, users) * rows_of(change, items)).sum(dim=1)

    def _scores(self, readout: Tensor, edges: Tensor) -> Tensor:
        return pair_scores(readout, self.state.graph.n_users, edges[0], edges[1])
