"""Embeddings from files: what is read, and what is said of what cannot be."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
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
        (
            {"items": np.array([[1, 2], [np.nan, 0], [0, 0], [np.inf, 1]])},
            "2 rows of items hold .* first is row 2, column 1: nan",
        ),
        ({"users": np.full((3, 2), 1e300)}, "3 rows of users .* row 1, column 1: 1e[+]300 is beyond float32"),
        ({"user_ids": np.array(["a", "b"])}, "2 ids for 3 rows of users"),
        ({"user_ids": np.array(["a", "b", "a"])}, "same id for several rows of users, rows 1 and 3 first"),
        ({"user_ids": np.array([1.0, 2.0, 3.0])}, "user_ids is float64"),
        ({"user_ids": np.array(["a", "b", "c\n"])}, "row 3: the user_id .* holds control characters"),
        ({"item_ids": None}, "whose the rows of items are"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataProblem, match=said):
        read_vectors(npz(tmp_path, **changes))


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("F64", np.array([0.5, -3.0], "<f8").tobytes()),
        ("F32", np.array([0.5, -3.0], "<f4").tobytes()),
        ("F16", np.array([0.5, -3.0], "<f2").tobytes()),
        ("BF16", bytes.fromhex("003f40c0")),
        ("F8_E5M2", bytes.fromhex("38c2")),
        ("F8_E4M3", bytes.fromhex("30c4")),
    ],
)
def test_safetensors_of_every_float_are_read_exactly(tmp_path: Path, kind: str, row: bytes) -> None:
    """.5 and -3 in each of them, by the bits that its definition gives them."""
    path = tensors(tmp_path / "model.safetensors", {"users": (kind, [2, 2], row * 2), "items": (kind, [1, 2], row)})
    lists = [tmp_path / "u.txt", tmp_path / "i.txt"]
    lists[0].write_text("a\nb\n")
    lists[1].write_text("c\n")

    vectors = read_vectors(path, *lists)

    assert vectors.users.dtype == np.float32
    assert vectors.users.tolist() == [[0.5, -3.0]] * 2
    assert vectors.items.tolist() == [[0.5, -3.0]]


def test_every_byte_of_e4m3_has_the_value_of_its_definition(tmp_path: Path) -> None:
    """Those of torch, which no one here wrote."""
    codes = bytes(code for code in range(256) if code & 127 != 127)
    path = tensors(tmp_path / "m.safetensors", {name: ("F8_E4M3", [1, 254], codes) for name in ("users", "items")})
    (tmp_path / "one.txt").write_text("1")

    vectors = read_vectors(path, tmp_path / "one.txt", tmp_path / "one.txt")

    known = torch.frombuffer(bytearray(codes), dtype=torch.float8_e4m3fn).float()
    assert vectors.users[0].tolist() == known.tolist()


def test_a_type_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """And nothing is said of pickled objects, which safetensors cannot hold."""
    path = tensors(tmp_path / "m.safetensors", {name: ("F8_E8M0", [2, 2], b"1234") for name in ("users", "items")})

    with pytest.raises(DataProblem, match="is of type F8_E8M0, which cannot be read"):
        read_vectors(path)


def test_what_else_a_file_holds_is_passed_over(tmp_path: Path) -> None:
    """Python objects under names that nobody asked for are not read."""
    assert read_vectors(npz(tmp_path, notes=np.array([None, {}], dtype=object))).user_ids == ("a", "b", "ü/1")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("\ufeffx\ny\nz\n", ""),
        ("x\r\ny\r\nz", ""),
        ("x\u2028x\ny\nz\n", "ids.txt, line 1: the user_id .* holds control characters"),
        ("x\n y\nz\n", "ids.txt, line 2: the user_id ' y' has white space .* --strip"),
        ("x\n\nz\n", "ids.txt, line 2: the user_id is empty"),
        (f"x\ny\n{'z' * 700}\n", "ids.txt, line 3: the user_id has 700 characters; an id has at most 512"),
        ("x\ny\nx\n", "lines 1 and 3"),
        ("x\ny\n", "2 ids for 3 rows"),
    ],
)
def test_lists_of_ids_follow_the_rules_of_every_file(tmp_path: Path, content: str, said: str) -> None:
    """Byte order marks and Windows line ends are no part of ids; what is refused is told by line."""
    path, ids = npz(tmp_path), tmp_path / "ids.txt"
    ids.write_bytes(content.encode())

    if said:
        with pytest.raises(DataProblem, match=said):
            read_vectors(path, ids)
    else:
        assert read_vectors(path, ids).user_ids == ("x", "y", "z")


def test_white_space_around_listed_ids_is_taken_off_where_asked(tmp_path: Path) -> None:
    path, ids = npz(tmp_path), tmp_path / "ids.txt"
    ids.write_text(" x\ny \nz\n")

    assert read_vectors(path, ids, strip=True).user_ids == ("x", "y", "z")
    assert read_vectors(path, ids, strip=False).user_ids == (" x", "y ", "z")


def tensors(path: Path, stored: dict[str, tuple[str, list[int], bytes]]) -> Path:
    """A safetensors file as its specification has it: name -> type, shape, bytes."""
    header, data = {}, b""
    for name, (kind, shape, content) in stored.items():
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    """Other formats, damaged files, and pickled objects, which could run code."""
    for name in ("model.pt", "model.npz", "model.safetensors"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 not this")
        with pytest.raises(DataProblem):
            read_vectors(tmp_path / name)
    np.save(tmp_path / "one.npy", np.eye(2))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(DataProblem, match="holds one array, not several"):
        read_vectors(tmp_path / "one.npz")
    with pytest.raises(DataProblem, match="user_ids holds Python objects"):
        read_vectors(npz(tmp_path, user_ids=np.array(["a", "b", None], dtype=object)))
