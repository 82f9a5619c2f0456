"""Files of the model store and of trainings, read for a search: whatever of them can be read, signed or not."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

Tensors = Mapping[str, NDArray[Any]]

COLLECTIONS = ("versions", "encoders")
_MANIFEST_MAX_BYTES = 4 << 20


class UnreadableTensors(Exception):
    """A file of tensors that is damaged; its bytes can be searched, its structure cannot."""


@dataclass(frozen=True)
class ModelFolder:
    """A version or an encoder, or what is left of one. `base`: the version that it comes from; None: it tells none."""

    root: Path
    path: Path
    base: int | None

    def is_older_than(self, base: int | None) -> bool:
        """Whether it comes from an older base, or does not tell from which; of any where `base` is not known."""
        return base is None or self.base is None or self.base < base

    def files(self) -> Iterator[Tensors]:
        """The tensors of each file that can be read."""
        for path in sorted(self.path.glob("*.safetensors")):
            try:
                yield read_tensors(path)
            except UnreadableTensors:
                continue

    def keys(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Keys of users and of items, row by row: of the folder itself, else of its base; None where there are none."""
        places = [self.path] if self.base is None else [self.path, self.root / "versions" / f"{self.base:06d}"]
        for place in places:
            try:
                tensors = read_tensors(place / "embeddings.safetensors")
                return tensors["user_keys"], tensors["item_keys"]
            except (UnreadableTensors, KeyError):
                continue
        return None


def model_folders(root: Path) -> Iterator[ModelFolder]:
    """Every version and encoder below a store's root, with what interrupted publishes and purges left."""
    for collection in COLLECTIONS:
        parent = root / collection
        for path in sorted(parent.iterdir()) if parent.is_dir() else ():
            if path.is_dir() and not path.is_symlink():
                yield ModelFolder(root, path, _base_of(path))


def holds_tensors(path: Path) -> bool:
    """Whether it is a file of tensors by its name, be it one that was interrupted while it was written."""
    return path.suffix == ".safetensors" or ".npz" in path.suffixes


def read_tensors(path: Path) -> Tensors:
    """The tensors of a .safetensors or .npz file; raises UnreadableTensors."""
    try:
        if path.suffix != ".safetensors":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- it is no mapping
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, SafetensorError, TypeError) as error:
        raise UnreadableTensors(path.name) from error


def _base_of(path: Path) -> int | None:
    """The base that the manifest names."""
    try:
        with (path / "manifest.json").open("rb") as file:
            page = json.loads(file.read(_MANIFEST_MAX_BYTES))
        number = page["number"] if page["kind"] == "base" else page["parent"]
        return number if type(number) is int else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
