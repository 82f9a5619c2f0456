"""Embeddings from files: what is read, and what is said of what cannot be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from service.interactions.refusals import DataProblem
from service.interactions.vectors import read_vectors


def good() -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "users": random.normal(size=(3, 2)),
        "items": random.normal(size=(4, 2)).astype(np.float32),
        "user_ids": np.array(["a", "b", "ü/1"]),
        "item_ids": np.array([10, 7, 8, 9]),
    }


def npz(folder: Path, **changes: Any) -> Path:
    path = folder / "model.npz"
    arrays = {name: array for name, array in (good() | changes).items() if array is not None}
    np.savez(path, **arrays)
    return path


def test_matrices_and_ids_come_as_they_stand(tmp_path: Path) -> None:
    """Rows keep their order, integers become strings, doubles float32."""
    vectors = read_vectors(npz(tmp_path))

    assert vectors.user_ids == ("a", "b", "ü/1")
    assert vectors.item_ids == ("10", "7", "8", "9")
    assert vectors.users.dtype == vectors.items.dtype == np.float32
    np.testing.assert_allclose(vectors.users, good()["users"], rtol=1e-6)


def test_ids_may_stand_in_files_of_their_own(tmp_path: Path) -> None:
    """Safetensors hold no strings."""
    path = tmp_path / "model.safetensors"
    save_file({name: good()[name] for name in ("users", "items", "item_ids")}, path)
    ids = tmp_path / "users.txt"
    ids.write_text("x\ny y\nz\n", "utf-8")

    vectors = read_vectors(path, ids)

    assert vectors.user_ids == ("x", "y y", "z")
    assert vectors.item_ids == ("10", "7", "8", "9")
    with pytest.raises(DataProblem, match="--user-ids"):
        read_vectors(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"users": None}, "holds no matrix users; found: 'item_ids', 'items'"),
        ({"users": np.ones((3, 5))}, "users have 5 columns and items 2"),
        ({"users": np.ones(3)}, "users is float64 of shape"),
        ({"users": np.ones((3, 2), np.int32)}, "users is int32"),
        ({"items": np.ones((0, 2)), "item_ids": np.zeros(0, np.int64)}, "items is float64 of shape"),
        ({"items": np.array([[1, 2], [np.nan, 0], [0, 0], [np.inf, 1]])}, "2 rows of items hold .* first is row 1"),
        ({"users": np.full((3, 2), 1e300)}, "3 rows of users hold values that are not finite"),
        ({"user_ids": np.array(["a", "b"])}, "2 ids for 3 rows of users"),
        ({"user_ids": np.array(["a", "b", "a"])}, "same id for several rows of users"),
        ({"user_ids": np.array([1.0, 2.0, 3.0])}, "user_ids is float64"),
        ({"user_ids": np.array(["a", "b", "c\n"])}, "row 2 of users cannot be used"),
        ({"item_ids": None}, "whose the rows of items are"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataProblem, match=said):
        read_vectors(npz(tmp_path, **changes))


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    """Other formats, damaged files, and pickled objects, which could run code."""
    for name in ("model.pt", "model.npz", "model.safetensors"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 not this")
        with pytest.raises(DataProblem):
            read_vectors(tmp_path / name)
    with pytest.raises(DataProblem, match="pickled"):
        read_vectors(npz(tmp_path, user_ids=np.array(["a", "b", None], dtype=object)))
