"""The few file system steps that durability and safety rest on.

Every path is walked from the store's root by folder descriptors with O_NOFOLLOW, so a symlink put in place of a folder
or a file is refused at the moment of opening and cannot be swapped in between a check and its use.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from model_store.errors import Missing, NotAPlainFile

ASIDE = ".tmp-"
GONE = ".gone-"
_NOT_PLAIN = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO}


@contextlib.contextmanager
def folder(root: Path, *names: str, what: str) -> Iterator[int]:
    """Open `root/names...` step by step and yield its descriptor.

    Raises:
        Missing: there is no such folder.
        NotAPlainFile: one of the names is a symlink or no folder at all.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        descriptor = _open(str(root), flags, None, what)  # the root itself may be reached by a symlink: it is ours
        stack.callback(os.close, descriptor)
        for name in names:
            descriptor = _open(name, flags | os.O_NOFOLLOW, descriptor, what)
            stack.callback(os.close, descriptor)
        yield descriptor


def read_map(name: str, folder_fd: int, what: str) -> memoryview:
    """Map a plain file read-only and return its bytes; the map lives as long as a view on it does.

    Raises:
        Missing, NotAPlainFile: there is no such file, or it is not a plain one.
    """
    descriptor = _open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, folder_fd, what)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotAPlainFile(what, "is not a plain file")
        if status.st_size == 0:  # an empty map is an error to the system
            return memoryview(b"")
        return memoryview(mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)


def read_from(name: str, folder_fd: int, what: str, start: int) -> bytes:
    """Return a copy of a plain file's bytes from `start` on; raises Missing, NotAPlainFile."""
    descriptor = _open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, folder_fd, what)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotAPlainFile(what, "is not a plain file")
        with open(descriptor, "rb", closefd=False) as file:
            file.seek(start)
            return file.read()
    finally:
        os.close(descriptor)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet and force its bytes to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Force the names in a folder to the disk: without it a rename may be lost with the power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def aside(parent: Path, name: str) -> Iterator[Path]:
    """Make a folder to write in, beside its place; gone again at exit unless it was renamed away.

    It is locked while its writer lives, so `leftovers` tells an interrupted publish from one under way.
    """
    path = parent / f"{ASIDE}{name}-{secrets.token_hex(6)}"
    path.mkdir(mode=0o750)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield path
    finally:
        if path.exists():
            with contextlib.suppress(OSError):  # the first error is the one to tell; `clean` comes back for the rest
                erase_folder(path)
        os.close(descriptor)


def leftovers(parent: Path) -> Iterator[Path]:
    """Yield what interrupted publishes and purges left in a folder, and nothing of those under way."""
    if not parent.is_dir():
        return
    for path in sorted(parent.iterdir()):
        if path.name.startswith((ASIDE, GONE)) and not _locked(path):
            yield path


def erase_folder(path: Path) -> None:
    """Unlink a folder and the files in it, never following a symlink; others may be at it, too."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        for child in path.iterdir():
            erase_folder(child)
        path.rmdir()


def _locked(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _open(name: str, flags: int, folder_fd: int | None, what: str) -> int:
    try:
        return os.open(name, flags, dir_fd=folder_fd)
    except FileNotFoundError as cause:
        raise Missing(what) from cause
    except OSError as cause:
        if cause.errno in _NOT_PLAIN:
            raise NotAPlainFile(what, "is a symlink or not a plain file") from cause
        raise
