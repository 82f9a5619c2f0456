"""Simulated requests: what people really send, made from the base's own interactions."""

from collections.abc import Callable
from typing import Final, Literal

import torch
from torch import Generator, Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.recommender.sampling import occurrence

Shape = Callable[[InteractionGraph, Generator], Tensor]
"""Draws a (2, m) request from a graph."""

Requests = Literal["mixed", "unlikely"]

UNLIKELY_SHARE = 0.01  # of all interactions: the most that one `unlikely` simulation asks for
CHUNK = 65_536  # interactions scored at once
SINGLES = 64  # pairs of a `single` or `ten` simulation that are measured together; see `single_pairs`


def single_pairs(graph: InteractionGraph, generator: Generator) -> Tensor:
    """Pairs of which no two share a user or an item.

    In S_D each then has degree 1 on both ends, exactly as a request of one pair: one pass stands for many requests.
    """
    order = torch.randperm(graph.n_edges, generator=generator, device=graph.device)[: SINGLES * 8]
    edges = graph.edges[:, order]
    for side in (0, 1):
        edges = edges[:, occurrence(edges[side]) < 1]
    return edges[:, :SINGLES]


def ten_pairs(graph: InteractionGraph, generator: Generator) -> Tensor:
    """Ten interactions of one user, for some users with at least twenty."""
    users = _rows(graph.user_degree >= 20, max(SINGLES // 10, 1), generator)
    edges = graph.edges_of_users(users)
    shuffled = edges[:, torch.randperm(edges.shape[1], generator=generator, device=graph.device)]
    return shuffled[:, occurrence(shuffled[0]) < 10]


def whole_users(graph: InteractionGraph, generator: Generator) -> Tensor:
    """Every interaction of a few users."""
    return graph.edges_of_users(_rows(graph.user_degree > 0, 4, generator))


def whole_items(graph: InteractionGraph, generator: Generator) -> Tensor:
    """Every interaction of a few items, of low and middling popularity, at most 1 % of all interactions."""
    rare = (graph.item_degree > 0) & (graph.item_degree <= max(graph.n_edges // 400, 1))
    return graph.edges_of_items(_rows(rare, 4, generator))


def share_of_pairs(share: float) -> Shape:
    """A uniformly random share of all interactions, in (0, 1)."""

    def draw(graph: InteractionGraph, generator: Generator) -> Tensor:
        size = max(round(share * graph.n_edges), 1)
        return graph.edges[:, torch.randperm(graph.n_edges, generator=generator, device=graph.device)[:size]]

    return draw


def unlikely_pairs(readout: Tensor, graph: InteractionGraph) -> Shape:
    """A shape like an adversarial request: of each user and each item the interaction that the base scores lowest.

    They stand in for what a person does not stand by: a loss that drives scores down without end forgets random
    interactions only at the price of quality, as those are mostly meant.

    Args:
        readout: (n_nodes, d) of the base.
        graph: of the base. Both are looked at once, here: O(n_edges d).

    Returns:
        A shape that draws at random from those interactions, at most 1 % of all.
    """
    pairs = graph.edges[:, _lowest_of_a_row(readout, graph)]

    def draw(graph: InteractionGraph, generator: Generator) -> Tensor:
        size = max(round(UNLIKELY_SHARE * graph.n_edges), 1)
        return pairs[:, torch.randperm(pairs.shape[1], generator=generator, device=pairs.device)[:size]]

    return draw


SHAPES: Final[dict[str, Shape]] = {
    "single": single_pairs,
    "ten": ten_pairs,
    "user": whole_users,
    "item": whole_items,
    "0.1pct": share_of_pairs(0.001),
    "0.5pct": share_of_pairs(0.005),
    "1pct": share_of_pairs(0.01),
    "2pct": share_of_pairs(0.02),
}
"""The shapes on which an encoder is trained and judged, by name."""


def shapes_of(kind: Requests, readout: Tensor, graph: InteractionGraph) -> dict[str, Shape]:
    """The shapes of a pre-training by name: all of `SHAPES`, or only what is unlikely for this base."""
    return dict(SHAPES) if kind == "mixed" else {"unlikely": unlikely_pairs(readout, graph)}


def simulate(shape: str | Shape, graph: InteractionGraph, generator: Generator) -> Tensor:
    """A (2, m) request of this shape, sorted and unique; m may be 0 where the graph has no such pairs.

    Args:
        shape: one of `SHAPES`, or another one.
        graph: to draw from.
        generator: on the graph's device.
    """
    return graph.common((SHAPES[shape] if isinstance(shape, str) else shape)(graph, generator))


def _lowest_of_a_row(readout: Tensor, graph: InteractionGraph) -> Tensor:
    """(n_edges,) bool: whether no interaction of the same user, or none of the same item, scores lower."""
    parts = torch.split(graph.edges.long(), CHUNK, dim=1)
    scores = torch.cat([pair_scores(readout, graph.n_users, users, items) for users, items in parts])
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    for rows, count in zip(graph.edges.long(), (graph.n_users, graph.n_items), strict=True):
        lowest = torch.full((count,), torch.inf, device=scores.device).scatter_reduce(0, rows, scores, "amin")
        chosen |= scores <= lowest[rows]
    return chosen


def _rows(eligible: Tensor, count: int, generator: Generator) -> Tensor:
    rows = torch.nonzero(eligible).flatten()
    return rows[torch.randperm(rows.numel(), generator=generator, device=rows.device)[:count]]
