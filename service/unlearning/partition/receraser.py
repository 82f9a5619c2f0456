"""RecEraser: a balanced partition by similarity, attention over the sub-models (Chen et al., WWW 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Generator, Tensor

from service.recommender.graph import InteractionGraph
from service.unlearning.partition.aggregation import AttentionConfig, fit_attention
from service.unlearning.partition.assignment import Side, balanced_clusters
from service.unlearning.partition.shards import PartitionUnlearner, SubModel
from service.unlearning.protocol import Guarantee
from service.unlearning.state import TrainedState, zero_isolated

Strategy = Literal["ubp", "ibp", "inbp"]


@dataclass
class RecEraser(PartitionUnlearner):
    """Similar users (ubp), items (ibp) or interactions (inbp) share a shard; layer-0 vectors are brought together by
    attention and propagated over all interactions that remain.

    The aggregator is trained from a fresh start at each request: its old weights saw what is erased.

    Guarantee: approximate. Sub-models and aggregator never see what is erased, but the partition and the vectors it
    was made of were computed from data that includes it and are not computed anew.
    Source: RecEraser, sections 3.2-3.4; methods.md section 5.2. Two differences: similarity is that of the base's own
    readout instead of vectors of a WMF trained for the purpose, and attention passes over shards that do not know a
    row. The anchors are means per dimension, which the published code's are not.
    Cost: of a request, the shards hit, then always the aggregator: per step one propagation and O(N K d^2).
    Partition once: O(rounds n K (d + K)) over n users, items or interactions. Memory K N d.

    Args:
        strategy: what is clustered.
        slack: a shard holds at most slack * n / K samples, >= 1.
        rounds: of the clustering, at most.
        attention: settings of the aggregator.
    """

    strategy: Strategy = "inbp"
    slack: float = 1.2
    rounds: int = 50
    attention: AttentionConfig = field(default_factory=AttentionConfig)

    guarantee = Guarantee.APPROXIMATE

    def split(self, state: TrainedState, generator: Generator) -> Tensor:
        """The shard of each interaction's user, of its item, or its own."""
        users, items = state.graph.edges.long()
        user_vectors, item_vectors = state.readout[: state.graph.n_users], state.readout[state.graph.n_users :]
        match self.strategy:
            case "ubp":
                return self._clusters([Side.of(user_vectors)], generator)[users]
            case "ibp":
                return self._clusters([Side.of(item_vectors)], generator)[items]
            case "inbp":
                return self._clusters([Side(user_vectors, users), Side(item_vectors, items)], generator)

    def _clusters(self, sides: Sequence[Side], generator: Generator) -> Tensor:
        capacity = math.ceil(self.slack * sides[0].rows.numel() / self.shards)
        return balanced_clusters(sides, self.shards, capacity, self.rounds, generator)

    def aggregate(
        self, state: TrainedState, models: Sequence[SubModel], remaining: InteractionGraph, seed: int
    ) -> tuple[Tensor, Tensor]:
        """The attention of a newly trained aggregator over the sub-models' layer 0, then its readout: (n_nodes, d)."""
        parts, known = [model.e0 for model in models], [model.graph.degree > 0 for model in models]
        batch_size = self.training.batch_size
        e0 = fit_attention(parts, known, state.backbone, remaining, state.validation, self.attention, batch_size, seed)
        with torch.no_grad():
            e0 = zero_isolated(e0, remaining)
            return e0, zero_isolated(state.backbone.propagate(e0, remaining), remaining)
