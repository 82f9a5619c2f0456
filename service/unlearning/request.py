"""What is to be forgotten, in rows of the base's graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph

Mode = Literal["forget", "dislike"]


@dataclass(frozen=True)
class Request:
    """Everything accepted for erasure since the base was trained.

    `forget`: as if it had never happened. `dislike`: the person also wants less of it. An interaction asked for in
    both modes counts as `dislike`.

    Shapes: `forget` and `dislike` (2, m) int32, disjoint, each sorted and unique, all in the base's graph.
    """

    forget: Tensor
    dislike: Tensor

    @classmethod
    def of(cls, graph: InteractionGraph, forget: Tensor | None = None, dislike: Tensor | None = None) -> Request:
        """A request from any edges: those that the graph does not hold are passed over, repeats merged."""
        none = graph.edges[:, :0]
        disliked = none if dislike is None else graph.common(dislike.to(graph.device))
        forgotten = none if forget is None else graph.common(forget.to(graph.device))
        if disliked.shape[1] and forgotten.shape[1]:
            both = InteractionGraph(graph.n_users, graph.n_items, disliked)
            forgotten = forgotten[:, ~both.contains(forgotten)]
        return cls(forgotten, disliked)

    @property
    def edges(self) -> Tensor:
        """(2, m) all edges, of both modes."""
        return torch.cat((self.forget, self.dislike), dim=1)

    @property
    def n_edges(self) -> int:
        """Interactions to be forgotten."""
        return self.forget.shape[1] + self.dislike.shape[1]

    def of_mode(self, mode: Mode) -> Tensor:
        """(2, m) the edges asked for in this mode."""
        return self.forget if mode == "forget" else self.dislike
