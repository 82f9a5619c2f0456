"""A trained base, as the unlearning methods see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from service.recommender.backbones import Backbone
from service.recommender.graph import InteractionGraph


@dataclass(frozen=True)
class TrainedState:
    """A base: what it learnt from and what it learnt.

    Shapes: `validation` (2, k) int32 edges that were held out of `graph`; `e0` (n_nodes, d) float32, users first.
    """

    graph: InteractionGraph
    validation: Tensor
    e0: Tensor
    backbone: Backbone

    @cached_property
    def readout(self) -> Tensor:
        """(n_nodes, d) embeddings that the base serves; rows without an interaction are zero."""
        with torch.no_grad():
            return zero_isolated(self.backbone.propagate(self.e0, self.graph), self.graph)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of `base.safetensors`, on the CPU: e0, edges, validation."""
        return {
            "e0": self.e0.detach().cpu().contiguous(),
            "edges": self.graph.edges.cpu().contiguous(),
            "validation": self.validation.int().cpu().contiguous(),
        }

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, Tensor],
        n_users: int,
        backbone: Backbone,
        device: torch.device | None = None,
    ) -> TrainedState:
        """The base that `tensors` described; n_users separates user rows from item rows."""
        e0 = tensors["e0"].to(device)
        graph = InteractionGraph(n_users, e0.shape[0] - n_users, tensors["edges"]).to(e0.device)
        return cls(graph, tensors["validation"].to(e0.device), e0, backbone)

    def to(self, device: torch.device) -> TrainedState:
        """The same base on another device."""
        return TrainedState(self.graph.to(device), self.validation.to(device), self.e0.to(device), self.backbone)

    def facts(self) -> dict[str, Any]:
        """Counts and options for a manifest."""
        return {
            "backbone": self.backbone.config(),
            "n_users": self.graph.n_users,
            "n_items": self.graph.n_items,
            "n_edges": self.graph.n_edges,
            "n_validation": self.validation.shape[1],
            "embedding_size": self.e0.shape[1],
        }


def zero_isolated(rows: Tensor, graph: InteractionGraph) -> Tensor:
    """Rows of nodes that have no interaction set to zero, the others as they are.

    Layer 0 of such a row still encodes the taste that was erased, so it may neither serve nor be kept.
    """
    isolated = torch.nonzero(graph.degree == 0).flatten()
    return rows.index_fill(0, isolated, 0.0) if isolated.numel() else rows
