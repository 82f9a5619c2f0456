"""Where bytes come from: files of a home, and files of a database that this process must not open itself."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from service.residue.byte_search import CHUNK_BYTES

# A process that closes a file gives up all its POSIX locks on it, SQLite's too, and SQLite relies on them.
_COPY = "import shutil, sys; shutil.copyfileobj(open(sys.argv[1], 'rb'), sys.stdout.buffer, 1 << 20)"


def read_plain(path: Path) -> Iterator[bytes]:
    """The bytes of a plain file, a chunk at a time; raises OSError, also for a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def read_apart(path: Path) -> Iterator[bytes]:
    """The bytes of a file that SQLite has open here, read by another process; none where it is gone.

    Raises:
        OSError: it cannot be read.
    """
    if not path.exists():
        return
    command = [sys.executable, "-I", "-S", "-c", _COPY, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as copy:
        assert copy.stdout is not None
        try:
            while chunk := copy.stdout.read(CHUNK_BYTES):
                yield chunk
        finally:
            copy.stdout.close()
            failed = copy.wait()
    if failed and path.exists():
        msg = "It cannot be read."
        raise OSError(msg)


def files_below(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Every file below a folder, sorted, with what keeps it from being read as one: it is a link, or no plain file.

    Links are not followed. Sockets and pipes hold no bytes and are left out.
    """
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(parent) / name
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                continue
            if stat.S_ISLNK(mode):
                yield path, "is a link, which is not followed"
            elif stat.S_ISREG(mode):
                yield path, None
