"""What is to be forgotten, in rows of the base's graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.unlearning.state import TrainedState

Mode = Literal["forget", "dislike"]
MODES: tuple[Mode, ...] = ("forget", "dislike")


@dataclass(frozen=True)
class UnlearningRequest:
    """Everything accepted for erasure since the base was trained.

    `forget`: as if it had never happened. `dislike`: the person also wants less of it. An interaction asked for in
    both modes counts as `dislike`.

    Shapes: `forget` and `dislike` (2, m) int32, disjoint, each sorted and unique, all in the base's graph; `held_out`
    (2, k) int32, those of the base's validation part: no model has learnt them, they leave the measurements only.
    """

    forget: Tensor
    dislike: Tensor
    held_out: Tensor

    @classmethod
    def of(cls, state: TrainedState, forget: Tensor | None = None, dislike: Tensor | None = None) -> UnlearningRequest:
        """A request from any (2, n) edges: those that the base never saw are passed over, repeats merged."""
        graph = state.graph
        none = graph.edges[:, :0]
        forgotten = none if forget is None else forget.to(graph.device).int()
        disliked = none if dislike is None else dislike.to(graph.device).int()
        held_out = InteractionGraph(graph.n_users, graph.n_items, state.validation)
        asked_held_out = held_out.common(torch.cat((forgotten, disliked), dim=1))
        forgotten, disliked = graph.common(forgotten), graph.common(disliked)
        if disliked.shape[1] and forgotten.shape[1]:
            both = InteractionGraph(graph.n_users, graph.n_items, disliked)
            forgotten = forgotten[:, ~both.contains(forgotten)]
        return cls(forgotten, disliked, asked_held_out)

    @property
    def edges(self) -> Tensor:
        """(2, m) all learnt edges, of both modes."""
        return torch.cat((self.forget, self.dislike), dim=1)

    @property
    def n_edges(self) -> int:
        """Learnt interactions to be forgotten."""
        return self.forget.shape[1] + self.dislike.shape[1]

    def of_mode(self, mode: Mode) -> Tensor:
        """(2, m) the edges asked for in this mode."""
        return self.forget if mode == "forget" else self.dislike
