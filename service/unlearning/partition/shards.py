"""What all methods of the partition family share: sub-models on shards, of which a request retrains those it hits."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Generator, Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.training import Training, TrainingConfig
from service.unlearning.protocol import ForgetResult, Unlearner
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState, zero_isolated

NO_SHARD = -1


@dataclass(frozen=True)
class Partition:
    """Which shard holds which interaction.

    Shapes: `shard_of_edge` (m,) int64 along the edges of `graph`, in [0, shards), or NO_SHARD for an interaction that
    no sub-model learns.
    """

    graph: InteractionGraph
    shard_of_edge: Tensor
    shards: int

    def graph_of(self, shard: int) -> InteractionGraph:
        """The interactions of a shard, over all rows."""
        held = self.graph.edges[:, self.shard_of_edge == shard]
        return InteractionGraph(self.graph.n_users, self.graph.n_items, held)

    def holders(self, edges: Tensor) -> Tensor:
        """(k,) int64: the shard of each of the (2, k) edges; NO_SHARD where none has it. O(k log m)."""
        position, found = self.graph.find(edges)
        return torch.where(found, self.shard_of_edge[position], NO_SHARD)

    @property
    def lost(self) -> float:
        """Share of the interactions that no sub-model learns, in [0, 1]."""
        return float((self.shard_of_edge == NO_SHARD).double().mean())


@dataclass(frozen=True)
class SubModel:
    """What one shard learnt. Shapes: `e0` and `readout` (n_nodes, d) float32; rows that its graph lacks are zero."""

    graph: InteractionGraph
    e0: Tensor
    readout: Tensor
    seconds: float


@dataclass(frozen=True)
class Ensemble:
    """A partition and its sub-models, and what they amount to together.

    Shapes: `e0` and `readout` (n_nodes, D) float32; inner products of `readout` are the aggregated scores.
    """

    partition: Partition
    models: tuple[SubModel, ...]
    e0: Tensor
    readout: Tensor


@dataclass(frozen=True)
class PartitionResult(ForgetResult):
    """A model from which a request is gone, and what it took.

    `seconds`: "shards", the retraining of all shards hit one after the other; "aggregate"; and "slowest_shard", which
    stands in for "shards" where they are retrained in parallel and must not be added to it.
    """

    shards_hit: tuple[int, ...] = ()
    shards: int = 0
    lost: float = 0.0
    """Share of the base's interactions that no sub-model ever learnt, in [0, 1]."""


