"""SISA: a random split of the interactions, the mean of the scores (Bourtoule et al., S&P 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from service.recommender.graph import InteractionGraph
from service.unlearning.partition.aggregation import side_by_side, uniform_weights
from service.unlearning.partition.shards import PartitionUnlearner, SubModel
from service.unlearning.protocol import Guarantee
from service.unlearning.state import TrainedState


@dataclass
class SISA(PartitionUnlearner):
    """K sub-models on random shares of the interactions; y_ui = mean_k y^k_ui. With K = 1 this is `Retrain`.

    Sharding without slicing: a shard is retrained from its start.

    Guarantee: exact. The split looks at no value, a sub-model sees nothing of other shards (not even to keep clear of
    their interactions when it draws negatives), and the mean learns nothing.
    Source: SISA, section IV; methods.md section 5.1.
    Cost: of a request, the shards hit: K (1 - (1 - 1/K)^m) of K for m random deletions. Readout and memory N K d.
    """

    guarantee = Guarantee.EXACT
    own_rows: ClassVar[bool] = False  # as Retrain, so that one shard is Retrain

    def split(self, state: TrainedState, generator: Generator) -> Tensor:
        """A random shard for each interaction, all of the same size but for one."""
        return (torch.randperm(state.graph.n_edges, generator=generator) % self.shards).to(state.graph.device)

    def aggregate(
        self, state: TrainedState, models: Sequence[SubModel], remaining: InteractionGraph, seed: int
    ) -> tuple[Tensor, Tensor]:
        """The sub-models side by side, each scaled by K^-1/2."""
        weights = uniform_weights([model.e0 for model in models])
        return (
            side_by_side([model.e0 for model in models], weights),
            side_by_side([model.readout for model in models], weights),
        )
