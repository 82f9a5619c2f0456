"""How a backbone is found by its name."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, cast

from service.recommender.backbones.base import Backbone
from service.recommender.backbones.factorisation import MatrixFactorisation
from service.recommender.backbones.lightgcn import LightGCN
from service.recommender.backbones.sgl import SGL
from service.recommender.backbones.simgcl import SimGCL
from service.recommender.backbones.softmax import SoftmaxLightGCN

_BUILT_IN: dict[str, Callable[..., Backbone]] = {
    LightGCN.name: LightGCN,
    MatrixFactorisation.name: MatrixFactorisation,
    SGL.name: SGL,
    SimGCL.name: SimGCL,
    SoftmaxLightGCN.name: SoftmaxLightGCN,
}


def make_backbone(config: Mapping[str, Any]) -> Backbone:
    """Builds the backbone that `Backbone.config` described.

    Args:
        config: `{"name": ..., **options}`; names are the built-in ones and those of
            the entry points in group `expunge.backbones`.

    Raises:
        ValueError: no backbone has that name, or it refuses an option.
    """
    options = dict(config)
    name = options.pop("name", None)
    known = _known()
    if name not in known:
        msg = f"No backbone is called {name!r}; known are {', '.join(sorted(known))}."
        raise ValueError(msg)
    try:
        return known[name](**options)
    except (TypeError, ValueError) as error:
        msg = f"Backbone {name!r} refuses its options: {error}."
        raise ValueError(msg) from error


def backbone_names() -> tuple[str, ...]:
    """The names that `make_backbone` knows, sorted: built-in ones and those of installed entry points."""
    own = {entry.name for entry in entry_points(group="expunge.backbones")}
    return tuple(sorted(own | _BUILT_IN.keys()))


def _known() -> dict[str, Callable[..., Backbone]]:
    own = {entry.name: entry.load for entry in entry_points(group="expunge.backbones")}
    return {name: cast("Callable[..., Backbone]", load()) for name, load in own.items()} | _BUILT_IN
