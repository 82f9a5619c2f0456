"""Can one tell from the scores what the model has learnt?"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.recommender.sampling import sample_negatives
from service.unlearning.judging import auc

MAX_NEGATIVES = 200_000


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


def _mean_p(scores: Tensor) -> float:
    return float(torch.sigmoid(scores.double()).mean()) if scores.numel() else 0.0
