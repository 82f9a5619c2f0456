"""Tensors searched by what they mean: keys, pairs of keys, vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.residue.expected_absence import ExpectedAbsence
from service.residue.model_files import Tensors
from service.residue.report import NeedleKind
from service.residue.vectors import VectorRows

Keys = NDArray[np.int64]


class TensorFinding(NamedTuple):
    """What a tensor holds that ought to be gone; `spelling` tells how a vector is there."""

    tensor: str
    kind: NeedleKind
    n: int
    erasures: set[str]
    spelling: str | None = None


def search_tensors(
    tensors: Tensors, keys: tuple[Keys, Keys] | None, expected: ExpectedAbsence, rows: VectorRows
) -> Iterator[TensorFinding]:
    """What is left in the tensors of one file.

    Args:
        tensors: of the file.
        keys: of users and items, row by row, where the file's rows belong to them; None: not known.
        expected: what ought to be gone.
        rows: vectors that ought to be gone.
    """
    for name, gone in (("user_keys", expected.users), ("item_keys", expected.items)):
        if name in tensors:
            yield from _keys(name, tensors[name], gone)
    user_keys, item_keys = (tensors.get(name) for name in ("user_keys", "item_keys"))
    own = (user_keys, item_keys) if user_keys is not None and item_keys is not None else keys
    for name, array in tensors.items():
        if own is not None and array.ndim == 2 and array.shape[0] == 2 and array.dtype.kind in "iu":
            yield from _edges(name, array, own, expected.pairs)
        if array.ndim == 2 and array.dtype.kind == "f":
            yield from _rows(name, array, rows)


def _keys(name: str, array: NDArray[Any], gone: Mapping[int, set[str]]) -> Iterator[TensorFinding]:
    wanted = np.fromiter(gone, np.int64, len(gone))
    found = array.reshape(-1)[np.isin(array.reshape(-1), wanted)] if len(wanted) else wanted
    if len(found):
        yield TensorFinding(name, NeedleKind.KEY, len(found), _owners(gone[int(key)] for key in found))


def _edges(
    name: str, edges: NDArray[Any], keys: tuple[Keys, Keys], pairs: Mapping[tuple[int, int], set[str]]
) -> Iterator[TensorFinding]:
    """`edges` (2, n): rows of users and of items, each from 0."""
    user_rows, item_rows = ({int(key): row for row, key in enumerate(of)} for of in keys) if pairs else ({}, {})
    width = len(keys[1])
    wanted = {
        user_rows[user] * width + item_rows[item]: owners
        for (user, item), owners in pairs.items()
        if user in user_rows and item in item_rows
    }
    if wanted:
        codes = edges[0].astype(np.int64) * width + edges[1]
        found = codes[np.isin(codes, np.fromiter(wanted, np.int64, len(wanted)))]
        if len(found):
            yield TensorFinding(name, NeedleKind.EDGE, len(found), _owners(wanted[int(code)] for code in found))


def _rows(name: str, matrix: NDArray[Any], rows: VectorRows) -> Iterator[TensorFinding]:
    for data, numbers, exact in rows.near(matrix):
        spelling = "exact" if exact else "rounded"
        yield TensorFinding(name, NeedleKind.ROW, len(numbers), rows.owners(data), spelling)


def _owners(sets: Iterable[set[str]]) -> set[str]:
    return set[str]().union(*sets)