@dataclass
class PartitionUnlearner(Unlearner):
    """One sub-model a shard; a request retrains from scratch the shards that hold some of it.

    A method says how interactions are split and how sub-models are brought together.

    A sub-model takes as many steps as the base did: its batches are 1 / shards of the base's. It stops as the base
    does, by those validation interactions whose user and item it knows.

    Source: methods.md sections 5 and 10.6.
    Cost: m random deletions hit K (1 - (1 - 1/K)^m) of K shards, 9.95 of 10 for m = 50. Training a shard takes 1/K of
    the sparse products of a whole training, and as many steps over the dense rows. Memory K N d.

    Args:
        shards: K >= 1.
        training: the settings the base was trained with. Its seed decides the partition and the first sub-models.
        seed: of the sub-models and the aggregator that are trained anew; another than that of `training`.

    Raises:
        ValueError: no shards.
    """

    shards: int = 10
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 1

    own_rows: ClassVar[bool] = True
    """Whether a sub-model has only the rows of its shard, and with them draws negatives only from the shard's items.
    Else nine negatives in ten would be items the sub-model never sees otherwise, and tell it nothing."""

    def __post_init__(self) -> None:
        if self.shards < 1:
            msg = "shards must be at least 1."
            raise ValueError(msg)
        self._prepared: tuple[TrainedState, Ensemble] | None = None

    @abstractmethod
    def split(self, state: TrainedState, generator: Generator) -> Tensor:
        """(m,) int64 the shard of each interaction, or NO_SHARD."""

    @abstractmethod
    def aggregate(
        self, state: TrainedState, models: Sequence[SubModel], remaining: InteractionGraph, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Layer 0 and readout of the sub-models together, learnt from nothing but the remaining interactions."""

    def prepare(self, state: TrainedState) -> None:
        """Splits the base's interactions, trains all K sub-models, brings them together: about a whole training."""
        generator, seed = torch.Generator().manual_seed(self.training.seed), self.training.seed
        partition = Partition(state.graph, self.split(state, generator), self.shards)
        graphs = (partition.graph_of(shard) for shard in range(self.shards))
        models = tuple(self._train(state, graph, shard, seed) for shard, graph in enumerate(graphs))
        self._prepared = (state, Ensemble(partition, models, *self.aggregate(state, models, state.graph, seed)))

    def ensemble(self, state: TrainedState) -> Ensemble:
        """The sub-models before any request; trained now where `prepare` was not called for this base."""
        if self._prepared is None or self._prepared[0] is not state:
            self.prepare(state)
        assert self._prepared is not None
        return self._prepared[1]

    def before(self, state: TrainedState) -> Tensor:
        """(n_nodes, D) what the ensemble serves before any request."""
        return self.ensemble(state).readout

    def forget(self, state: TrainedState, request: UnlearningRequest) -> PartitionResult:
        """The ensemble without the request; an empty one gives `before`, bit for bit."""
        ensemble = self.ensemble(state)
        lost = ensemble.partition.lost
        if not request.n_edges:
            return PartitionResult(ensemble.e0, ensemble.readout, state.graph, shards=self.shards, lost=lost)
        remaining = state.graph.without(request.edges)
        holders = torch.unique(ensemble.partition.holders(request.edges))
        hit: tuple[int, ...] = tuple(holders[holders != NO_SHARD].tolist())
        models = self.retrained(state, ensemble.models, hit, request.edges)
        started = time.perf_counter()
        e0, readout = self.aggregate(state, models, remaining, self.seed)
        taken = [models[shard].seconds for shard in hit]
        seconds = {"shards": sum(taken), "aggregate": time.perf_counter() - started}
        seconds["slowest_shard"] = max(taken, default=0.0)
        return PartitionResult(e0, readout, remaining, 0, seconds, hit, self.shards, lost)

    def retrained(
        self, state: TrainedState, models: Sequence[SubModel], hit: Iterable[int], edges: Tensor
    ) -> tuple[SubModel, ...]:
        """The sub-models, those of the shards hit trained anew without the (2, k) edges."""
        anew = {shard: self._train(state, models[shard].graph.without(edges), shard, self.seed) for shard in hit}
        return tuple(anew.get(shard, model) for shard, model in enumerate(models))

    def _train(self, state: TrainedState, graph: InteractionGraph, shard: int, seed: int) -> SubModel:
        """A sub-model from scratch; no two shards of one seed or of two share their randomness."""
        started = time.perf_counter()
        batch_size = max(1, self.training.batch_size // self.shards)
        config = replace(self.training, batch_size=batch_size, seed=seed * self.shards + shard)
        rows = ShardRows(graph, self.own_rows)
        validation = rows.inside(state.validation[:, graph.keeps(state.validation)])
        if graph.n_edges:
            run = Training(state.backbone, rows.inside_graph, validation, config, state.e0.device)
            e0 = rows.outside(run.run().e0)
        else:  # all of the shard is erased
            e0 = torch.zeros_like(state.e0)
        with torch.no_grad():
            readout = zero_isolated(state.backbone.propagate(e0, graph), graph)
        return SubModel(graph, zero_isolated(e0, graph), readout, time.perf_counter() - started)


class ShardRows:
    """The rows of a shard, numbered within it.

    Args:
        graph: the shard's interactions over all rows.
        own: leave out the rows without an interaction; else numbers stay as they are.
    """

    def __init__(self, graph: InteractionGraph, own: bool) -> None:
        self.graph = graph
        self.users = graph.user_degree > 0 if own else torch.ones_like(graph.user_degree, dtype=torch.bool)
        self.items = graph.item_degree > 0 if own else torch.ones_like(graph.item_degree, dtype=torch.bool)

    @cached_property
    def inside_graph(self) -> InteractionGraph:
        """The same interactions over the shard's rows."""
        return InteractionGraph(int(self.users.sum()), int(self.items.sum()), self.inside(self.graph.edges))

    def inside(self, edges: Tensor) -> Tensor:
        """(2, k) edges between rows of the shard, in its numbers."""
        user_number, item_number = self.users.cumsum(dim=0) - 1, self.items.cumsum(dim=0) - 1
        return torch.stack((user_number[edges[0].long()], item_number[edges[1].long()]))

    def outside(self, vectors: Tensor) -> Tensor:
        """(n_nodes, d) the shard's vectors at their rows among all, zero elsewhere."""
        everywhere = vectors.new_zeros(self.graph.n_nodes, vectors.shape[1])
        everywhere[torch.cat((self.users, self.items))] = vectors
        return everywhere
