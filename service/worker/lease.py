"""The lease: one worker works, the others stand by, and one that was paused too long is refused.

A row `(holder, epoch, beat)` in SQL. The holder raises `beat` three times per term; a standby that has seen the same
(epoch, beat) for a whole term by its own monotonic clock takes over with epoch + 1. No wall clock is compared with
another. Taking over is not what keeps two workers apart: each transaction that settles something confirms the
epoch in that same transaction, so a holder that slept through its term changes nothing.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog
from sqlalchemy import Connection

from service.platform import metrics
from service.platform.clock import Clock
from service.platform.database import Database
from service.platform.obstacles import WORKER_LEASE
from service.platform.problem import Problem
from service.worker.repository import leases
from service.worker.repository.leases import LeaseRow

COMPACTOR = "compactor"
"""The lease of whoever trains: one training, pre-training or compaction a home at a time."""
BEATS_PER_TERM = 3
LOOKS_PER_TERM = 10
MAX_LOOK_S = 0.5

log = structlog.get_logger()


class Fenced(Exception):
    """This worker no longer holds the lease; what it was about to settle is another's to do."""


class ProcessIdentity(NamedTuple):
    """A process of this machine that cannot be mistaken for another: pid, start time, and where both count."""

    boot: str
    namespace: str
    pid: str
    started: str

    @classmethod
    def current(cls) -> "ProcessIdentity":
        """The calling process."""
        pid = str(os.getpid())
        return cls(_boot(), _namespace(), pid, _started(pid) or "0")

    @classmethod
    def read(cls, text: str) -> "ProcessIdentity | None":
        """The process that `str` wrote, or None where the text is something else."""
        parts = text.split("/")
        return cls(*parts) if len(parts) == len(cls._fields) else None

    def __str__(self) -> str:
        return "/".join(self)

    def is_dead(self) -> bool:
        """Whether it provably runs no more; False where this process cannot know."""
        here = (self.boot, self.namespace) == (_boot(), _namespace()) and self.boot != ""
        return here and _started(self.pid) != self.started


class Lease:
    """Holding the right to settle.

    Args:
        database: where the row is.
        seconds: the term, > 0.
        clock: its monotonic side is read.
        on_beat: called after each beat, on the beating thread.
        name: which right it is.
    """

    def __init__(
        self,
        database: Database,
        *,
        seconds: float,
        clock: Clock,
        on_beat: Callable[[], None] = lambda: None,
        name: str = WORKER_LEASE,
    ) -> None:
        self.seconds, self.name = seconds, name
        self.epoch: int | None = None
        self.lost = threading.Event()
        self._database, self._clock, self._on_beat = database, clock, on_beat
        self._holder = str(ProcessIdentity.current())
        self._seen: tuple[LeaseRow, float] | None = None
        self._heard = False
        self._beating: threading.Thread | None = None
        self._finished = threading.Event()

    @property
    def held(self) -> bool:
        """Whether this worker believes that it holds the lease; only `confirm` knows."""
        return self.epoch is not None and not self.lost.is_set()

    def acquire(self, stop: threading.Event, patience_s: float | None = None, *, until_heard: bool = False) -> bool:
        """Stand by until the lease is held (True), or `stop` is set or `patience_s` is over (False).

        With `until_heard` it is given up, too, as soon as the holder is known to be alive.
        """
        self.release()
        self._heard = False
        pause = min(self.seconds / LOOKS_PER_TERM, MAX_LOOK_S)
        end = None if patience_s is None else self._clock.monotonic() + patience_s
        while not stop.is_set():
            if self._look():
                self._start_beating()
                return True
            if (until_heard and self._heard) or (end is not None and self._clock.monotonic() >= end):
                return False
            stop.wait(pause)
        return False

    def confirm(self, connection: Connection) -> None:
        """Make sure, in the caller's transaction, that this worker still holds the lease until it commits.

        Raises:
            Fenced: another has taken over; the transaction must not commit.
        """
        if self.epoch is None or not leases.beat(connection, self.name, self.epoch, self._clock.now()):
            self.lost.set()
            self._show(held=False)
            raise Fenced

    def note_trouble(self, trouble: str | None) -> None:
        """Say beside the lease what keeps this worker from its work, for whoever asks what erasures wait for."""
        epoch = self.epoch
        if epoch is not None:
            self._database.transact(lambda connection: leases.note_trouble(connection, self.name, epoch, trouble))

    def release(self) -> None:
        """Stop beating and give the lease back, so that a standby need not wait; no error where it is lost."""
        self._finished.set()
        if self._beating is not None:
            self._beating.join()
        if self.held and self.epoch is not None:
            epoch = self.epoch
            with contextlib.suppress(Problem):  # the term runs out by itself
                self._database.transact(lambda connection: leases.release(connection, self.name, epoch))
        self.epoch, self._beating = None, None
        self.lost.clear()
        self._show(held=False)

    def _show(self, *, held: bool) -> None:
        if self.name == WORKER_LEASE:
            metrics.worker_lease_held.set(held)

    def _look(self) -> bool:
        try:
            row = self._database.query(lambda connection: leases.read(connection, self.name))
            if row is not None and not self._is_free(row):
                return False
            now = self._clock.now()
            epoch = self._database.transact(
                lambda connection: leases.take(connection, self.name, row, self._holder, now)
            )
        except Problem as problem:
            log.warning("lease.unreadable", code=problem.code)
            return False
        if epoch is None:
            return False
        self.epoch = epoch
        self._show(held=True)
        log.info("lease.taken", lease=self.name, epoch=epoch)
        return True

    def _is_free(self, row: LeaseRow) -> bool:
        if not row.holder:
            return True
        holder = ProcessIdentity.read(row.holder)
        if holder is not None and holder.is_dead():
            return True
        now = self._clock.monotonic()
        if self._seen is None or self._seen[0] != row:
            self._heard = self._seen is not None and self._seen[0].epoch == row.epoch
            self._seen = (row, now)
        return now - self._seen[1] >= self.seconds

    def _start_beating(self) -> None:
        self._finished = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._beating.start()

    def _beat(self) -> None:
        while not self._finished.wait(self.seconds / BEATS_PER_TERM):
            try:
                with contextlib.suppress(Fenced):
                    self._database.transact(self.confirm)
            except Exception as error:  # the database is away: the epoch decides when it is back
                log.warning("lease.beat_failed", error=type(error).__name__)
            if self.lost.is_set():
                log.warning("lease.lost", lease=self.name, epoch=self.epoch)
                return
            self._on_beat()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:13]
    except OSError:
        return ""


def _namespace() -> str:
    # Two containers count their processes apart: a pid says nothing outside its namespace.
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return ""


def _started(pid: str) -> str | None:
    """Clock ticks from boot to the start of a process, or None where there is no such process or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
