"""Vectors of subjects: read out of the versions that are to be purged, found again exactly or nearly in any matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.residue.model_files import ModelFolder, Tensors, model_folders

Floats = NDArray[np.float32]
Owners = Mapping[int, set[str]]

NEAR = 1e-3
"""How far a component may be off: what was rounded to three decimals, or kept in 16 bits, is found."""
_FLAT = 10 * NEAR
"""A vector with no component beyond it is like any other small one: it is looked for exactly."""


@dataclass
class VectorRows:
    """Distinct float32 vectors by their width, each with the erasures that it belongs to."""

    by_width: dict[int, dict[bytes, set[str]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.by_width.values()))

    def __iter__(self) -> Iterator[tuple[Floats, set[str]]]:
        for rows in self.by_width.values():
            for data, owners in rows.items():
                yield np.frombuffer(data, np.float32), owners

    def add(self, row: NDArray[Any], owners: set[str]) -> None:
        """Look for a vector (d,); one of zeros belongs to nobody."""
        if row.any():
            data = np.ascontiguousarray(row, np.float32).tobytes()
            self.by_width.setdefault(row.size, {}).setdefault(data, set()).update(owners)

    def near(self, matrix: NDArray[Any]) -> Iterator[tuple[bytes, NDArray[np.int64], bool]]:
        """For each vector that rows of a matrix (n, d) equal nearly: its bytes, their numbers, whether one is exact."""
        known = self.by_width.get(matrix.shape[1])
        if not known or not len(matrix):
            return
        order = np.argsort(matrix[:, 0], kind="stable")
        first = matrix[order, 0].astype(np.float64)
        wanted = np.frombuffer(b"".join(known), np.float32).reshape(len(known), -1)
        slack = NEAR * 1.0001
        low = np.searchsorted(first, wanted[:, 0].astype(np.float64) - slack, "left")
        high = np.searchsorted(first, wanted[:, 0].astype(np.float64) + slack, "right")
        for number, data in enumerate(known):
            candidates = order[low[number] : high[number]]
            if candidates.size:
                row = wanted[number]
                differences = np.abs(matrix[candidates].astype(np.float64) - row)
                exact = (differences == 0).all(1)
                found = exact if np.abs(row).max() <= _FLAT else (differences <= slack).all(1)
                if found.any():
                    yield data, candidates[found].astype(np.int64), bool(exact.any())

    def owners(self, data: bytes) -> set[str]:
        """The erasures of a vector."""
        return self.by_width[len(data) // 4][data]

    def without_near(self, matrix: NDArray[Any]) -> None:
        """Look no more for what a matrix holds that stays."""
        for data, _, _ in list(self.near(matrix)):
            del self.by_width[matrix.shape[1]][data]

    def page(self) -> list[Any]:
        """As plain values."""
        return [[data, sorted(owners)] for rows in self.by_width.values() for data, owners in rows.items()]

    @classmethod
    def from_page(cls, page: list[Any]) -> VectorRows:
        """What `page` gave."""
        found = cls()
        for data, owners in page:
            found.add(np.frombuffer(data, np.float32), set(owners))
        return found


def gather_rows(root: Path, base: int | None, users: Owners, items: Owners) -> VectorRows:
    """The vectors of these users and items (by key) in every version and encoder of a base older than `base`.

    What those of `base` and of newer ones hold as well is legitimate: they were trained without the erased. A file that
    cannot be read holds no vector for us; its bytes are searched all the same.
    """
    found = VectorRows()
    folders = list(model_folders(root))
    for folder in folders:
        if folder.is_older_than(base):
            for matrix, rows_of in _matrices(folder):
                for row, owners in rows_of(users, items):
                    found.add(matrix[row], owners)
    for folder in folders:
        if not folder.is_older_than(base):
            for tensors in folder.files():
                for matrix in matrices(tensors):
                    found.without_near(matrix)
    return found


def matrices(tensors: Tensors) -> Iterator[NDArray[Any]]:
    """The matrices of floats among tensors."""
    for array in tensors.values():
        if array.ndim == 2 and array.dtype.kind == "f":
            yield array


class _RowsOf:
    """Finds the rows of subjects in a matrix whose rows belong to ascending keys, users first where both are in it."""

    def __init__(self, user_keys: NDArray[np.int64] | None, item_keys: NDArray[np.int64] | None) -> None:
        self._users, self._items = user_keys, item_keys

    def __call__(self, users: Owners, items: Owners) -> Iterator[tuple[int, set[str]]]:
        shift = 0
        for keys, subjects in ((self._users, users), (self._items, items)):
            if keys is not None:
                places = {int(key): row for row, key in enumerate(keys)} if subjects else {}
                for key, owners in subjects.items():
                    if key in places:
                        yield places[key] + shift, owners
                shift += len(keys)


def _matrices(folder: ModelFolder) -> Iterator[tuple[NDArray[Any], _RowsOf]]:
    keys = folder.keys()
    if keys is None:
        return
    user_keys, item_keys = keys
    for tensors in folder.files():
        for name, array in tensors.items():
            if array.ndim != 2 or array.dtype.kind != "f":
                continue
            if name == "users" and len(array) == len(user_keys):
                yield array, _RowsOf(user_keys, None)
            elif name == "items" and len(array) == len(item_keys):
                yield array, _RowsOf(None, item_keys)
            elif len(array) == len(user_keys) + len(item_keys):
                yield array, _RowsOf(user_keys, item_keys)
