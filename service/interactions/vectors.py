"""Embeddings that were trained elsewhere, as they stand in a file."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from service.interactions.identifiers import check_column
from service.interactions.refusals import DataProblem, listed, shown
from service.interactions.text import read_text, split_lines

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


# Safetensors' names of types that NumPy has; the others are below.
_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_vectors(
    path: Path, user_ids: Path | None = None, item_ids: Path | None = None, *, strip: bool | None = None
) -> Vectors:
    """Read matrices and ids.

    Args:
        path: .npz or .safetensors with the matrices `users` (n, d) and `items` (m, d) of floats of any width, and,
            unless the other files hold them, the ids `user_ids` (n,) and `item_ids` (m,), strings (.npz only) or
            integers.
        user_ids: a text file with one id a line, in the order of the rows.
        item_ids: the same for items.
        strip: as in ReadingOptions.

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
    for name, matrix, listed_in in zip(MATRICES, matrices, (user_ids, item_ids), strict=True):
        ids = _ids(path, arrays, name) if listed_in is None else tuple(split_lines(read_text(listed_in)))
        lists.append(_checked(path, listed_in, ids, name, len(matrix), strip))
    return Vectors(matrices[0], matrices[1], lists[0], lists[1], sha256)


def _arrays(path: Path) -> tuple[dict[str, NDArray[np.generic]], str]:
    """The arrays that count, and the file's SHA-256; others are passed over, whatever they hold."""
    packed = path.read_bytes()
    readers = {".safetensors": _safetensors, ".npz": _npz}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        msg = f"{path.name} is neither .npz nor .safetensors. Save the matrices users and items as one of them."
        raise DataProblem(msg)
    return reader(path, packed), hashlib.sha256(packed).hexdigest()


def _wanted(path: Path, found: list[str]) -> list[str]:
    for name in MATRICES:
        if name not in found:
            there = listed(sorted(found)) or "nothing"
            msg = f"{path.name} holds no matrix {name}; found: {there}."
            raise DataProblem(msg)
    return [name for name in found if name in (*MATRICES, *IDS.values())]


def _safetensors(path: Path, packed: bytes) -> dict[str, NDArray[np.generic]]:
    try:
        stored = dict(deserialize(packed))  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        msg = f"{path.name} is no complete safetensors file: {shown(str(error))}. Write it again."
        raise DataProblem(msg) from error
    return {name: _tensor(path, name, stored[name]) for name in _wanted(path, list(stored))}


def _tensor(path: Path, name: str, stored: dict[str, Any]) -> NDArray[np.generic]:
    """One tensor; types that NumPy lacks become float32, which holds each of their values exactly."""
    kind, shape, data = stored["dtype"], stored["shape"], stored["data"]
    if kind == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if kind == "F8_E5M2":  # the upper half of a float16
        return (np.frombuffer(data, np.uint8).astype(np.uint16) << 8).view(np.float16).reshape(shape)
    if kind == "F8_E4M3":
        return _E4M3[np.frombuffer(data, np.uint8)].reshape(shape)
    if kind not in _TYPES:
        msg = f"{path.name}: {name} is of type {kind}, which cannot be read. Save it as F32, F16 or BF16."
        raise DataProblem(msg)
    return np.frombuffer(data, np.dtype(_TYPES[kind]).newbyteorder("<")).reshape(shape)


def _e4m3() -> NDArray[np.float32]:
    """The value of each byte in the OCP 8-bit format E4M3: no infinities, and one NaN of each sign."""
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, code & 7
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    magnitude = np.where(exponent == 0, np.ldexp(mantissa / 8, -6), normal)
    magnitude[(code & 127) == 127] = np.nan
    return np.where(code > 127, -magnitude, magnitude).astype(np.float32)


_E4M3 = _e4m3()


def _npz(path: Path, packed: bytes) -> dict[str, NDArray[np.generic]]:
    if not zipfile.is_zipfile(io.BytesIO(packed)):
        what = "holds one array, not several" if packed.startswith(b"\x93NUMPY") else "is no .npz file"
        msg = f"{path.name} {what}. Save users, items, user_ids and item_ids with np.savez."
        raise DataProblem(msg)
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as stored:
            return {name: _array(path, stored, name) for name in _wanted(path, list(stored.files))}
    except (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        msg = f"{path.name} is no complete .npz file: {shown(str(error))}. Write it again."
        raise DataProblem(msg) from error


def _array(path: Path, stored: Any, name: str) -> NDArray[np.generic]:
    try:
        return np.asarray(stored[name])
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        msg = (
            f"{path.name}: {name} holds Python objects, which only unpickling could read, and that may run code. "
            f"Save it without: np.array({name}, dtype={'str' if name in IDS.values() else 'np.float32'})."
        )
        raise DataProblem(msg) from error


def _matrix(path: Path, arrays: dict[str, NDArray[np.generic]], name: str) -> NDArray[np.float32]:
    matrix = arrays[name]
    if matrix.ndim != 2 or not matrix.size or not np.issubdtype(matrix.dtype, np.floating):
        msg = f"{path.name}: {name} is {matrix.dtype} of shape {matrix.shape}; expected floats of shape (rows, width)."
        raise DataProblem(msg)
    # What does not fit float32 becomes infinite, and is refused below with a sentence instead of a warning.
    with np.errstate(over="ignore"):
        plain = np.ascontiguousarray(matrix, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(plain).all(axis=1))
    if len(bad):
        row = int(bad[0])
        column = int(np.flatnonzero(~np.isfinite(plain[row]))[0])
        value = matrix[row, column]
        why = f"{value} is beyond float32" if np.isfinite(value) else str(value)
        msg = (
            f"{path.name}: {len(bad):,} rows of {name} hold values that are not finite; the first is row {row + 1}, "
            f"column {column + 1}: {why}."
        )
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


def _checked(
    path: Path, listed_in: Path | None, ids: tuple[str, ...], name: str, n_rows: int, strip: bool | None
) -> tuple[str, ...]:
    """The ids of the rows of one matrix, which come from the file of the matrices or from a list of their own."""
    source, unit = (path, "row") if listed_in is None else (listed_in, "line")
    if len(ids) != n_rows:
        msg = f"{source.name} holds {len(ids):,} ids for {n_rows:,} rows of {name}; give each row one, in their order."
        raise DataProblem(msg)
    column = IDS[name].removesuffix("s")
    try:
        strings = pa.array(ids, pa.string())
    except UnicodeEncodeError as error:  # a lone surrogate, which no text file and no request can hold
        msg = f"{source.name}: {IDS[name]} holds text that is no Unicode. Correct it."
        raise DataProblem(msg) from error
    checked = check_column(column, strings, lambda row: f"{source.name}, {unit} {row + 1}", strip).ids
    if len(checked.dictionary) != n_rows:
        codes = checked.indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        place = int(np.flatnonzero(np.diff(codes[order]) == 0)[0])
        rows = sorted(int(row) + 1 for row in order[place : place + 2])
        msg = (
            f"{source.name} names the same id for several rows of {name}, {unit}s {rows[0]:,} and {rows[1]:,} first; "
            "keep one row of each."
        )
        raise DataProblem(msg)
    return tuple(checked.cast(pa.string()).to_pylist())
