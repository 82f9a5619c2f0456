from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from model_store import Damaged, ManifestDamaged, ModelStore, SignatureMismatch
from model_store.manifest import Manifest
from model_store.tensors import encode, views
from tests.factories.versions import EMBEDDINGS, KEY, file_of, publish

DTYPES = [np.dtype(name) for name in ("u1", "i4", "i8", "f2", "f4", "f8")]
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: npst.arrays(
        dtype,
        npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
        elements={"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None,
    )
)
names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    store = ModelStore(tmp_path_factory.mktemp("store"), key=KEY)
    publish(store)
    return store


@pytest.mark.P5
@pytest.mark.parametrize("name", [EMBEDDINGS, "manifest.json"])
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_single_bit_flip_in_any_file_is_refused(store: ModelStore, name: str, data: st.DataObject):
    """Whichever bit of a version turns over, the version is not loaded."""
    path: Path = file_of(store, name=name)
    good = path.read_bytes()
    bit = data.draw(st.integers(0, len(good) * 8 - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8

    path.write_bytes(bad)
    try:
        with pytest.raises(Damaged):
            store.verify("versions", 42)
    finally:
        path.write_bytes(good)


@pytest.mark.P5
def test_each_bit_of_a_manifest_matters(store: ModelStore):
    """All of them, one after the other: no flip gives another page that is accepted."""
    good = file_of(store, name="manifest.json").read_bytes()

    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises((ManifestDamaged, SignatureMismatch)):
            Manifest.from_json(bytes(bad), what="manifest", key=KEY)


@settings(max_examples=100, deadline=None)
@given(tensors=st.dictionaries(names, arrays, max_size=4))
def test_whatever_is_encoded_reads_back_the_same(tensors: dict[str, np.ndarray]):
    """Every type, shape and value that can be written can be read."""
    data, facts = encode(tensors, "file")

    found = views(memoryview(data), facts, "file")

    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200))
def test_bytes_from_anywhere_are_refused_and_never_crash(data: bytes):
    """The readers of manifests and tensors answer any bytes with one of their named errors."""
    with pytest.raises((ManifestDamaged, SignatureMismatch)):
        Manifest.from_json(data, what="manifest", key=KEY)
    with pytest.raises(Damaged):
        views(memoryview(data), {"users": encode({"users": np.ones(1)}, "file")[1]["users"]}, "file")
