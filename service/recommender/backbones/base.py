"""What every graph backbone offers."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from service.recommender.graph import InteractionGraph


@dataclass(frozen=True)
class Triples:
    """A batch of BPR samples: user u prefers item i to item j.

    Shapes: users, positives, negatives (b,) integer rows; items are item rows, not node rows. `seed` decides the
    stochastic views of a backbone that has some: the same batch gives the same loss.
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor
    seed: int = 0


@runtime_checkable
class Backbone(Protocol):
    """A recommender with a linear readout: scores are y_ui = <ebar_u, ebar_i>, ebar = P_S E0.

    The only parameters are E0, (n_users + n_items, d) float32, users first.
    """

    @property
    def name(self) -> str:
        """What entry points, configurations and results call it."""
        ...

    def propagate(self, e0: Tensor, graph: InteractionGraph) -> Tensor:
        """The readout P_S E0, (n_nodes, d), differentiable in e0."""
        ...

    def loss(self, e0: Tensor, graph: InteractionGraph, batch: Triples, readout: Tensor | None = None) -> Tensor:
        """The full training loss of a batch, a scalar; `readout` where the caller has propagated already."""
        ...

    def config(self) -> dict[str, Any]:
        """What `make_backbone` needs to build the same backbone again; plain JSON values."""
        ...
