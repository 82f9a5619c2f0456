"""Tensors as bytes and back: safetensors files, read as views on a map.

Written by the safetensors library. Read by the few lines below, because a view on a read-only map is wanted and the
library copies; they hold the format's own rules (header inside the file, no holes, no overlaps) and the manifest's.
Pickle has no way in: nothing here can call anything that a file names.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from model_store.errors import (
    HeaderDamaged,
    MissingTensor,
    NotFinite,
    UnexpectedTensor,
    Unpublishable,
    WrongShape,
    WrongType,
)
from model_store.manifest import TensorFacts

Array = np.ndarray[Any, np.dtype[Any]]

_DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype(np.uint8),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_HEADER_MAX_BYTES = 1 << 20  # our own files hold a handful of tensors; the format allows 100 MB
_LENGTH_BYTES = 8
_FINITE_CHUNK = 1 << 22  # values looked at together: bounds the temporary mask to 4 MB

if sys.byteorder != "little":  # pragma: no cover -- safetensors is little-endian, and so is every target
    raise ImportError("the model store needs a little-endian machine")


class _Span(NamedTuple):
    """Where one tensor lies: its facts and its byte range behind the header."""

    facts: TensorFacts
    begin: int
    end: int


def encode(tensors: Mapping[str, Array], what: str) -> tuple[bytes, dict[str, TensorFacts]]:
    """Return the safetensors bytes of some arrays and their facts; the same arrays give the same bytes.

    Args:
        tensors: arrays of uint8, int32, int64 or float16/32/64, any memory order.
        what: how to name the file in an error.

    Raises:
        Unpublishable: a dtype that is not in the list, or NaN or infinity.
    """
    dense = {name: _dense(name, array, what) for name, array in sorted(tensors.items())}
    facts = {name: TensorFacts(_NAMES[array.dtype], array.shape) for name, array in dense.items()}
    return save(dense), facts


def views(data: memoryview, expected: Mapping[str, TensorFacts], what: str) -> dict[str, Array]:
    """Return the tensors of a safetensors file as read-only views on its bytes, none copied.

    Args:
        data: the whole file; the views keep it alive.
        expected: what the manifest says is in it.
        what: how to name the file in an error.

    Raises:
        HeaderDamaged, UnexpectedTensor, MissingTensor, WrongType, WrongShape, NotFinite: see `model_store.errors`.
    """
    header, body_at = _header(data, what)
    spans = _spans(header, len(data) - body_at, what)
    _compare(spans, expected, what)
    arrays = {name: _view(data, body_at, span) for name, span in spans.items()}
    for name, array in arrays.items():
        if not all_finite(array):
            raise NotFinite(what, f"holds NaN or infinity in the tensor '{name}'")
    return arrays


def all_finite(array: Array) -> bool:
    """Tell whether an array holds neither NaN nor infinity, in bounded memory."""
    if array.dtype.kind != "f":
        return True
    flat = array.reshape(-1)
    chunks = range(0, flat.size, _FINITE_CHUNK)
    return all(bool(np.isfinite(flat[at : at + _FINITE_CHUNK]).all()) for at in chunks)


def _dense(name: str, array: Array, what: str) -> Array:
    little = np.asarray(array).astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    if little.dtype not in _NAMES:
        raise Unpublishable(what, f"the tensor '{name}' has the dtype {array.dtype}, which no reader loads")
    if not all_finite(little):
        raise Unpublishable(what, f"the tensor '{name}' holds NaN or infinity")
    return little


def _header(data: memoryview, what: str) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    body_at = _LENGTH_BYTES + length
    if len(data) < _LENGTH_BYTES or length > _HEADER_MAX_BYTES or body_at > len(data):
        raise HeaderDamaged(what, "has a safetensors header that lies outside the file")
    try:
        header = json.loads(bytes(data[_LENGTH_BYTES:body_at]), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as cause:
        raise HeaderDamaged(what, "has a safetensors header that is not JSON") from cause
    if not isinstance(header, dict):
        raise HeaderDamaged(what, "has a safetensors header that is not a JSON object")
    return header, body_at


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name twice")
    return table


def _spans(header: Mapping[str, Any], body_bytes: int, what: str) -> dict[str, _Span]:
    try:
        spans = {name: _span(entry) for name, entry in header.items()}
    except (KeyError, TypeError, ValueError) as cause:
        raise HeaderDamaged(what, "has a safetensors header that is not well formed") from cause
    at = 0
    for span in sorted(spans.values(), key=lambda span: (span.begin, span.end)):
        if span.begin != at:
            raise HeaderDamaged(what, "has tensors that overlap or leave a hole")
        at = span.end
    if at != body_bytes:
        raise HeaderDamaged(what, "has tensors that do not fill the file")
    return spans


def _span(entry: Mapping[str, Any]) -> _Span:
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    naturals = all(type(size) is int and size >= 0 for size in (*shape, begin, end))
    n_bytes = _DTYPES[dtype].itemsize  # a python int: no product of sizes can wrap round
    for size in shape:
        n_bytes *= size
    if not naturals or end - begin != n_bytes:
        raise ValueError("sizes")
    return _Span(TensorFacts(dtype, shape), begin, end)


def _compare(spans: Mapping[str, _Span], expected: Mapping[str, TensorFacts], what: str) -> None:
    for name in sorted(spans.keys() - expected.keys()):
        raise UnexpectedTensor(what, f"holds the tensor {name!r}, which its manifest does not name")
    for name in sorted(expected.keys() - spans.keys()):
        raise MissingTensor(what, f"lacks the tensor '{name}'")
    for name, facts in sorted(expected.items()):
        found = spans[name].facts
        if found.dtype != facts.dtype:
            raise WrongType(what, f"holds '{name}' as {found.dtype} instead of {facts.dtype}")
        if found.shape != facts.shape:
            raise WrongShape(what, f"holds '{name}' in the shape {found.shape} instead of {facts.shape}")


def _view(data: memoryview, body_at: int, span: _Span) -> Array:
    return np.ndarray(span.facts.shape, _DTYPES[span.facts.dtype], buffer=data, offset=body_at + span.begin)
