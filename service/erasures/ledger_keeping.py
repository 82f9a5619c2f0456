"""Keeping the ledger beside the database: what the audit log tells of erasures is appended to it within a second.

Every process runs a keeper, and whichever holds the lock of the ledger appends: no role is needed that could be down
while acceptances go on. An acceptance does not wait for it: the keeper reads SQL, so what was not appended when a
process died is appended by the next one.
"""

import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import structlog
from sqlalchemy import Connection

from model_store import ErasureLedger, LedgerRecord, ModelStore, StoreError
from service.erasures import ledger_repository as repository
from service.platform import metrics
from service.platform.database import Database
from service.platform.integrity import Finding
from service.platform.problem import Problem

POLL_SECONDS = 0.25
PAGE = 500
LATE_SECONDS = 10.0
VERIFY_AT_ONCE = 500

log = structlog.get_logger()


class LedgerKeeper:
    """The keeper of one process, on a thread of its own.

    Args:
        database: whose audit log is followed; nothing is appended while it refuses its units.
        store: holds the ledger.
        verify_every_s: how often the whole ledger is read through.
    """

    def __init__(self, database: Database, store: ModelStore, *, verify_every_s: float = 3600.0) -> None:
        self._database, self._ledger, self._verify_every_s = database, store.ledger, verify_every_s
        self._seen: int | None = None
        self._late_since: float | None = None
        self._error: str | None = None
        self._verified_at: float | None = None
        self._verifying: Iterator[LedgerRecord] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Follow the log in the background."""
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Append what there is, and end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def finding(self) -> Finding:
        """Whether the ledger is whole and follows."""
        if self._error is not None:
            return Finding("degraded", self._error)
        late = 0.0 if self._late_since is None else time.monotonic() - self._late_since
        if late > LATE_SECONDS:
            return Finding("degraded", f"The ledger has not been written for {late:.0f} s.")
        return Finding("ok", "holds every erasure that was accepted")

    def keep_up(self) -> bool:
        """Append what the log has more than the ledger; False where another process is at it, or the log is another.

        Raises:
            StoreError: the ledger is damaged, or cannot be written.
            Problem: the database does not answer.
        """
        if self._database.refusal is not None:
            return False
        size = self._database.query(repository.log_size)
        if size is None or size == self._seen:
            return size is not None
        with self._ledger.writing() as held:
            if not held:
                return False
            append_missing(self._database, self._ledger)
        self._seen = size
        return True

    def verify(self) -> bool:
        """Read some of the ledger, from where the last call ended; whether its end is reached. Raises Damaged."""
        if self._verifying is None:
            self._verifying = self._ledger.records()
        try:
            read = sum(1 for _ in islice(self._verifying, VERIFY_AT_ONCE))
        except StoreError:
            self._verifying = None
            raise
        if read == VERIFY_AT_ONCE:
            return False
        self._verifying = None
        return True

    def _work(self) -> None:
        while True:
            ending = self._stop.wait(POLL_SECONDS)
            self._round()
            if ending:
                return

    def _round(self) -> None:
        try:
            kept = self.keep_up()
            now = time.monotonic()
            if (self._verified_at is None or now - self._verified_at >= self._verify_every_s) and self.verify():
                self._verified_at = now
        except StoreError as error:
            self._tell(str(error))
            return
        except Problem:  # the database's own check tells
            kept = False
        except Exception as error:  # the keeper outlives every failure: without it a restored backup brings people back
            self._tell(f"{type(error).__name__}.")
            return
        self._tell(None)
        self._late_since = None if kept or self._database.refusal else self._late_since or time.monotonic()

    def _tell(self, error: str | None) -> None:
        if error is not None and error != self._error:
            log.error("ledger.not_kept", detail=error)
        metrics.ledger_failing.set(error is not None)
        self._error = error


def append_missing(database: Database, ledger: ErasureLedger) -> None:
    """Append what the audit log has after the ledger's last record, where it has that; only while `writing` is held.

    A log that lacks what the ledger ends with went back in time: that is found, and told, elsewhere.
    """
    more = True
    while more:
        last = ledger.last()
        seq, leaf = (0, "") if last is None else (last.seq, last.leaf)

        def unit(connection: Connection, seq: int = seq, leaf: str = leaf) -> list[dict[str, Any]]:
            return repository.entries_after(connection, seq, PAGE) if repository.agrees(connection, seq, leaf) else []

        records = database.query(unit)
        if records:
            ledger.append(records)
        more = len(records) == PAGE
