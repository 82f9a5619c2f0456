"""What every graph backbone offers, and how one is found by its name."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol, cast, runtime_checkable

from torch import Tensor

from service.recommender.graph import InteractionGraph


@dataclass(frozen=True)
class Triples:
    """A batch of BPR samples: user u prefers item i to item j.

    Shapes: users, positives, negatives (b,) integer rows; items are item rows, not node rows.
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor


@runtime_checkable
class Backbone(Protocol):
    """A recommender with a linear readout: scores are y_ui = <ebar_u, ebar_i>, ebar = P_S E0.

    The only parameters are E0, (n_users + n_items, d) float32, users first.
    """

    name: str

    def propagate(self, e0: Tensor, graph: InteractionGraph) -> Tensor:
        """The readout P_S E0, (n_nodes, d), differentiable in e0."""
        ...

    def loss(self, e0: Tensor, graph: InteractionGraph, batch: Triples, readout: Tensor | None = None) -> Tensor:
        """The full training loss of a batch, a scalar; `readout` where the caller has propagated already."""
        ...

    def config(self) -> dict[str, Any]:
        """What `make_backbone` needs to build the same backbone again; plain JSON values."""
        ...


def make_backbone(config: Mapping[str, Any]) -> Backbone:
    """Builds the backbone that `Backbone.config` described.

    Args:
        config: `{"name": ..., **options}`; names are those of the entry points in group `expunge.backbones`.

    Raises:
        ValueError: no backbone has that name, or it does not know an option.
    """
    options = dict(config)
    name = options.pop("name", None)
    known = {entry.name: entry for entry in entry_points(group="expunge.backbones")}
    if name not in known:
        msg = f"No backbone is called {name!r}; known are {', '.join(sorted(known)) or 'none'}."
        raise ValueError(msg)
    try:
        return cast("Backbone", known[name].load()(**options))
    except TypeError as error:
        msg = f"Backbone {name!r} refuses its options: {error}."
        raise ValueError(msg) from error
