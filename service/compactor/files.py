"""The files of a compaction below the home: the data that it trains on, and how far its trainings are."""

import os
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from service.evidence.preparing import evidence_path
from service.interactions.service import Snapshot
from service.residue.needles import Needles
from service.residue.scan import NEEDLES_SUFFIX, PURGE_FOLDER

FOLDER = "checkpoints"


def needles_file(home: Path, compaction_id: str) -> Path:
    """What is searched for after the purge of a compaction; gone when that found nothing."""
    return home / PURGE_FOLDER / f"{compaction_id}{NEEDLES_SUFFIX}"


def evidence_file(home: Path, compaction_id: str) -> Path:
    """Proofs of absence, until its erasures are finished."""
    return evidence_path(home, compaction_id)


class CompactionFiles:
    """Those of one compaction; all of them go when it ends, or when one is cancelled that nobody ran to its end."""

    def __init__(self, home: Path, compaction_id: str) -> None:
        self._folder, self._stem = home / FOLDER, f"compaction-{compaction_id}"

    @property
    def snapshot(self) -> Path:
        """The training data: a training that is taken up again, or begun with another seed, sees the same."""
        return self._folder / f"{self._stem}.npz"

    def checkpoint(self, attempt: int) -> Path:
        """Where the training of an attempt is taken up again."""
        return self._folder / f"{self._stem}-training-{attempt}.npz"

    def save(self, data: Snapshot) -> None:
        """Write the training data, whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = self._folder / f".{self.snapshot.name}.{os.getpid()}"
        try:
            with aside.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)
                keys = {"user_keys": data.user_keys, "item_keys": data.item_keys}
                np.savez(file, allow_pickle=False, seq=np.int64(data.seq), edges=data.edges, **keys)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.snapshot)
        finally:
            aside.unlink(missing_ok=True)

    def load(self) -> Snapshot | None:
        """The training data; None where this machine has them not, or not whole."""
        try:
            with np.load(self.snapshot, allow_pickle=False) as stored:
                return Snapshot(stored["user_keys"], stored["item_keys"], stored["edges"], int(stored["seq"]))
        except (OSError, KeyError, ValueError, EOFError, BadZipFile):
            return None

    def clear(self) -> None:
        """Take all of them away."""
        _unlink(self._folder, f"{self._stem}*", f".{self._stem}*")


def sweep(home: Path, running: str | None, bases: frozenset[int]) -> None:
    """Take away the files of every compaction but the one that runs, and of pre-trainings of bases that are gone."""
    keep = None if running is None else f"compaction-{running}"
    folder = home / FOLDER
    for path in [*folder.glob("compaction-*"), *folder.glob(".compaction-*")]:
        if keep is None or keep not in path.name:
            path.unlink(missing_ok=True)
    for path in [*folder.glob("shadow-*"), *folder.glob(".shadow-*")]:
        number = path.name.split("-")[1]
        if not number.isdigit() or int(number) not in bases:
            path.unlink(missing_ok=True)
    for path in (home / PURGE_FOLDER).glob("*"):
        if running is None or running not in path.name:
            Needles.destroy(path)


def _unlink(folder: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
