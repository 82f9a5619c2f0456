"""What a forgotten pair should score: what a pair like it scores that the model never saw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from service.recommender.losses import pair_scores
from service.unlearning.request import Mode
from service.unlearning.state import TrainedState

QUANTILES = 33
CHUNK = 65_536
FLOOR = 2.5  # standard deviations; chosen on ML-100K, where it comes nearest to retraining without adversarial edges
MIN_PER_BIN = 150  # held-out pairs in a bin: fewer would make its quantiles noise
MAX_BINS_A_SIDE = 4


@dataclass(frozen=True)
class Calibration:
    """Quantile matching of learnt scores to held-out scores, conditional on the degrees of user and item.

    A learnt pair that stands at the q-th quantile of the learnt pairs in its bin is sent to the q-th quantile of the
    held-out pairs in that bin: the target that a model retrained without the pair would meet on average, as a
    retrained model scores a forgotten pair like any held-out one (design.md section 7).

    Shapes: `user_cuts` (b-1,), `item_cuts` (b-1,) degrees; `learnt` and `held_out` (b*b, QUANTILES) ascending scores.
    """

    user_cuts: Tensor
    item_cuts: Tensor
    learnt: Tensor
    held_out: Tensor
    spread: float
    item_mean: Tensor  # (d,)
    item_covariance: Tensor  # (d, d)

    @classmethod
    def of(cls, state: TrainedState) -> Calibration:
        """Measures a base on its own edges and its validation part.

        Raises:
            ValueError: the base holds no validation part, so nothing unseen is known.
        """
        held = state.validation.long()
        if not held.shape[1]:
            msg = "The base has no validation part to calibrate on; train it with a validation share above 0."
            raise ValueError(msg)
        side = int(min(MAX_BINS_A_SIDE, max(1, (held.shape[1] / MIN_PER_BIN) ** 0.5)))
        cuts = torch.linspace(0, 1, side + 1, device=held.device)[1:-1]
        user_cuts = torch.quantile(state.graph.user_degree[held[0]].float(), cuts)
        item_cuts = torch.quantile(state.graph.item_degree[held[1]].float(), cuts)
        learnt = state.graph.edges.long()
        known, unseen = _scores(state, learnt), _scores(state, held)
        known_bin = _bins(state, learnt, user_cuts, item_cuts)
        unseen_bin = _bins(state, held, user_cuts, item_cuts)
        levels = torch.linspace(0, 1, QUANTILES, device=held.device)
        tables = [
            (_quantiles(known, known_bin == part, levels), _quantiles(unseen, unseen_bin == part, levels))
            for part in range(side * side)
        ]
        learnt_table, held_table = (torch.stack(column) for column in zip(*tables, strict=True))
        spread = float(unseen.std().clamp(min=1e-6))
        items = state.readout[state.graph.n_users :][state.graph.item_degree > 0]
        covariance = torch.cov(items.T, correction=0)
        return cls(user_cuts, item_cuts, learnt_table, held_table, spread, items.mean(dim=0), covariance)

    def targets(self, state: TrainedState, edges: Tensor) -> Tensor:
        """(m,) scores that these (2, m) learnt edges should have once forgotten."""
        edges = edges.long()
        scores, part = _scores(state, edges), _bins(state, edges, self.user_cuts, self.item_cuts)
        source, target = self.learnt[part], self.held_out[part]  # (m, QUANTILES)
        right = torch.searchsorted(source, scores[:, None]).clamp(1, QUANTILES - 1)
        low, high = source.gather(1, right - 1), source.gather(1, right)
        share = ((scores[:, None] - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
        below, above = target.gather(1, right - 1), target.gather(1, right)
        return torch.lerp(below, above, share).squeeze(1)

    def floors(self, state: TrainedState, edges: Tensor) -> Tensor:
        """(m,) scores that say that a person does not want these (2, m) items: FLOOR standard deviations below the
        mean of that person's scores over the whole catalogue.

        Mean and deviation come from the items' mean vector and covariance, O(d^2) a pair, not from all the scores.
        """
        users = state.readout[edges[0].long()]  # (m, d)
        deviation = ((users @ self.item_covariance) * users).sum(dim=1).clamp(min=0).sqrt()
        return users @ self.item_mean - FLOOR * deviation

    def aims(self, state: TrainedState, edges: Tensor, mode: Mode) -> Tensor:
        """(m,) what these edges should score: `targets` in mode `forget`, `floors` in mode `dislike`."""
        return self.targets(state, edges) if mode == "forget" else self.floors(state, edges)

    def matched(self, state: TrainedState, edges: Tensor) -> Tensor:
        """(k,) bool: the validation pairs whose degree bin one of these edges falls into."""
        wanted = torch.zeros(self.learnt.shape[0], dtype=torch.bool, device=edges.device)
        wanted[_bins(state, edges.long(), self.user_cuts, self.item_cuts)] = True
        return wanted[_bins(state, state.validation.long(), self.user_cuts, self.item_cuts)]


def _scores(state: TrainedState, edges: Tensor) -> Tensor:
    # In parts: all edges of a base at once would gather gigabytes.
    parts = torch.split(edges, CHUNK, dim=1)
    return torch.cat([pair_scores(state.readout, state.graph.n_users, part[0], part[1]) for part in parts])


def _bins(state: TrainedState, edges: Tensor, user_cuts: Tensor, item_cuts: Tensor) -> Tensor:
    user_bin = torch.bucketize(state.graph.user_degree[edges[0]].float(), user_cuts)
    item_bin = torch.bucketize(state.graph.item_degree[edges[1]].float(), item_cuts)
    return user_bin * (item_cuts.numel() + 1) + item_bin


def _quantiles(scores: Tensor, chosen: Tensor, levels: Tensor) -> Tensor:
    # A bin that no pair falls into borrows the whole distribution.
    part = scores[chosen] if bool(chosen.any()) else scores
    position = (levels * (part.numel() - 1)).round().long()
    return torch.sort(part).values[position]
