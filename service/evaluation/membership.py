"""Can one tell from the scores what the model has learnt?"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.recommender.sampling import sample_negatives
from service.unlearning.ranks import auc

MAX_NEGATIVES = 200_000
MAX_KEPT = 200_000
MAX_BINS_A_SIDE = 32
MIN_PER_BIN = 10  # held-out pairs in a bin: narrow bins match better and add little noise, as each pair counts once


@dataclass(frozen=True)
class Membership:
    """Figures of methods.md section 6.3 for one model and one request; p is a mean sigmoid of scores.

    `auc_heldout`: probability that an erased pair scores above a held-out one; compare it with Retrain's.
    `mi_bf` = p_erased of the model before / p_erased now; `mi_ng` = p_negative / p_erased. Both reward
    over-forgetting: the aim is Retrain's figure, not a high one.
    """

    auc_heldout: float
    p_erased: float
    p_heldout: float
    p_negative: float
    mi_bf: float
    mi_ng: float


@dataclass(frozen=True)
class MembershipProbe:
    """The pairs on which every model of a comparison is measured: the same for all of them.

    Shapes: `erased` (2, m) the request; `heldout` (2, k) interactions no model has learnt; `negatives` (2, n) pairs
    that nobody interacted with.
    """

    n_users: int
    erased: Tensor
    heldout: Tensor
    negatives: Tensor

    @classmethod
    def of(cls, graph: InteractionGraph, erased: Tensor, heldout: Tensor, seed: int = 0) -> "MembershipProbe":
        """Negatives are drawn evenly over users, clear of `graph`, as many as it has edges but at most 200,000."""
        generator = Generator(graph.device).manual_seed(seed)
        count = min(graph.n_edges, MAX_NEGATIVES)
        users = torch.randint(graph.n_users, (count,), generator=generator, device=graph.device)
        negatives = torch.stack((users, sample_negatives(graph, users, generator)))
        return cls(graph.n_users, erased.long(), heldout.long(), negatives)

    def measure(self, readout: Tensor, before: Tensor) -> Membership:
        """Figures of a model with this readout, (n_nodes, d); `before` is the readout that still knew the request."""
        erased, heldout = self._scores(readout, self.erased), self._scores(readout, self.heldout)
        p_erased = _mean_p(erased)
        p_negative = _mean_p(self._scores(readout, self.negatives))
        p_before = _mean_p(self._scores(before, self.erased))
        return Membership(
            auc(erased, heldout),
            p_erased,
            _mean_p(heldout),
            p_negative,
            p_before / max(p_erased, 1e-12),
            p_negative / max(p_erased, 1e-12),
        )

    def _scores(self, readout: Tensor, edges: Tensor) -> Tensor:
        return pair_scores(readout, self.n_users, edges[0], edges[1])


@dataclass(frozen=True)
class MatchedMembership:
    """Further figures of one model and one request (methods.md section 6.4).

    `auc_matched`: probability that an erased pair scores above a held-out one whose user and item have degrees like
    its own; nan where no erased pair has such a partner. `n_unmatched`: erased pairs without one. `p_erased_before`
    and `p_kept`: mean sigmoid of the erased pairs' scores when still known, and of remaining pairs' scores now.
    """

    auc_matched: float
    n_unmatched: int
    p_erased_before: float
    p_kept: float


@dataclass(frozen=True)
class MatchedProbe:
    """A probe whose erased and held-out pairs are compared within bins of like degrees only.

    A model that knows nothing but popularity scores well-liked items high: where erased pairs are of other degrees
    than held-out ones (whole users, whole items, adversarial edges) the plain AUC is not .5 for it; this one is.

    Shapes: `kept` (2, k) int64 remaining pairs; `bins_erased` (m,) and `bins_heldout` (n,) int64, -1 for a pair of
    which one end has no interaction left: its row was reset, and it says nothing of what the model remembers.
    """

    probe: MembershipProbe
    kept: Tensor
    bins_erased: Tensor
    bins_heldout: Tensor

    @classmethod
    def of(cls, probe: MembershipProbe, remaining: InteractionGraph, seed: int = 0) -> "MatchedProbe":
        """Degrees are those of what remains, in which neither an erased nor a held-out pair counts; `kept` is a sample
        of at most 200,000.
        """
        generator = Generator(remaining.device).manual_seed(seed)
        order = torch.randperm(remaining.n_edges, generator=generator, device=remaining.device)
        bins = degree_bins(remaining, probe.erased, probe.heldout)
        return cls(probe, remaining.edges[:, order[:MAX_KEPT]].long(), *bins)

    def measure(self, readout: Tensor, before: Tensor) -> MatchedMembership:
        """Figures of a model with this (n_nodes, d) readout; `before` is the one that still knew the request."""
        probe, usable = self.probe, self.bins_heldout >= 0
        heldout = probe._scores(readout, probe.heldout)[usable]
        erased = probe._scores(readout, probe.erased)
        value, unmatched = matched_auc(erased, heldout, self.bins_erased, self.bins_heldout[usable])
        kept = _mean_p(probe._scores(readout, self.kept))
        return MatchedMembership(value, unmatched, _mean_p(probe._scores(before, probe.erased)), kept)


def degree_bins(graph: InteractionGraph, erased: Tensor, heldout: Tensor) -> tuple[Tensor, Tensor]:
    """Bins of (user degree, item degree) for both sets of pairs.

    The held-out pairs are cut at quantiles of the user degree, and each part at its own quantiles of the item degree.
    Every cut is a degree of a held-out pair, so no bin is without one: what would be empty is merged with its
    neighbour.

    Args:
        graph: gives the degrees.
        erased: (2, m) integer pairs.
        heldout: (2, n) integer pairs.

    Returns:
        (m,) and (n,) int64 bins; -1 where an end has degree 0.
    """
    pairs = torch.cat((erased, heldout), dim=1).long()
    is_heldout = torch.arange(pairs.shape[1], device=pairs.device) >= erased.shape[1]
    counted = graph.keeps(pairs)
    users, items = graph.user_degree[pairs[0]], graph.item_degree[pairs[1]]
    known = is_heldout & counted
    side = int(min(MAX_BINS_A_SIDE, max(1.0, (int(known.sum()) / MIN_PER_BIN) ** 0.5)))
    user_bin = torch.bucketize(users, _cuts(users[known], side))
    item_bin = torch.zeros_like(user_bin)
    for part in range(side):
        inside = user_bin == part
        item_bin[inside] = torch.bucketize(items[inside], _cuts(items[known & inside], side))
    bins = torch.where(counted, user_bin * side + item_bin, -1)
    return bins[~is_heldout], bins[is_heldout]


def matched_auc(
    scores_erased: Tensor, scores_heldout: Tensor, bins_erased: Tensor, bins_heldout: Tensor
) -> tuple[float, int]:
    """The AUC within each bin, averaged with the number of erased pairs as weight; ties counted half.

    Args:
        scores_erased: (m,).
        scores_heldout: (n,).
        bins_erased: (m,) integers.
        bins_heldout: (n,) integers.

    Returns:
        The mean, exact, nan where no bin holds pairs of both sets; and how many erased pairs have no held-out one in
        their bin and were left out. Cost: O((m + n) log(m + n)), no loop over bins.
    """
    # A score's place among all scores is exact where a product of bin and score would round.
    values, place = torch.unique(torch.cat((scores_erased, scores_heldout)), return_inverse=True)
    bins = torch.unique(torch.cat((bins_erased, bins_heldout)), return_inverse=True)[1]
    n_values, m = values.numel(), scores_erased.numel()
    ordered = torch.sort(bins[m:] * n_values + place[m:]).values
    first, own = bins[:m] * n_values, place[:m]
    start = torch.searchsorted(ordered, first)
    size = torch.searchsorted(ordered, first + n_values) - start
    below = torch.searchsorted(ordered, first + own) - start
    not_above = torch.searchsorted(ordered, first + own, right=True) - start
    matched = size > 0
    share = (below + not_above)[matched].double() / (2 * size[matched])
    return float(share.mean()), int((~matched).sum())


def _cuts(values: Tensor, parts: int) -> Tensor:
    """Ascending values at the 1/parts, 2/parts, ... quantiles, each once, and none that leaves nothing above it."""
    if not values.numel():
        return values
    ordered = torch.sort(values).values
    levels = torch.arange(1, parts, device=values.device) * values.numel() // parts
    cuts: Tensor = torch.unique(ordered[levels])
    return cuts[cuts < ordered[-1]]


def _mean_p(scores: Tensor) -> float:
    return float(torch.sigmoid(scores.double()).mean()) if scores.numel() else 0.0
