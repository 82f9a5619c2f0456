"""Balanced partitions: every sample in one shard, no shard over its capacity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.sampling import occurrence


@dataclass(frozen=True)
class Side:
    """What samples are compared by: sample s has the vector vectors[rows[s]].

    Shapes: `vectors` (r, d) float32; `rows` (n,) int64 in [0, r). Users or nodes are samples with one side, an
    interaction has two: its user and its item.
    """

    vectors: Tensor
    rows: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> Side:
        """One sample for each of the vectors."""
        return cls(vectors, torch.arange(vectors.shape[0], device=vectors.device))

    def distances(self, anchors: Tensor) -> Tensor:
        """(n, K) squared distances to the anchors (K, d)."""
        squares = self.vectors.square().sum(dim=1, keepdim=True) + anchors.square().sum(dim=1)
        return (squares - 2 * self.vectors @ anchors.T).clamp(min=0)[self.rows]

    def means(self, assignment: Tensor, shards: int) -> Tensor:
        """(K, d) the mean vector of each shard's samples, dimension by dimension; 0 for an empty shard.

        Averaging over the dimensions too, as RecEraser's code does, leaves one number of each anchor.
        """
        cells = assignment * self.vectors.shape[0] + self.rows
        counts = torch.bincount(cells, minlength=shards * self.vectors.shape[0]).view(shards, -1)
        return counts.to(self.vectors.dtype) @ self.vectors / counts.sum(dim=1, keepdim=True).clamp(min=1)


def fill(distances: Tensor, capacity: int) -> Tensor:
    """Fills the shards greedily, closest pair first: (n, K) distances -> (n,) int64 shards.

    The result of a sweep over all n K pairs in ascending order that assigns a sample when it has no shard yet and the
    shard has room (methods.md section 10.5), without the sweep: until the first shard is full, every sample goes to
    its closest one. So each round settles all proposals up to the distance at which the first shard fills up, then
    those turned away propose to their next. Equal distances: the earlier sample first.

    Cost: at most K rounds, O(n K) each.

    Raises:
        ValueError: the shards cannot hold all samples, or a distance is not finite.
    """
    n, shards = distances.shape
    if not bool(distances.isfinite().all()):
        msg = "Distances must be finite; did the base's training diverge?"
        raise ValueError(msg)
    if n > shards * capacity:
        msg = f"{shards} shards of {capacity} cannot hold {n} samples."
        raise ValueError(msg)
    assignment = torch.full((n,), -1, dtype=torch.long, device=distances.device)
    room = torch.full((shards,), capacity, dtype=torch.long, device=distances.device)
    waiting = torch.arange(n, device=distances.device)
    closest, target = distances.min(dim=1)
    while waiting.numel():
        accepted = _accepted(closest, target, room)
        assignment[waiting[accepted]] = target[accepted]
        room -= torch.bincount(target[accepted], minlength=shards)
        waiting, closest, target = waiting[~accepted], closest[~accepted], target[~accepted]
        away = room[target] == 0
        again = distances[waiting[away]].masked_fill(room == 0, torch.inf)
        closest[away], target[away] = again.min(dim=1)
    return assignment


def _accepted(closest: Tensor, target: Tensor, room: Tensor) -> Tensor:
    """(n,) bool: the proposals that come before the first shard is full, or all of them."""
    limit = torch.inf
    for shard, seats in enumerate(room.tolist()):
        proposals = closest[target == shard]
        if 0 < seats < proposals.numel():
            limit = min(limit, float(torch.kthvalue(proposals, seats).values))
    accepted = closest < limit
    tied = torch.nonzero(closest == limit).flatten()
    left = room - torch.bincount(target[accepted], minlength=room.numel())
    accepted[tied] = occurrence(target[tied]) < left[target[tied]]
    return accepted


def balanced_clusters(sides: Sequence[Side], shards: int, capacity: int, rounds: int, generator: Generator) -> Tensor:
    """Balanced k-means: `fill` and new anchors in turn, until nothing changes.

    The dissimilarity of a sample and a shard is the product over the sides of the squared distance to the shard's
    anchor. The first anchors are samples drawn at random.

    Source: RecEraser (WWW 2022), Algorithms 1 and 2; GraphEraser's BEKM (CCS 2022); methods.md sections 5.2, 5.3, 10.5.
    Cost: O(rounds n K (d + K)) time, O(n K) memory.

    Args:
        sides: one or more, of as many samples each.
        shards: K, at most as many as there are samples.
        capacity: samples that a shard may hold.
        rounds: at most so many, >= 1.
        generator: the source of randomness, on the CPU.

    Returns:
        (n,) int64 shard of each sample.

    Raises:
        ValueError: more shards than samples, or the shards cannot hold all of them.
    """
    n = sides[0].rows.numel()
    if shards > n:
        msg = f"{n} samples cannot fill {shards} shards."
        raise ValueError(msg)
    first = torch.randperm(n, generator=generator)[:shards].to(sides[0].rows.device)
    anchors = [side.vectors[side.rows[first]] for side in sides]
    assignment = torch.full_like(sides[0].rows, -1)
    for _ in range(rounds):
        dissimilarity = sides[0].distances(anchors[0])
        for side, anchor in zip(sides[1:], anchors[1:], strict=True):
            dissimilarity *= side.distances(anchor)
        previous, assignment = assignment, fill(dissimilarity, capacity)
        if torch.equal(previous, assignment):
            break
        anchors = [side.means(assignment, shards) for side in sides]
    return assignment


def propagated_labels(graph: InteractionGraph, shards: int, capacity: int, rounds: int, generator: Generator) -> Tensor:
    """Balanced label propagation over the nodes of a graph (BLPA).

    From a random even split, each node wants to go where most of its neighbours are; those with most neighbours there
    go first, while there is room. Users and items move in turn: were both to move at once, a bipartite graph would
    swap its labels for ever.

    Source: GraphEraser (CCS 2022), section 4.2; methods.md section 5.3.
    Cost: O(rounds (m + N K)) time, O(N K) memory.

    Args:
        graph: what is to be split.
        shards: K >= 1.
        capacity: nodes that a shard may hold, at least N / K.
        rounds: at most so many, >= 1.
        generator: the source of randomness, on the CPU.

    Returns:
        (n_nodes,) int64 shard of each node, users first.

    Raises:
        ValueError: the shards cannot hold all nodes.
    """
    if graph.n_nodes > shards * capacity:
        msg = f"{shards} shards of {capacity} cannot hold {graph.n_nodes} nodes."
        raise ValueError(msg)
    label = (torch.randperm(graph.n_nodes, generator=generator) % shards).to(graph.device)
    users, items = graph.edges.long()
    for _ in range(rounds):
        before = label.clone()
        _move(label, label[: graph.n_users], users, label[graph.n_users :][items], shards, capacity)
        _move(label, label[graph.n_users :], items, label[: graph.n_users][users], shards, capacity)
        if torch.equal(before, label):
            break
    return label


def _move(label: Tensor, side: Tensor, ends: Tensor, neighbour: Tensor, shards: int, capacity: int) -> None:
    """Moves the nodes of one side, `side` being its part of `label`, in place.

    Shapes: ends (m,) the row of each edge in `side`; neighbour (m,) the label at its other end.
    """
    counts = torch.bincount(ends * shards + neighbour, minlength=side.numel() * shards).view(-1, shards)
    most, wanted = counts.max(dim=1)
    here = counts.gather(1, side[:, None]).flatten()
    movers = torch.nonzero(most > here).flatten()
    movers = movers[torch.argsort(most[movers], descending=True, stable=True)]
    room = capacity - torch.bincount(label, minlength=shards)
    movers = movers[occurrence(wanted[movers]) < room[wanted[movers]]]
    side[movers] = wanted[movers]
