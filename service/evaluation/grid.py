"""A grid of experiments: which data, backbones, methods, protocols and seeds, read from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Final

from service.evaluation.protocols import PROTOCOLS
from service.recommender.backbones import Backbone, make_backbone
from service.recommender.training import TrainingConfig

BACKBONES: Final = ("lightgcn", "sgl", "simgcl")
NO_BACKBONE: Final = "none"
"""Where the cells of methods that use no backbone are kept; their base is the one of the first of `BACKBONES`."""
DEFAULT: Final = "default"
"""The recipes of every data set that has none of its own."""

_TOP: Final = ("name", "retrain_seeds", "recipes", "cells")
_AXES: Final = ("datasets", "backbones", "methods", "protocols", "seeds")
_RECIPE: Final = ("backbone", "training")
_TRAINING: Final = tuple(field.name for field in fields(TrainingConfig) if field.name != "seed")


class GridError(ValueError):
    """A grid that cannot be run; the text says in a sentence what is wrong and what is known."""


@dataclass(frozen=True, order=True)
class CellKey:
    """One cell: what is measured in one go and kept in one file."""

    dataset: str
    backbone: str
    method: str
    protocol: str
    seed: int

    @property
    def path(self) -> Path:
        """Where it is kept, below the folder of results."""
        return Path(self.dataset, self.backbone, self.protocol, f"{self.method}-{self.seed}.json")

    def __str__(self) -> str:
        return f"{self.dataset} {self.backbone} {self.protocol} {self.method} seed {self.seed}"


@dataclass(frozen=True)
class Recipe:
    """How a backbone is built and trained on a data set."""

    backbone: Backbone
    training: TrainingConfig


@dataclass(frozen=True)
class Grid:
    """What is to be measured.

    `retrain_seeds`: every cell is compared with the retrained models of these seeds, whichever seeds the grid names.
    """

    name: str
    recipes: Mapping[str, Mapping[str, Recipe]]
    """By data set, or `default`, and backbone."""
    cells: tuple[CellKey, ...]
    """In the order in which they are measured, each once."""
    retrain_seeds: tuple[int, ...]

    @classmethod
    def read(cls, path: Path, methods: Collection[str], references: Collection[str] = ()) -> Grid:
        """Reads a file; see `of`."""
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            msg = f"{path.name} is no TOML: {error}."
            raise GridError(msg) from error
        return cls.of({"name": path.stem, **document}, methods, references)

    @classmethod
    def of(cls, document: Mapping[str, Any], methods: Collection[str], references: Collection[str] = ()) -> Grid:
        """The grid that a document describes.

        Args:
            document: optional `name` and `retrain_seeds`; `recipes.<dataset>.<backbone>` with the tables `backbone`
                (its options) and `training` (fields of `TrainingConfig`); `cells`, a list of tables of lists
                `datasets`, `backbones`, `methods`, `protocols`, `seeds`, each of which stands for their product.
            methods: the names that are known.
            references: those of them that use no backbone: once for all backbones.

        Raises:
            GridError: a key or a name that is not known, a value of the wrong kind, or a recipe that is missing.
        """
        _only(document, _TOP, "The grid")
        recipes = {
            dataset: {name: _recipe(f"{dataset}.{name}", name, table) for name, table in _table(named, dataset).items()}
            for dataset, named in _table(document.get("recipes", {}), "recipes").items()
        }
        blocks = document.get("cells", [])
        if not isinstance(blocks, list) or not blocks:
            msg = "The grid names no cells; add a [[cells]] table."
            raise GridError(msg)
        keys = {key for block in blocks for key in _cells(_table(block, "cells"), methods, references)}
        grid = cls(
            str(document.get("name", "grid")),
            recipes,
            tuple(sorted(keys, key=_order)),
            tuple(_integers(document.get("retrain_seeds", [0, 1, 2]), "retrain_seeds")),
        )
        for dataset, backbone in {(key.dataset, key.backbone) for key in grid.cells}:
            grid.recipe(dataset, backbone)
        return grid

    def recipe(self, dataset: str, backbone: str) -> Recipe:
        """How this backbone is trained on this data set.

        Raises:
            GridError: neither the data set nor `default` has a recipe for it.
        """
        name = BACKBONES[0] if backbone == NO_BACKBONE else backbone
        for where in (dataset, DEFAULT):
            if name in self.recipes.get(where, {}):
                return self.recipes[where][name]
        msg = f"The grid has no recipe for {name} on {dataset}; add [recipes.{dataset}.{name}]."
        raise GridError(msg)

    def only(self, **chosen: Collection[str]) -> Grid:
        """The same grid with those cells alone whose fields are among the given ones; no values stand for all.

        Raises:
            GridError: a field that cells do not have.
        """
        _only(chosen, tuple(field.name for field in fields(CellKey)), "A filter")
        kept = tuple(
            key
            for key in self.cells
            if all(not values or str(getattr(key, name)) in values for name, values in chosen.items())
        )
        return replace(self, cells=kept)


def _order(key: CellKey) -> tuple[Any, ...]:
    # What one method prepares for one base serves all protocols on it; those on the clean base stand together.
    return (key.dataset, key.backbone, key.seed, key.method, PROTOCOLS.index(key.protocol))


def _recipe(where: str, name: str, table: Any) -> Recipe:
    table = _table(table, where)
    _known(name, BACKBONES, "backbone")
    _only(table, _RECIPE, f"The recipe {where}")
    training = _table(table.get("training", {}), f"{where}.training")
    _only(training, _TRAINING, f"The training of {where}")
    try:
        return Recipe(
            make_backbone({"name": name, **_table(table.get("backbone", {}), f"{where}.backbone")}),
            TrainingConfig(**training),
        )
    except (ValueError, TypeError) as error:
        msg = f"The recipe {where} cannot be used: {error}"
        raise GridError(msg) from error


def _cells(block: Mapping[str, Any], methods: Collection[str], references: Collection[str]) -> Iterator[CellKey]:
    _only(block, _AXES, "A [[cells]] table")
    missing = [axis for axis in _AXES if axis not in block]
    if missing:
        msg = f"A [[cells]] table lacks {missing[0]}; it takes {', '.join(_AXES)}."
        raise GridError(msg)
    datasets, backbones, names, protocols = (_strings(block[axis], axis) for axis in _AXES[:4])
    for values, known, what in (
        (backbones, BACKBONES, "backbone"),
        (names, methods, "method"),
        (protocols, PROTOCOLS, "protocol"),
    ):
        for value in values:
            _known(value, known, what)
    for dataset, backbone, method, protocol, seed in product(
        datasets, backbones, names, protocols, _integers(block["seeds"], "seeds")
    ):
        yield CellKey(dataset, NO_BACKBONE if method in references else backbone, method, protocol, seed)


def _known(name: str, known: Collection[str], what: str) -> None:
    if name not in known:
        msg = f"No {what} is called {name!r}; known are {', '.join(known)}."
        raise GridError(msg)


def _only(table: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    known = tuple(known)
    for key in table:
        if key not in known:
            msg = f"{what} has no key {key!r}; known are {', '.join(known)}."
            raise GridError(msg)


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        msg = f"{where} of the grid must be a table."
        raise GridError(msg)
    return value


def _strings(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(entry, str) and entry for entry in value):
        msg = f"{where} of a [[cells]] table must be a list of names."
        raise GridError(msg)
    return value


def _integers(value: Any, where: str) -> list[int]:
    if not isinstance(value, list) or not value or not all(type(entry) is int and entry >= 0 for entry in value):
        msg = f"{where} of the grid must be a list of whole numbers from 0 on."
        raise GridError(msg)
    return value
