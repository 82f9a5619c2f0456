"""Exact full-catalogue top-N, and how good it is."""

from dataclasses import dataclass

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph

CHUNK = 1024  # users scored at once: bounds the score matrix to CHUNK x n_items


@dataclass(frozen=True)
class RankingQuality:
    """Means over the users that have at least one held-out item; in [0, 1]."""

    recall: float
    ndcg: float
    n_users: int


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


def ranking_quality(readout: Tensor, seen: InteractionGraph, held_out: InteractionGraph, n: int = 20) -> RankingQuality:
    """Recall@n and NDCG@n over all items that a user has not seen (methods.md section 6.1).

    Args:
        readout: (n_nodes, d) embeddings.
        seen: interactions masked from the ranking.
        held_out: the interactions to be found; users without one are skipped.
        n: length of the list.
    """
    users = torch.nonzero(held_out.user_degree).flatten()
    discount = 1 / torch.log2(torch.arange(2, n + 2, device=readout.device, dtype=torch.float64))
    ideal = torch.cumsum(discount, dim=0)
    recall = ndcg = 0.0
    for part in torch.split(users, CHUNK):
        top = top_items(readout, seen, part, n)
        pairs = torch.stack((part[:, None].expand_as(top).reshape(-1), top.reshape(-1)))
        hits = held_out.contains(pairs).view_as(top).double()  # (b, n)
        relevant = held_out.user_degree[part]
        recall += float((hits.sum(dim=1) / relevant).sum())
        dcg = (hits * discount[: hits.shape[1]]).sum(dim=1)
        ndcg += float((dcg / ideal[relevant.clamp(max=n) - 1]).sum())
    total = max(users.numel(), 1)
    return RankingQuality(recall / total, ndcg / total, users.numel())
