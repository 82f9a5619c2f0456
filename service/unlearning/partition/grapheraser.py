"""GraphEraser: a balanced partition of the nodes, learnt weights of the sub-models (Chen et al., CCS 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Generator, Tensor

from service.recommender.graph import InteractionGraph
from service.unlearning.partition.aggregation import WeightConfig, fit_weights, side_by_side
from service.unlearning.partition.assignment import Side, balanced_clusters, propagated_labels
from service.unlearning.partition.shards import NO_SHARD, PartitionUnlearner, SubModel
from service.unlearning.protocol import Guarantee
from service.unlearning.state import TrainedState

Method = Literal["bekm", "blpa"]


@dataclass
class GraphEraser(PartitionUnlearner):
    """Users and items are split together; a sub-model has the interactions within its shard, those between shards are
    lost. y_ui = sum_k alpha_k y^k_ui.

    An erased interaction between shards costs no retraining, only new weights. A node is known to one sub-model, so a
    user is only ever recommended items of his own shard, all others scoring 0: the price of a method made for node
    classification.

    Guarantee: approximate. Sub-models and weights never see what is erased, but the partition, and with "bekm" the
    base's readout that it was made of, were computed from data that includes it and are not computed anew.
    Source: GraphEraser, sections 4 and 5; methods.md section 5.3, whose adaptation to recommendation this is.
    Cost: of a request, the shards hit, then always the weights: O(K d triples). Partition once: bekm O(rounds N K d),
    blpa O(rounds m). Readout and memory N K d.

    Args:
        method: "bekm" balanced k-means on the base's readout; "blpa" balanced label propagation.
        slack: delta; a shard holds at most N/K + delta (N - N/K) nodes.
        rounds: of the partition at most; the default is 20 for bekm and 100 for blpa.
        weights: settings of the aggregator.
    """

    method: Method = "bekm"
    slack: float = 0.005
    rounds: int | None = None
    weights: WeightConfig = field(default_factory=WeightConfig)

    guarantee = Guarantee.APPROXIMATE

    def split(self, state: TrainedState, generator: Generator) -> Tensor:
        """The shard of the nodes at an interaction's ends, where it is the same."""
        graph = state.graph
        even = graph.n_nodes / self.shards
        capacity = math.ceil(even + self.slack * (graph.n_nodes - even))
        if self.method == "bekm":
            shard = balanced_clusters([Side.of(state.readout)], self.shards, capacity, self.rounds or 20, generator)
        else:
            shard = propagated_labels(graph, self.shards, capacity, self.rounds or 100, generator)
        of_user, of_item = shard[graph.edges[0]], shard[graph.edges[1] + graph.n_users]
        return torch.where(of_user == of_item, of_user, NO_SHARD)

    def aggregate(
        self, state: TrainedState, models: Sequence[SubModel], remaining: InteractionGraph, seed: int
    ) -> tuple[Tensor, Tensor]:
        """The sub-models side by side, each scaled by the root of its newly learnt weight."""
        readouts = [model.readout for model in models]
        alpha = fit_weights(readouts, remaining, self.weights, seed)
        return side_by_side([model.e0 for model in models], alpha), side_by_side(readouts, alpha)
