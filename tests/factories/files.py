"""Data sets as files, for the readers."""

import gzip
from collections.abc import Mapping
from pathlib import Path


def folder(path: Path, files: Mapping[str, str | bytes]) -> Path:
    """Make a folder of these files; a name that ends in .gz is packed. Returns the folder."""
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path
