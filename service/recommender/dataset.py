"""A data set as the learning code sees it: two vocabularies and arrays of rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int32]


@dataclass(frozen=True)
class Vocabulary:
    """The two-way map between string ids and rows 0, 1, 2, ... (int32); the order of the ids is that of the rows."""

    ids: tuple[str, ...]

    @classmethod
    def of(cls, ids: Iterable[str]) -> Vocabulary:
        """The vocabulary of these ids, each once, ordered by code point: the order in which they came has no effect."""
        return cls(tuple(sorted(set(ids))))

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Row of each id."""
        return {id: row for row, id in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, id: object) -> bool:
        return id in self.rows

    def row(self, id: str) -> int:
        """The row of an id; raises KeyError."""
        return self.rows[id]


@dataclass(frozen=True)
class DatasetCounts:
    """What reading a data set found and kept out; every figure is a number of rows of the files or of pairs, >= 0."""

    train_rows: int = 0
    test_rows: int = 0
    train_duplicates: int = 0
    """Rows of train whose pair was there already; merged."""
    test_duplicates: int = 0
    """Rows of test whose pair was there already; merged."""
    test_unknown: int = 0
    """Distinct test pairs whose user or item occurs in test only; kept out, no model can rank them."""
    test_unknown_users: int = 0
    """Users that occur in test only."""
    test_unknown_items: int = 0
    """Items that occur in test only."""
    test_overlap: int = 0
    """Distinct test pairs that are in train too; kept out, a seen item is never recommended."""
    train_below_rating: int = 0
    """Rows of train whose rating is missing or below the threshold that was asked for; kept out, not in train_rows."""
    test_below_rating: int = 0
    """The same of test."""


@dataclass(frozen=True)
class Dataset:
    """Implicit feedback, split into train and test.

    Shapes: `train` (m, 2) and `test` (k, 2) int32 rows [user, item], each sorted and unique; every user and item of the
    vocabularies has at least one train pair; test pairs are known to both vocabularies and not in train. `titles`: item
    id -> title, also of items without interactions.
    """

    name: str
    users: Vocabulary
    items: Vocabulary
    train: Rows
    test: Rows
    titles: Mapping[str, str] = field(default_factory=dict)
    counts: DatasetCounts = field(default_factory=DatasetCounts)
