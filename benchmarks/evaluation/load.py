"""Reads the cells of an experiment and groups them over seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from benchmarks.evaluation.names import BACKBONES, DATASETS, PROTOCOLS, REFERENCES, place, place_of

Cell = Mapping[str, Any]
Read = Callable[[Cell], float | None]

CELL_KEYS: Final = ("dataset", "backbone", "method", "protocol", "seed", "device")
NO_BACKBONE: Final = "none"


@dataclass(frozen=True)
class Stat:
    """A figure over seeds; `mean` is None where no seed has it, `sd` where fewer than two have."""

    mean: float | None
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Stat:
        """Mean and sample standard deviation of what is there; None and what is not finite is left out."""
        there = [float(value) for value in values if value is not None and math.isfinite(value)]
        mean = statistics.fmean(there) if there else None
        return cls(mean, statistics.stdev(there) if len(there) > 1 else None, len(there))

    def row(self) -> dict[str, float | None]:
        """As the summary has it."""
        return {"mean": self.mean, "sd": self.sd}


NOTHING: Final = Stat(None, None, 0)


def at(path: str) -> Read:
    """Reads a figure of a cell by its dotted path; what is missing, null or not a number is None."""
    parts = path.split(".")

    def read(cell: Cell) -> float | None:
        value: Any = cell
        for part in parts:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    return read


def ratio(above: str, below: str) -> Read:
    """One figure of a cell over another; None where either is missing or the second is zero."""
    upper, lower = at(above), at(below)

    def read(cell: Cell) -> float | None:
        one, other = upper(cell), lower(cell)
        return None if one is None or not other else one / other

    return read


@dataclass(frozen=True)
class Block:
    """All methods on one data set, backbone, protocol and device: what may be compared with each other."""

    dataset: str
    backbone: str
    protocol: str
    device: str
    methods: Mapping[str, tuple[Cell, ...]]
    """Cells by method, in the order of the page, of ascending seed; references of the data set are among them."""

    def stat(self, method: str, read: Read) -> Stat:
        """A figure of a method over its seeds."""
        return Stat.of(read(cell) for cell in self.methods.get(method, ()))

    def over_retrain(self, method: str, read: Read) -> float | None:
        """Mean of a method over the mean of Retrain."""
        mine, reference = self.stat(method, read).mean, self.stat("retrain", read).mean
        return None if mine is None or not reference else mine / reference

    def minus_retrain(self, method: str, read: Read) -> float | None:
        """Mean of a method minus the mean of Retrain."""
        mine, reference = self.stat(method, read).mean, self.stat("retrain", read).mean
        return None if mine is None or reference is None else mine - reference

    def in_retrain_sds(self, method: str, read: Read) -> float | None:
        """`minus_retrain` in standard deviations of the retrain seeds; None with fewer than two of them."""
        gap, spread = self.minus_retrain(method, read), self.stat("retrain", read).sd
        return None if gap is None or not spread else gap / spread

    @property
    def unlearners(self) -> tuple[str, ...]:
        """Methods that start from the base: all but retraining, doing nothing and other recommenders."""
        return tuple(name for name in self.methods if name not in {"retrain", "none", *REFERENCES})


@dataclass(frozen=True)
class Results:
    """Every cell that was found."""

    cells: tuple[Cell, ...]

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """In the order of the page. Without graph cells of its own a data set's references make no block."""
        keys = {_block_key(cell) for cell in self.cells if cell["backbone"] != NO_BACKBONE}
        return tuple(self._block(*key) for key in sorted(keys, key=_place))

    def block(self, dataset: str, backbone: str, protocol: str, device: str | None = None) -> Block | None:
        """The block of this name; of several devices the one with the most cells, unless one is named."""
        found = [
            block
            for block in self.blocks
            if (block.dataset, block.backbone, block.protocol) == (dataset, backbone, protocol)
            and device in (None, block.device)
        ]
        return max(found, key=lambda block: sum(map(len, block.methods.values())), default=None)

    @cached_property
    def groups(self) -> tuple[tuple[Cell, ...], ...]:
        """Cells that differ in the seed only, each group once, in the order of the page."""
        found: dict[tuple[str, ...], list[Cell]] = {}
        for cell in self.cells:
            found.setdefault((*_block_key(cell), cell["method"]), []).append(cell)
        order = sorted(found, key=lambda key: (*_place(key[:4]), place_of(key[4])))
        return tuple(tuple(found[key]) for key in order)

    def _block(self, dataset: str, backbone: str, protocol: str, device: str) -> Block:
        methods: dict[str, tuple[Cell, ...]] = {}
        for group in self.groups:
            first = group[0]
            if (first["dataset"], first["protocol"]) != (dataset, protocol) or first["device"] != device:
                continue
            if first["backbone"] in (backbone, NO_BACKBONE):
                methods.setdefault(first["method"], group)
        return Block(
            dataset, backbone, protocol, device, {name: methods[name] for name in sorted(methods, key=place_of)}
        )


def load(folder: Path) -> Results:
    """Reads every cell below a folder.

    Args:
        folder: holds <dataset>/<backbone>/<protocol>/<method>-<seed>.json; one that is not there holds no cells.

    Raises:
        ValueError: a file is no JSON or lacks one of `CELL_KEYS`; says which file and which key.
    """
    cells = [_read(path) for path in sorted(folder.glob("*/*/*/*.json"))]
    return Results(tuple(sorted(cells, key=lambda cell: (*_block_key(cell), cell["method"], cell["seed"]))))


def _read(path: Path) -> Cell:
    try:
        cell: Cell = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        msg = f"{path} is no JSON ({error}); delete it and measure the cell again."
        raise ValueError(msg) from error
    missing = [key for key in CELL_KEYS if key not in cell]
    if missing:
        msg = f"{path} lacks {', '.join(missing)}; delete it and measure the cell again."
        raise ValueError(msg)
    return cell


def _block_key(cell: Cell) -> tuple[str, str, str, str]:
    return str(cell["dataset"]), str(cell["backbone"]), str(cell["protocol"]), str(cell["device"])


def _place(key: tuple[str, ...]) -> tuple[Any, ...]:
    dataset, backbone, protocol, device = key
    return place(dataset, DATASETS), place(backbone, BACKBONES), place(protocol, PROTOCOLS), device
