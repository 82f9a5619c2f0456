"""A small disk of one's own that can be full; only root may have one."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INODES = 4000


class Disk:
    """A folder on a disk of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no byte free."""
        with self._ballast.open("ab") as file:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        os.write(file.fileno(), b"\0" * size)
                except OSError:
                    continue

    def fill_inodes(self) -> None:
        """Leave no room for another file."""
        folder = self.folder / "files"
        folder.mkdir(exist_ok=True)
        try:
            for number in range(10 * INODES):
                (folder / str(number)).touch()
        except OSError:
            return

    def free(self) -> None:
        """Give all of it back."""
        self._ballast.unlink(missing_ok=True)
        shutil.rmtree(self.folder / "files", ignore_errors=True)


def can_mount() -> bool:
    """Whether a disk can be made here."""
    return os.geteuid() == 0 and Path("/proc/filesystems").exists()


@contextmanager
def small_disk(folder: Path, mebibytes: int, inodes: int = INODES) -> Iterator[Disk]:
    """A disk of this size in memory, with room for so many files, mounted on a folder and gone at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,nr_inodes={inodes}", "tmpfs", folder], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=False)
