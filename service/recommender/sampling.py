"""Negative sampling and the split that carves a validation part from training data."""

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from service.recommender.backbones.base import Triples
from service.recommender.graph import InteractionGraph

# After this many redraws a negative that is still an interaction stays: the user knows nearly every item.
MAX_REDRAWS = 20


def sample_negatives(graph: InteractionGraph, users: Tensor, generator: Generator) -> Tensor:
    """For each user row an item drawn uniformly from the items that the user has no interaction with.

    Args:
        graph: interactions to stay clear of.
        users: (b,) user rows.
        generator: the source of randomness, on the graph's device.

    Returns:
        (b,) int64 item rows.
    """
    users = users.long()
    items = torch.randint(graph.n_items, users.shape, generator=generator, device=graph.device)
    pending = torch.arange(users.numel(), device=graph.device)
    for _ in range(MAX_REDRAWS):
        taken = graph.contains(torch.stack((users[pending], items[pending])))
        pending = pending[taken]
        if not pending.numel():
            break
        items[pending] = torch.randint(graph.n_items, pending.shape, generator=generator, device=graph.device)
    return items


def batches(graph: InteractionGraph, size: int, generator: Generator) -> Iterator[Triples]:
    """One epoch: every interaction once, in random order, each with a fresh negative."""
    order = torch.randperm(graph.n_edges, generator=generator, device=graph.device)
    users, positives = graph.edges[:, order].long()
    negatives = sample_negatives(graph, users, generator)
    seed = int(torch.randint(2**31, (), generator=generator, device=graph.device))
    columns = (torch.split(column, size) for column in (users, positives, negatives))
    for number, (some_users, some_positives, some_negatives) in enumerate(zip(*columns, strict=True)):
        yield Triples(some_users, some_positives, some_negatives, seed + number)


def split_validation(graph: InteractionGraph, share: float, seed: int) -> tuple[InteractionGraph, Tensor]:
    """Carves a validation part out of the interactions, at random by seed.

    An interaction is taken only where its user and its item keep at least one other: validation never makes a
    row cold.

    Args:
        graph: all interactions that may be learnt from; never the test part.
        share: of the interactions, in [0, 1).
        seed: decides which.

    Returns:
        The graph that is left to train on, and (2, k) int32 validation edges.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(graph.n_edges, generator=generator).to(graph.device)
    candidates = graph.edges[:, order[: round(share * graph.n_edges)]]
    spare = (occurrence(candidates[0]) < graph.user_degree[candidates[0].long()] - 1) & (
        occurrence(candidates[1]) < graph.item_degree[candidates[1].long()] - 1
    )
    validation = candidates[:, spare]
    return graph.without(validation).compact(), validation.contiguous()


def occurrence(values: Tensor) -> Tensor:
    """For each entry, how many equal entries stand before it: [5, 7, 5] -> [0, 0, 1]."""
    ordered, order = torch.sort(values, stable=True)
    index = torch.arange(values.numel(), device=values.device)
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    first = torch.cummax(torch.where(is_first, index, 0), dim=0).values
    return torch.empty_like(index).index_put_((order,), index - first)
