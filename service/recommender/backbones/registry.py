"""How a backbone is found by its name."""

import json
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from inspect import Parameter, signature
from math import isfinite
from typing import Any, Final, cast

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

GROUP: Final = "expunge.backbones"

_PLAIN: Final[dict[type, tuple[tuple[type, ...], str]]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a finite number"),
    str: ((str,), "a text"),
}


class UnknownBackbone(ValueError):
    """No backbone of this name is installed; a base that names it cannot be loaded."""


class BackboneUnavailable(ValueError):
    """A backbone cannot be used: what offers it is broken, or gives something else."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"Backbone {name!r} cannot be used: {why}. Mend its package, or choose another backbone.")


def make_backbone(config: Mapping[str, Any]) -> Backbone:
    """Builds the backbone that `Backbone.config` described.

    Only the one that is asked for is loaded: what is wrong with another package is no matter.

    Args:
        config: `{"name": ..., **options}`; names are the built-in ones and those of
            the entry points in group `expunge.backbones`.

    Raises:
        ValueError: no backbone has that name, or it refuses an option.
        BackboneUnavailable: the package that offers it is broken, or gives something else.
    """
    options = dict(config)
    name = options.pop("name", None)
    make = _maker(name)
    _check_options(str(name), make, options)
    try:
        made = make(**options)
    except (TypeError, ValueError) as error:
        msg = f"Backbone {name!r} refuses its options: {str(error).rstrip('.')}."
        raise ValueError(msg) from error
    except Exception as error:
        raise BackboneUnavailable(str(name), f"making it fails with {_told(error)}") from error
    if name not in _BUILT_IN:
        _check_kind(str(name), made)
    return made


def backbone_names() -> tuple[str, ...]:
    """The names that `make_backbone` knows, sorted: built-in ones and those of installed entry points."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)} | _BUILT_IN.keys()))


def is_built_in(name: str) -> bool:
    """Whether a backbone is one of our own."""
    return name in _BUILT_IN


def _maker(name: object) -> Callable[..., Backbone]:
    if isinstance(name, str) and name in _BUILT_IN:
        return _BUILT_IN[name]
    offered = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    if not offered:
        near = get_close_matches(str(name), backbone_names(), 1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        msg = f"No backbone is called {name!r}; known are {', '.join(backbone_names())}.{guess}"
        raise UnknownBackbone(msg)
    if len({entry.value for entry in offered}) > 1:
        packages = " and ".join(sorted(_package(entry) for entry in offered))
        raise BackboneUnavailable(str(name), f"{packages} both offer one of this name; remove one of them")
    try:
        made = offered[0].load()
    except (Exception, SystemExit) as error:  # whatever the package's own code does when it is imported
        raise BackboneUnavailable(str(name), f"{_package(offered[0])} cannot be loaded: {_told(error)}") from error
    if not callable(made):
        raise BackboneUnavailable(str(name), f"what {_package(offered[0])} offers is no class")
    return cast("Callable[..., Backbone]", made)


def _check_options(name: str, make: Callable[..., Backbone], options: Mapping[str, Any]) -> None:
    """Names and plain types of options, where the signature tells them; raises ValueError."""
    try:
        parameters = signature(make).parameters
    except (TypeError, ValueError):
        return
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for option, value in options.items():
        if option not in parameters:
            near = get_close_matches(option, parameters, 1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            known = ", ".join(parameters) or "none"
            msg = f"Backbone {name!r} refuses its options: it has no {option!r}, only {known}.{guess}"
            raise ValueError(msg)
        wanted = _PLAIN.get(type(parameters[option].default))
        if wanted is not None and (type(value) not in wanted[0] or (isinstance(value, float) and not isfinite(value))):
            msg = f"Backbone {name!r} refuses its options: {option} must be {wanted[1]}, not {value!r}."
            raise ValueError(msg)


def _check_kind(name: str, made: object) -> None:
    if not isinstance(made, Backbone):
        lacking = [part for part in ("name", "propagate", "loss", "config") if not hasattr(made, part)]
        raise BackboneUnavailable(name, f"it gives a {type(made).__name__} without {', '.join(lacking)}")
    try:
        config = made.config()
        known = json.loads(json.dumps(config))["name"]
    except Exception as error:
        raise BackboneUnavailable(name, f"its config() is of no use: {_told(error)}") from error
    if known != name:
        raise BackboneUnavailable(name, f"its config() names it {known!r}, so that no base of it could be loaded again")


def _package(entry: EntryPoint) -> str:
    return "its package" if entry.dist is None else f"the package {entry.dist.name} {entry.dist.version}"


def _told(error: BaseException) -> str:
    text = str(error).strip().split("\n", 1)[0].rstrip(".")
    return f"{type(error).__name__} ({text})" if text else type(error).__name__
