"""The purge: in five steps everything goes that erased erasures left, and that can be taken away from here.

Each step may be run again, whole or after it was cut off: it takes away what is there. On record first, bytes after:
what was cut off in between is found again by what is on record.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import Connection

from model_store import ModelStore, StoreError
from model_store.files import erase_folder, sync_folder
from service.audit import service as audit
from service.audit.service import AuditEvent
from service.models import service as models
from service.models.problems import VersionInUse
from service.platform.clock import Clock
from service.platform.database import Database
from service.platform.faults import fault_point
from service.platform.problem import Problem
from service.platform.redis import ErasureStream
from service.platform.scrubbing import scrub
from service.purge import repository
from service.purge.problems import LiveNotFromBase
from service.purge.report import PurgeReport, PurgeStepReport
from service.purge.versions import ModelsToPurge, choose
from service.settings import MEBIBYTE, Settings

STEPS: Final = ("versions", "rows", "stream", "files", "bytes")
ERASURES_TOGETHER, TARGETS_TOGETHER = 100, 5_000  # in one transaction, meanwhile nothing is accepted
DIGESTS_TOGETHER = 500
REWRITE_TIMEOUT_S = 60.0
PATIENCE_S = 10.0  # for readers that see what was there: longer ones are told, and waited for by who purges again
TABLES = ("users", "items", "interactions", "erasures", "erasure_targets", "suppressions", "outbox", "idempotency")
"""From which rows of a person are deleted, or in which they are changed."""

_AFTER: Final[dict[str, Callable[[], None]]] = {
    "versions": lambda: fault_point("purge.after_versions"),
    "rows": lambda: fault_point("purge.after_rows"),
    "stream": lambda: fault_point("purge.after_stream"),
    "files": lambda: fault_point("purge.after_files"),
    "bytes": lambda: fault_point("purge.after_bytes"),
}

log = structlog.get_logger()


@dataclass(frozen=True)
class PurgeScope:
    """What is purged: the `erasures` that a compaction is to erase, and all that was made from before `base`."""

    compaction_id: str
    base: int
    erasures: tuple[str, ...]


def scope(connection: Connection, compaction_id: str, base: int) -> PurgeScope:
    """The erasures of a compaction that can be erased now: forgotten, not under legal hold, not decided."""
    return PurgeScope(compaction_id, base, tuple(repository.erasable(connection, compaction_id)))


class Purge:
    """Purges what a compaction is to erase.

    Args:
        database: of the service.
        store: of the same home.
        stream: of the service; None where there is no Redis.
        settings: the home, and how long tombstones stay.
        clock: gives the instants on record.
        confirm: called in each transaction; raises where this process may no longer purge.
        on_step: told the name of each step before it begins.
    """

    def __init__(
        self,
        database: Database,
        store: ModelStore,
        stream: ErasureStream | None,
        settings: Settings,
        clock: Clock,
        confirm: Callable[[Connection], None],
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._database, self._store, self._stream = database, store, stream
        self._settings, self._clock, self._confirm, self._on_step = settings, clock, confirm, on_step

    def run(self, scope: PurgeScope, *, hard: bool = False) -> PurgeReport:
        """Purge; `hard` has pages of the database written anew, which locks out others meanwhile. May be run again.

        Raises:
            LiveNotFromBase: the models have not moved to the scope's base, or moved on; nothing was purged.
            StoreError: the store cannot be written.
            Problem: the database does not answer. And what `confirm` raises.
        """
        work: dict[str, Callable[[PurgeScope, PurgeStepReport], None]] = {
            "versions": self._purge_versions,
            "rows": self._purge_rows,
            "stream": self._purge_stream,
            "files": self._purge_files,
            "bytes": partial(self._purge_bytes, hard=hard),
        }
        steps = {}
        for name in STEPS:
            self._on_step(name)
            self._database.transact(self._confirm)
            began = time.monotonic()
            steps[name] = PurgeStepReport()
            work[name](scope, steps[name])
            steps[name].seconds = time.monotonic() - began
            log.info("purge.step_done", step=name, seconds=round(steps[name].seconds, 3))
            _AFTER[name]()
        report = PurgeReport(scope.compaction_id, hard, steps)
        for sentence in report.undone:
            log.warning("purge.undone", detail=sentence)
        return report

    def _purge_versions(self, scope: PurgeScope, report: PurgeStepReport) -> None:
        chosen = self._database.transact(partial(self._mark_purged, scope=scope))
        fault_point("purge.versions_marked")
        self._store.withdraw("versions", [*chosen.recorded, *chosen.stray])
        self._store.withdraw("encoders", chosen.encoders)
        self._store.clean()
        report.counts |= {
            "versions": len(chosen.recorded),
            "stray_versions": len(chosen.stray),
            "encoders": len(chosen.encoders),
        }

    def _mark_purged(self, connection: Connection, scope: PurgeScope) -> ModelsToPurge:
        audit.reserve(connection, 0)  # no alias moves until this is committed
        self._confirm(connection)
        rows = {row.version: row for row in models.all_versions(connection)}
        if scope.base not in rows or models.base_of_live(connection) != scope.base:
            raise LiveNotFromBase
        chosen = choose(rows, scope.base, self._store)
        try:
            models.purge(connection, chosen.recorded, self._clock.now())
        except VersionInUse as error:  # the base in use is an older one, or about to be
            raise LiveNotFromBase(error.detail) from error
        return chosen

    def _purge_rows(self, scope: PurgeScope, report: PurgeStepReport) -> None:
        for ids in self._chunks(scope):
            _add(report, self._database.transact(partial(self._purge_erasures, ids=ids)))
            fault_point("purge.rows_chunk")
        while count := self._database.transact(self._purge_cancelled):
            _add(report, {"targets": count})
        for name, find, erase in (
            ("users", repository.unneeded_users, repository.delete_users),
            ("items", repository.unneeded_items, repository.delete_items),
        ):
            after: bytes | None = b""
            while after is not None:
                keys, after = self._database.query(partial(find, after=after, limit=DIGESTS_TOGETHER))
                if keys:
                    unit = partial(self._purge_vocabulary, name=name, keys=keys, erase=erase)
                    _add(report, {name: self._database.transact(unit)})

    def _chunks(self, scope: PurgeScope) -> Iterator[list[str]]:
        """The erasures in their order, as many together as one transaction takes; a large one alone."""
        sizes = self._database.query(partial(repository.requested, ids=scope.erasures))
        chunk: list[str] = []
        targets = 0
        for erasure in scope.erasures:
            size = sizes.get(erasure, 0)
            if chunk and (len(chunk) == ERASURES_TOGETHER or targets + size > TARGETS_TOGETHER):
                yield chunk
                chunk, targets = [], 0
            chunk.append(erasure)
            targets += size
        if chunk:
            yield chunk

    def _purge_erasures(self, connection: Connection, ids: list[str]) -> dict[str, int]:
        # The log's head first, as in every transition: what is decided about an erasure is decided before or after.
        audit.reserve(connection, 0)
        self._confirm(connection)
        now = self._clock.now()
        return repository.purge_rows(connection, ids, now, now + timedelta(days=self._settings.tombstone_days))

    def _purge_cancelled(self, connection: Connection) -> int:
        audit.reserve(connection, 0)
        self._confirm(connection)
        return repository.purge_cancelled_targets(connection, TARGETS_TOGETHER)

    def _purge_vocabulary(
        self, connection: Connection, name: str, keys: list[int], erase: Callable[[Connection, list[int]], int]
    ) -> int:
        # Nothing is recorded meanwhile. The entry has an import that runs look its keys up again.
        audit.reserve(connection, 0)
        self._confirm(connection)
        count = erase(connection, keys)
        if count:
            entry = AuditEvent("vocabulary.purged", {"count": count, "kind": name})
            audit.write(connection, audit.reserve(connection), [entry], self._clock.now())
        return count

    def _purge_stream(self, scope: PurgeScope, report: PurgeStepReport) -> None:
        if self._stream is None:
            return
        try:
            report.counts["entries"] = self._stream.remove(scope.erasures)
            if not self._stream.write_anew(REWRITE_TIMEOUT_S):
                report.undone.append("Redis keeps no append-only file: an older snapshot of it keeps the entries.")
        except Problem as problem:  # ids of erasures alone, and the next purge comes
            report.undone.append(f"Redis: {problem.detail or problem.title}")

    def _purge_files(self, scope: PurgeScope, report: PurgeStepReport) -> None:
        home = self._settings.home
        self._store.clean()
        try:
            self._store.markers.clean()
        except StoreError as error:
            report.undone.append(f"The store: {error}")
        count = 0
        for path in (*_children(home / "checkpoints", "*"), *_children(home / "valkey", "appendonlydir.damaged-*")):
            try:
                erase_folder(path)
                sync_folder(path.parent)
            except OSError as error:
                report.undone.append(f"{path.parent.name}/{path.name}: {type(error).__name__}.")
            else:
                count += 1
        report.counts["files"] = count

    def _purge_bytes(self, scope: PurgeScope, report: PurgeStepReport, *, hard: bool) -> None:
        limit = self._settings.purge_wal_mb * MEBIBYTE
        result = scrub(self._database, TABLES, hard=hard, wal_max_bytes=limit, patience_s=PATIENCE_S)
        report.undone += result.undone
        report.counts |= result.counts


def _children(folder: Path, pattern: str) -> Iterator[Path]:
    return iter(sorted(folder.glob(pattern)) if folder.is_dir() else ())


def _add(report: PurgeStepReport, counts: dict[str, int]) -> None:
    for name, count in counts.items():
        report.counts[name] = report.counts.get(name, 0) + count
