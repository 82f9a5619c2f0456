"""What is to be forgotten, in surrogate keys: the targets of all erasures since a base, kept as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from service.unlearning.request import Mode
from service.worker.repository.queue import TargetRow

Keys = NDArray[np.int64]


def _none() -> Keys:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class TargetKeys:
    """Targets of one mode. Shapes: `pairs` (2, n) user and item keys; `users` (k,); `items` (l,); all int64."""

    pairs: Keys = field(default_factory=lambda: np.empty((2, 0), dtype=np.int64))
    users: Keys = field(default_factory=_none)
    items: Keys = field(default_factory=_none)

    @classmethod
    def of(cls, rows: Iterable[TargetRow]) -> TargetKeys:
        """Gather targets; one whose id was not known when it was accepted names nothing that a model has learnt."""
        pairs, users, items = [], [], []
        for row in rows:
            if row.kind == "interaction" and row.user_key is not None and row.item_key is not None:
                pairs.append((row.user_key, row.item_key))
            elif row.kind == "user" and row.user_key is not None:
                users.append(row.user_key)
            elif row.kind == "item" and row.item_key is not None:
                items.append(row.item_key)
        return cls(_array(pairs).reshape(-1, 2).T, _array(users), _array(items))

    def __add__(self, other: TargetKeys) -> TargetKeys:
        return TargetKeys(
            np.concatenate((self.pairs, other.pairs), axis=1),
            np.concatenate((self.users, other.users)),
            np.concatenate((self.items, other.items)),
        )


@dataclass(frozen=True)
class TargetsByMode:
    """Targets of both modes."""

    by_mode: Mapping[Mode, TargetKeys] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[TargetRow]) -> TargetsByMode:
        """Gather targets by the mode of their erasure."""
        gathered: dict[str, list[TargetRow]] = {mode: [] for mode in get_args(Mode)}
        for row in rows:
            gathered[row.mode].append(row)
        return cls({mode: TargetKeys.of(gathered[mode]) for mode in get_args(Mode)})

    def of_mode(self, mode: Mode) -> TargetKeys:
        """The targets of one mode."""
        return self.by_mode.get(mode) or TargetKeys()

    def last_pairs(self, count: int) -> TargetsByMode:
        """The `count` pairs of each mode that were added last, without whole users and items."""
        return TargetsByMode({mode: TargetKeys(self.of_mode(mode).pairs[:, -count:]) for mode in get_args(Mode)})

    def __add__(self, other: TargetsByMode) -> TargetsByMode:
        return TargetsByMode({mode: self.of_mode(mode) + other.of_mode(mode) for mode in get_args(Mode)})


@dataclass
class ForgetSet:
    """Everything that has been forgotten since a base was trained: the D of the design, less the batch at hand.

    Valid while this worker holds the lease, as nobody else settles then.

    `ids` and `targets` in the order of settling; `seq` the highest of them, or what the base covers.
    """

    targets: TargetsByMode
    ids: list[str]
    seq: int

    def extend(self, targets: TargetsByMode, ids: Iterable[str], seq: int) -> None:
        """Add a settled batch."""
        self.targets = self.targets + targets
        self.ids.extend(ids)
        self.seq = max(self.seq, seq)


def _array(values: list[Any]) -> Keys:
    return np.array(values, dtype=np.int64)
