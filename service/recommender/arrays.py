"""Tensors in a file: plain arrays without pickle, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def write_arrays(path: Path, arrays: Mapping[str, Tensor | NDArray[np.generic]]) -> None:
    """Writes arrays by name as NumPy's npz; the folder is made where it does not exist.

    The file appears under its name when all of it is on the disk. Two processes that write the same file do not get
    into each other's way: the last one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    plain = {
        name: array.detach().cpu().numpy() if isinstance(array, Tensor) else array for name, array in arrays.items()
    }
    try:
        with aside.open("wb") as file:
            np.savez(file, allow_pickle=False, **plain)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def text_array(text: str) -> NDArray[np.uint8]:
    """A text as an array, to lie beside others; `array_text` reads it."""
    return np.frombuffer(text.encode(), dtype=np.uint8)


def array_text(array: NDArray[np.uint8]) -> str:
    """What `text_array` stored."""
    return array.tobytes().decode()
