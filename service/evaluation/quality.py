"""Ranking quality for those whom a request touches, their neighbours, and everybody else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.ranking import ranking_of_users


@dataclass(frozen=True)
class Regions:
    """Who stands how near to a request; user rows, int64, ascending, no user in two regions.

    `touched`: users of an erased pair who keep an interaction. `one_hop`: users who are not touched and keep an
    interaction with an item of an erased pair. `rest`: all others who keep an interaction. A user left without
    interactions is in none: nothing can be recommended from a row that was reset.
    """

    touched: Tensor
    one_hop: Tensor
    rest: Tensor

    @classmethod
    def of(cls, graph: InteractionGraph, erased: Tensor) -> Regions:
        """Regions of a request.

        Args:
            graph: before the request.
            erased: (2, m) integer edges of it.

        Cost: O(n_edges).
        """
        remaining = graph.without(erased)
        active = remaining.user_degree > 0
        touched = torch.zeros_like(active)
        touched[erased[0].long()] = True
        near = torch.zeros_like(active)
        near[remaining.edges_of_items(erased[1])[0].long()] = True
        parts = (touched & active, near & ~touched, active & ~near & ~touched)
        return cls(*(torch.nonzero(part).flatten() for part in parts))

    def named(self) -> dict[str, Tensor]:
        """The three by name."""
        return {"touched": self.touched, "one_hop": self.one_hop, "rest": self.rest}


def split_quality(
    readout: Tensor,
    seen: InteractionGraph,
    test: InteractionGraph,
    touched_users: Tensor,
    one_hop_users: Tensor,
    n: int = 20,
    rest_users: Tensor | None = None,
) -> dict[str, dict[str, float]]:
    """Recall@n and NDCG@n overall and by region, from a single pass over the users (methods.md section 6.4).

    Args:
        readout: (n_nodes, d), of any width d.
        seen: interactions masked from the ranking.
        test: the interactions to be found; users without one are skipped.
        touched_users: (a,) user rows.
        one_hop_users: (b,) user rows.
        n: length of the list.
        rest_users: (c,) user rows; default everybody who is in neither of the other two.

    Returns:
        For `overall`, `touched`, `one_hop` and `rest`: `recall_at_n`, `ndcg_at_n` and `n_users`. The means of a
        region in which nobody has a test item are nan.
    """
    users, recall, ndcg = ranking_of_users(readout, seen, test, n)
    touched, one_hop = (torch.isin(users, part.to(users)) for part in (touched_users, one_hop_users))
    rest = ~touched & ~one_hop if rest_users is None else torch.isin(users, rest_users.to(users))
    chosen = {"overall": torch.ones_like(touched), "touched": touched, "one_hop": one_hop, "rest": rest}
    return {
        name: {
            f"recall_at_{n}": float(recall[part].mean()),
            f"ndcg_at_{n}": float(ndcg[part].mean()),
            "n_users": int(part.sum()),
        }
        for name, part in chosen.items()
    }
