import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from model_store import (
    HeaderDamaged,
    MissingTensor,
    NotFinite,
    TensorFacts,
    UnexpectedTensor,
    Unpublishable,
    WrongShape,
    WrongType,
)
from model_store.tensors import encode, views

FACTS = {"a": TensorFacts("F32", (2, 3)), "k": TensorFacts("I64", (2,))}


def arrays():
    return {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "k": np.array([1, 2], dtype=np.int64)}


def read(data: bytes, facts=FACTS):
    return views(memoryview(data), facts, "file")


def with_header(header: object, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(begin: int, end: int, shape=(2,), dtype: str = "I64") -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_tensors_come_back_as_they_were():
    """Values, types and shapes survive, scalars and empty arrays too."""
    given = arrays() | {"none": np.zeros((2, 0), np.int32), "one": np.array(1.5)}

    data, facts = encode(given, "file")

    found = read(data, facts)
    assert found.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.P6
def test_the_same_arrays_give_the_same_bytes():
    """Neither the order of names nor the memory layout shows in the file."""
    given = arrays()
    other = {"k": given["k"].astype(">i8"), "a": np.asfortranarray(given["a"])}

    assert encode(given, "file") == encode(other, "file")


def test_the_files_are_plain_safetensors():
    """Any safetensors reader opens what is published, and what it writes opens here."""
    data, _ = encode(arrays(), "file")

    np.testing.assert_array_equal(load(data)["a"], arrays()["a"])
    np.testing.assert_array_equal(read(save(arrays()))["a"], arrays()["a"])


def test_tensors_are_read_only_views_on_the_bytes():
    """Nothing is copied, and nobody can change a version by accident."""
    data, facts = encode(arrays(), "file")

    found = read(data, facts)["a"]

    assert np.shares_memory(found, np.frombuffer(data, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_neither_written_nor_read(value):
    """One NaN would make every score of a user NaN."""
    bad = arrays()
    bad["a"][1, 2] = value

    with pytest.raises(Unpublishable, match="'a' holds NaN"):
        encode(bad, "file")
    with pytest.raises(NotFinite, match="in the tensor 'a'"):
        read(save(bad))


def test_a_type_that_no_reader_loads_is_not_written():
    """Objects would need pickle, complex numbers nobody has."""
    for odd in (np.array([object()]), np.array([1j])):
        with pytest.raises(Unpublishable, match="which no reader loads"):
            encode({"a": odd}, "file")


def test_each_difference_from_the_manifest_has_its_name():
    """An operator reads what is wrong with a file, not only that it is."""
    given = arrays()

    with pytest.raises(UnexpectedTensor, match="'extra'"):
        read(save(given | {"extra": given["k"]}))
    with pytest.raises(MissingTensor, match="'k'"):
        read(save({"a": given["a"]}))
    with pytest.raises(WrongShape, match=r"\(3, 2\) instead of \(2, 3\)"):
        read(save(given | {"a": given["a"].reshape(3, 2)}))
    with pytest.raises(WrongType, match="F64 instead of F32"):
        read(save(given | {"a": given["a"].astype(np.float64)}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        (2**63).to_bytes(8, "little") + b"{}",
        (2**64 - 8).to_bytes(8, "little") + b"{}",
        (3).to_bytes(8, "little") + b"{}",
        with_header(b" " * (2 << 20) + b"{}", b""),
        with_header(b"not json", b""),
        with_header(b"\xff\xfe", b""),
        with_header(b"[" * 100_000, b""),
        with_header([1], b""),
        with_header(b'{"k":{},"k":{}}', b""),
        with_header({"k": 1}, b""),
        with_header({"k": {}}, b""),
        with_header({"k": entry(0, 16, dtype="F8_E4M3")}, b"x" * 16),
        with_header({"k": entry(0, 15)}, b"x" * 15),
        with_header({"k": entry(0, 16)}, b"x" * 15),
        with_header({"k": entry(0, 16)}, b"x" * 17),
        with_header({"k": entry(8, 24)}, b"x" * 24),
        with_header({"k": entry(0, 16), "l": entry(8, 24)}, b"x" * 24),
        with_header({"k": entry(0, 16), "l": entry(24, 40)}, b"x" * 40),
        with_header({"k": entry(-16, 0)}, b""),
        with_header({"k": entry(16, 0, shape=(-2,))}, b"x" * 16),
        with_header({"k": entry(0, 16, shape=(2.0,))}, b"x" * 16),
        with_header({"k": entry(0, 16, shape=(2**62, 4))}, b"x" * 16),
        with_header({"k": entry(0, 16, shape=(True, 2))}, b"x" * 16),
        with_header({"k": {"dtype": "I64", "shape": 2, "data_offsets": [0, 16]}}, b"x" * 16),
    ],
)
def test_a_header_out_of_bounds_is_refused(data):
    """No header can make the reader look outside the file, nor hide bytes in a hole."""
    with pytest.raises(HeaderDamaged):
        read(data)
