"""Exact full-catalogue top-N, and how good it is."""

from dataclasses import dataclass

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph

CHUNK = 1024  # users scored at once: bounds the score matrix to CHUNK x n_items


@dataclass(frozen=True)
class RankingQuality:
    """Means over the users that have at least one held-out item; in [0, 1].

    `ndcg_error`: standard error of the mean NDCG over these users; 0 where it was not measured.
    """

    recall: float
    ndcg: float
    n_users: int
    ndcg_error: float = 0.0

    @classmethod
    def of_users(cls, recall: Tensor, ndcg: Tensor) -> "RankingQuality":
        """The means of (k,) float64 figures of users; 0 where there are none."""
        n = ndcg.numel()
        if not n:
            return cls(0.0, 0.0, 0)
        error = float(ndcg.std(correction=0)) / n**0.5
        return cls(float(recall.sum()) / n, float(ndcg.sum()) / n, n, error)


def top_items(readout: Tensor, seen: InteractionGraph, users: Tensor, n: int) -> Tensor:
    """The n items with the highest scores for each user, those already seen left out.

    Shapes: readout (n_nodes, d), users (b,) rows -> (b, min(n, n_items)) int64 item rows, best first.
    """
    scores = readout[users.long()] @ readout[seen.n_users :].T  # (b, n_items)
    position = torch.full((seen.n_users,), -1, dtype=torch.long, device=seen.device)
    position[users.long()] = torch.arange(users.numel(), device=seen.device)
    rows, items = position[seen.edges[0].long()], seen.edges[1].long()
    known = rows >= 0
    scores[rows[known], items[known]] = -torch.inf
    return torch.topk(scores, min(n, seen.n_items), dim=1).indices


def ranking_of_users(
    readout: Tensor, seen: InteractionGraph, held_out: InteractionGraph, n: int = 20
) -> tuple[Tensor, Tensor, Tensor]:
    """Recall@n and NDCG@n of each user over all items that the user has not seen (methods.md section 6.1).

    Args:
        readout: (n_nodes, d) embeddings.
        seen: interactions masked from the ranking.
        held_out: the interactions to be found; users without one are skipped.
        n: length of the list.

    Returns:
        (k,) int64 user rows, ascending, and (k,) float64 recall and NDCG, both in [0, 1].
    """
    users = torch.nonzero(held_out.user_degree).flatten()
    discount = 1 / torch.log2(torch.arange(2, n + 2, device=readout.device, dtype=torch.float64))
    ideal = torch.cumsum(discount, dim=0)
    recall, ndcg = torch.zeros_like(users, dtype=torch.float64), torch.zeros_like(users, dtype=torch.float64)
    for part in torch.split(torch.arange(users.numel(), device=users.device), CHUNK):
        top = top_items(readout, seen, users[part], n)
        pairs = torch.stack((users[part, None].expand_as(top).reshape(-1), top.reshape(-1)))
        hits = held_out.contains(pairs).view_as(top).double()  # (b, n)
        relevant = held_out.user_degree[users[part]]
        recall[part] = hits.sum(dim=1) / relevant
        ndcg[part] = (hits * discount[: hits.shape[1]]).sum(dim=1) / ideal[relevant.clamp(max=n) - 1]
    return users, recall, ndcg


def ranking_quality(readout: Tensor, seen: InteractionGraph, held_out: InteractionGraph, n: int = 20) -> RankingQuality:
    """Means of `ranking_of_users`, which says what the arguments are; 0 where no user has a held-out item."""
    _, recall, ndcg = ranking_of_users(readout, seen, held_out, n)
    return RankingQuality.of_users(recall, ndcg)
