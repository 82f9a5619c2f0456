"""The requests that every method is measured on, and the graphs that go with them (methods.md section 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from torch import Generator, Tensor

from service.evaluation.adversarial import adversarial_edges
from service.recommender.dataset import Dataset
from service.recommender.graph import InteractionGraph
from service.recommender.sampling import split_validation

VALIDATION_SHARE = 0.02
ADVERSARIAL_SHARE = 0.01
STREAM_BATCHES = 200
STREAM_SHARE = "genuine_2pct"
REQUEST_SEED = 5
WHOLE_ROWS = 4
"""Users (or items) of each kind in a request for whole ones: so many of the most active, so many of the least."""


@dataclass(frozen=True)
class Split:
    """A data set as an experiment sees it.

    Shapes: `train` is what models learn from; `validation` (2, k) int32 decides when they stop and which settings are
    taken; `test` is for measurements and is seen by nothing that chooses. `known` is train and validation together.
    """

    name: str
    train: InteractionGraph
    validation: Tensor
    test: InteractionGraph

    @classmethod
    def of(cls, dataset: Dataset, seed: int = 0) -> Split:
        """Carves `VALIDATION_SHARE` of the training pairs out for validation."""
        sizes = (len(dataset.users), len(dataset.items))
        full = InteractionGraph(*sizes, torch.from_numpy(dataset.train.T.copy()))
        test = InteractionGraph(*sizes, torch.from_numpy(dataset.test.T.copy()))
        train, validation = split_validation(full, VALIDATION_SHARE, seed)
        return cls(dataset.name, train, validation, test)

    @cached_property
    def known(self) -> InteractionGraph:
        """Everything that a ranking masks."""
        edges = torch.cat((self.train.edges, self.validation.int()), dim=1)
        return InteractionGraph(self.train.n_users, self.train.n_items, edges)


@dataclass(frozen=True)
class Scenario:
    """One request, the graph of the base that must forget it, and the names under which models of both are kept.

    `base_key` names models of `trained_on`, `retrain_key` models of what remains; scenarios share what they can.
    """

    protocol: str
    trained_on: InteractionGraph
    edges: Tensor
    """(2, m) int32, all in `trained_on`."""
    base_key: str
    retrain_key: str

    @cached_property
    def remaining(self) -> InteractionGraph:
        """What a retrained model learns from."""
        return self.trained_on.without(self.edges)


def _share(share: float) -> Callable[[InteractionGraph], Tensor]:
    def draw(graph: InteractionGraph) -> Tensor:
        # Prefixes of one permutation: a smaller request is part of every larger one.
        order = torch.randperm(graph.n_edges, generator=Generator().manual_seed(REQUEST_SEED))
        return graph.edges[:, order[: max(round(share * graph.n_edges), 1)].to(graph.device)]

    return draw


def _whole_users(graph: InteractionGraph) -> Tensor:
    return graph.edges_of_users(_extremes(graph.user_degree))


def _whole_items(graph: InteractionGraph) -> Tensor:
    return graph.edges_of_items(_extremes(graph.item_degree))


def _extremes(degree: Tensor) -> Tensor:
    """Rows from the 2 % of highest degree and from the quarter of lowest degree, `WHOLE_ROWS` of each."""
    order = torch.argsort(degree, descending=True, stable=True)
    order = order[degree[order] > 0]
    most, least = order[: max(order.numel() // 50, WHOLE_ROWS)], order[-max(order.numel() // 4, WHOLE_ROWS) :]
    generator = Generator().manual_seed(REQUEST_SEED)
    picks = [
        rows[torch.randperm(rows.numel(), generator=generator)[:WHOLE_ROWS].to(rows.device)] for rows in (most, least)
    ]
    return torch.cat(picks)


GENUINE: Final[dict[str, Callable[[InteractionGraph], Tensor]]] = {
    "genuine_0.1pct": _share(0.001),
    "genuine_0.3pct": _share(0.003),
    "genuine_0.5pct": _share(0.005),
    "genuine_0.75pct": _share(0.0075),
    "genuine_1pct": _share(0.01),
    "genuine_1.5pct": _share(0.015),
    "genuine_2pct": _share(0.02),
    "user": _whole_users,
    "item": _whole_items,
}
"""Requests drawn from the real interactions, by protocol."""

SHARED_RETRAIN: Final[dict[str, str]] = {"single": "genuine_0.1pct", "stream": STREAM_SHARE}
"""Protocols that are measured against the retraining of another one, whose pairs they ask for one by one or batch by
batch. One pair's own effect is far below the noise of a retraining: no number of seeds would show it."""

PROTOCOLS: Final[tuple[str, ...]] = ("adversarial", *GENUINE, *SHARED_RETRAIN)


def scenario(protocol: str, split: Split, clean: Callable[[], Tensor]) -> Scenario:
    """The scenario of a protocol on a data set: the same whatever the backbone, the method and the seed.

    Args:
        protocol: one of `PROTOCOLS`.
        split: the data.
        clean: gives the (n_nodes, d) readout of a LightGCN trained on the clean graph; asked for by `adversarial` only.

    Raises:
        ValueError: no protocol has that name.
    """
    if protocol == "adversarial":
        edges = adversarial_edges(clean(), split.train, ADVERSARIAL_SHARE, seed=0)
        edges = edges[:, ~split.known.contains(edges) & ~split.test.contains(edges)]
        sizes = (split.train.n_users, split.train.n_items)
        attacked = InteractionGraph(*sizes, torch.cat((split.train.edges, edges), dim=1))
        return Scenario(protocol, attacked, attacked.common(edges), "adversarial", "clean")
    drawn = SHARED_RETRAIN.get(protocol, protocol)
    if drawn not in GENUINE:
        msg = f"No protocol is called {protocol!r}; known are {', '.join(PROTOCOLS)}."
        raise ValueError(msg)
    return Scenario(protocol, split.train, GENUINE[drawn](split.train), "clean", f"without-{drawn}")
