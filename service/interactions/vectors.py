"""Embeddings that were trained elsewhere, as they stand in a file."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from service.interactions.refusals import DataProblem, shown
from service.platform.ids import check_id

MATRICES = ("users", "items")
IDS = {"users": "user_ids", "items": "item_ids"}
OPTIONS = {"users": "--user-ids", "items": "--item-ids"}


@dataclass(frozen=True)
class Vectors:
    """Rows of users and items by outside id.

    Shapes: `users` (n, d) and `items` (m, d) float32, finite; `user_ids` n and `item_ids` m distinct strings, in the
    order of the rows. `sha256`: hex, of the file of the matrices.
    """

    users: NDArray[np.float32]
    items: NDArray[np.float32]
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    sha256: str


def read_vectors(path: Path, user_ids: Path | None = None, item_ids: Path | None = None) -> Vectors:
    """Read matrices and ids.

    Args:
        path: .npz or .safetensors with the matrices `users` (n, d) and `items` (m, d) of floats, and, unless the other
            files hold them, the ids `user_ids` (n,) and `item_ids` (m,), strings (.npz only) or integers.
        user_ids: a text file with one id a line, in the order of the rows.
        item_ids: the same for items.

    Raises:
        DataProblem: a file that cannot be used; the text says why.
    """
    arrays, sha256 = _arrays(path)
    matrices = [_matrix(path, arrays, name) for name in MATRICES]
    widths = [matrix.shape[1] for matrix in matrices]
    if widths[0] != widths[1]:
        msg = (
            f"{path.name}: users have {widths[0]} columns and items {widths[1]}. "
            "Scores are inner products, so both need the same width."
        )
        raise DataProblem(msg)
    lists = []
    for name, matrix, listed in zip(MATRICES, matrices, (user_ids, item_ids), strict=True):
        ids = _ids(path, arrays, name) if listed is None else _listed(listed)
        _check_ids(path if listed is None else listed, ids, name, len(matrix))
        lists.append(ids)
    return Vectors(matrices[0], matrices[1], lists[0], lists[1], sha256)


def _arrays(path: Path) -> tuple[dict[str, NDArray[np.generic]], str]:
    packed = path.read_bytes()
    try:
        if path.suffix == ".safetensors":
            return dict(load_safetensors(packed)), hashlib.sha256(packed).hexdigest()
        if path.suffix == ".npz":
            with np.load(io.BytesIO(packed), allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}, hashlib.sha256(packed).hexdigest()
    except (SafetensorError, ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        msg = (
            f"{path.name} cannot be read as {path.suffix}: {shown(str(error))}. Write it anew, without pickled objects."
        )
        raise DataProblem(msg) from error
    msg = f"{path.name} is neither .npz nor .safetensors. Save the matrices users and items as one of them."
    raise DataProblem(msg)


def _matrix(path: Path, arrays: dict[str, NDArray[np.generic]], name: str) -> NDArray[np.float32]:
    if name not in arrays:
        found = ", ".join(shown(other) for other in sorted(arrays)) or "nothing"
        msg = f"{path.name} holds no matrix {name}; found: {found}."
        raise DataProblem(msg)
    matrix = arrays[name]
    if matrix.ndim != 2 or not matrix.size or not np.issubdtype(matrix.dtype, np.floating):
        msg = f"{path.name}: {name} is {matrix.dtype} of shape {matrix.shape}; expected floats of shape (rows, width)."
        raise DataProblem(msg)
    # What does not fit float32 becomes infinite, and is refused below with a sentence instead of a warning.
    with np.errstate(over="ignore"):
        plain = np.ascontiguousarray(matrix, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(plain).all(axis=1))
    if len(bad):
        msg = f"{path.name}: {len(bad):,} rows of {name} hold values that are not finite; the first is row {bad[0]}."
        raise DataProblem(msg)
    return plain


def _ids(path: Path, arrays: dict[str, NDArray[np.generic]], name: str) -> tuple[str, ...]:
    column = arrays.get(IDS[name])
    if column is None:
        msg = f"{path.name} does not say whose the rows of {name} are. Add {IDS[name]} to it, or give {OPTIONS[name]}."
        raise DataProblem(msg)
    if column.ndim != 1 or column.dtype.kind not in "Uiu":
        msg = f"{path.name}: {IDS[name]} is {column.dtype} of shape {column.shape}; expected strings or integers."
        raise DataProblem(msg)
    return tuple(str(id) for id in column.tolist())


def _listed(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text("utf-8").removesuffix("\n").split("\n"))
    except UnicodeDecodeError as error:
        msg = f"{path.name} is not UTF-8. Write one id a line as UTF-8."
        raise DataProblem(msg) from error


def _check_ids(path: Path, ids: tuple[str, ...], name: str, n_rows: int) -> None:
    if len(ids) != n_rows:
        msg = f"{path.name} holds {len(ids):,} ids for {n_rows:,} rows of {name}; give each row one, in their order."
        raise DataProblem(msg)
    if len(set(ids)) != n_rows:
        msg = f"{path.name} names the same id for several rows of {name}; keep one row of each."
        raise DataProblem(msg)
    for row, id in enumerate(ids):
        try:
            check_id(id)
        except ValueError as error:
            msg = f"{path.name}: the id of row {row} of {name} cannot be used: {error}"
            raise DataProblem(msg) from error
