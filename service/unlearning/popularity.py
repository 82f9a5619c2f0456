"""Popularity: everybody is recommended what most people have."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.unlearning.protocol import ForgetResult, Guarantee, Unlearner
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState


@dataclass
class Popularity(Unlearner):
    """The score of an item is the number of its interactions: the least that a recommender must beat.

    Guarantee: exact; an erased interaction is subtracted.
    Source: the usual lower bound of comparisons (Dacrema et al., RecSys 2019).
    Cost: O(m).
    """

    guarantee = Guarantee.EXACT

    def prepare(self, state: TrainedState) -> None:
        """Nothing to prepare."""

    def before(self, state: TrainedState) -> Tensor:
        """(n_nodes, 1) float32: 1 for users, degrees for items."""
        return _readout(state.graph, state.graph.item_degree)

    def forget(self, state: TrainedState, request: UnlearningRequest) -> ForgetResult:
        """The counts of what remains."""
        started = time.perf_counter()
        remaining = state.graph.without(request.edges)
        gone = torch.bincount(request.edges[1], minlength=state.graph.n_items)
        readout = _readout(remaining, state.graph.item_degree - gone)
        return ForgetResult(readout, readout, remaining, 0, {"subtract": time.perf_counter() - started})


def _readout(graph: InteractionGraph, counts: Tensor) -> Tensor:
    users = (graph.user_degree > 0).float()  # a person without interactions has no row, as in every other model
    return torch.cat((users, counts.float()))[:, None]
