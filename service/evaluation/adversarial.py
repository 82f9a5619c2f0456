"""The least probable edges: interactions that a recommender would never have guessed."""

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph

CHUNK = 1024


def adversarial_edges(readout: Tensor, graph: InteractionGraph, share: float, seed: int) -> Tensor:
    """Edges to add to a graph so that a model trained on it learns what is plainly wrong (methods.md section 6.2).

    For sampled users the item with the lowest score, for sampled items the user with the lowest score, repeats and
    edges of the graph left out.

    Args:
        readout: (n_nodes, d) of a model trained on the clean graph.
        graph: the clean graph.
        share: of the graph's edges to aim at, in (0, 1); at most one edge a node can be had.
        seed: decides which nodes.

    Returns:
        (2, m) int32, m <= share * n_edges.
    """
    generator = torch.Generator(graph.device).manual_seed(seed)
    users = _pick(graph.user_degree, generator)
    items = _pick(graph.item_degree, generator)
    user_rows, item_rows = readout[: graph.n_users], readout[graph.n_users :]
    by_user = torch.stack((users, _lowest(user_rows[users], item_rows)))
    by_item = torch.stack((_lowest(item_rows[items], user_rows), items))
    candidates = torch.cat((by_user, by_item), dim=1)
    fresh = InteractionGraph(graph.n_users, graph.n_items, candidates).edges
    fresh = fresh[:, ~graph.contains(fresh)]
    order = torch.randperm(fresh.shape[1], generator=generator, device=graph.device)
    return fresh[:, order[: round(share * graph.n_edges)]]


def _pick(degree: Tensor, generator: torch.Generator) -> Tensor:
    rows = torch.nonzero(degree).flatten()
    return rows[torch.randperm(rows.numel(), generator=generator, device=rows.device)]


def _lowest(queries: Tensor, candidates: Tensor) -> Tensor:
    return torch.cat([(part @ candidates.T).argmin(dim=1) for part in torch.split(queries, CHUNK)])
