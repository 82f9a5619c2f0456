"""The journal of a compaction under way: each change is one transaction that confirms the lease."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection

from service.audit import service as audit
from service.audit.service import AuditEvent
from service.compaction import repository
from service.compaction.repository import Compaction
from service.compaction.steps import CompactionStatus, CompactionStep
from service.compaction.triggers import LEARN_FROM
from service.compactor.progress import ExpectedTimes
from service.platform.clock import rfc3339
from service.platform.problem import Problem
from service.worker.lease import Lease
from service.worker.opening import WorkerDependencies

T = TypeVar("T")

SAY_S = 1.0
RUNNING = (CompactionStatus.RUNNING,)

log = structlog.get_logger()


class CompactionOver(Exception):
    """It runs no more: somebody cancelled it."""


class CompactionJournal:
    """One compaction in SQL, as the holder of the lease changes it.

    Raises, in every method: Fenced where the lease is another's, CompactionOver where it runs no more.
    """

    def __init__(self, dependencies: WorkerDependencies, lease: Lease, compaction_id: str) -> None:
        self.id = compaction_id
        self._database, self._clock, self._lease = dependencies.database, dependencies.clock, lease
        done = self._database.query(
            lambda connection: repository.ended(connection, LEARN_FROM, CompactionStatus.DONE.value)
        )
        self._expected = ExpectedTimes.of(done)
        self._said_at = -SAY_S

    def read(self) -> Compaction:
        """How it stands."""
        row = self._database.query(lambda connection: repository.find(connection, self.id))
        if row is None or row.status != CompactionStatus.RUNNING:
            raise CompactionOver
        return row

    def begin(self) -> None:
        """Have it run, where it waits; one that runs is taken up."""
        now = self._clock.now()
        waiting = (CompactionStatus.WAITING,)
        steps = {CompactionStep.SNAPSHOT.value: {"at": rfc3339(now)}}
        values = {"status": CompactionStatus.RUNNING.value, "started_at": now, "problem": None, "steps": steps}

        def unit(connection: Connection) -> bool:
            self._confirm(connection)
            return repository.change(connection, self.id, waiting, **values)

        if self._database.transact(unit):
            log.info("compaction.started", compaction=self.id)
        else:
            log.info("compaction.resumed", compaction=self.id, step=self.read().step)

    def enter(self, step: CompactionStep, unit: Callable[[Connection, Compaction], None] | None = None) -> None:
        """Write that a step begins, and what `unit` writes in the same transaction."""

        def entering(connection: Connection, row: Compaction, now: datetime) -> None:
            if unit is not None:
                unit(connection, row)
            progress = self._expected.document(step, 0.0, row.started_at, now, "")
            steps = {**_ended(row, now), step.value: {"at": rfc3339(now)}}
            repository.change(
                connection, self.id, RUNNING, step=step.value, steps=steps, progress=progress, problem=None
            )

        self.transact(entering)
        log.info("compaction.step", compaction=self.id, step=step.value)

    def transact(self, unit: Callable[[Connection, Compaction, datetime], T]) -> T:
        """Run a unit in a transaction that confirms the lease; it is given the compaction, which runs."""
        now = self._clock.now()

        def whole(connection: Connection) -> T:
            self._confirm(connection)
            row = repository.find(connection, self.id)
            if row is None or row.status != CompactionStatus.RUNNING:
                raise CompactionOver
            return unit(connection, row, now)

        return self._database.transact(whole)

    def end(
        self,
        status: CompactionStatus,
        problem: str | None = None,
        unit: Callable[[Connection, Compaction, datetime], dict[str, Any]] | None = None,
    ) -> None:
        """End it, with an entry in the log of `body` as `unit` gives it."""

        def ending(connection: Connection, row: Compaction, now: datetime) -> None:
            body = {} if unit is None else unit(connection, row, now)
            values = {"status": status.value, "finished_at": now, "problem": problem, "steps": _ended(row, now)}
            repository.change(connection, self.id, RUNNING, progress={}, **values)
            self.tell(connection, f"compaction.{status.value}", body | ({"code": problem} if problem else {}), now)

        self.transact(ending)
        log.info("compaction.ended", compaction=self.id, status=status.value, code=problem)

    def tell(self, connection: Connection, event: str, body: dict[str, Any], now: datetime) -> None:
        """Write an entry of the audit log."""
        entry = AuditEvent(event, {"compaction": self.id, **body})
        audit.write(connection, audit.reserve(connection), [entry], now)

    def note_problem(self, code: str | None) -> None:
        """Say what keeps it waiting; None: nothing any more."""

        def unit(connection: Connection, row: Compaction, _now: datetime) -> None:
            if row.problem != code:
                repository.change(connection, self.id, RUNNING, problem=code)

        if self.read().problem != code:
            self.transact(unit)
            if code is not None:
                log.warning("compaction.waits", compaction=self.id, code=code)

    def note_facts(self, **facts: Any) -> None:
        """Add to the figures on record."""
        self.transact(
            lambda connection, row, _now: repository.change(connection, self.id, RUNNING, facts={**row.facts, **facts})
        )

    def note_progress(self, step: CompactionStep, share: float, note: str = "") -> None:
        """Say how far a step is, at most once a second; a database that is away does not stop the step."""
        now = self._clock.monotonic()
        if now - self._said_at < SAY_S:
            return
        self._said_at = now

        def unit(connection: Connection) -> None:
            row = repository.find(connection, self.id)
            if row is not None:
                progress = self._expected.document(step, share, row.started_at, self._clock.now(), note)
                repository.change(connection, self.id, RUNNING, progress=progress)

        try:
            self._database.transact(unit)
        except Problem as problem:
            log.warning("compaction.progress_untold", code=problem.code)

    def _confirm(self, connection: Connection) -> None:
        audit.reserve(connection, 0)  # locked first by every transition
        self._lease.confirm(connection)


def _ended(row: Compaction, now: datetime) -> dict[str, dict[str, Any]]:
    """The steps so far, the one under way ended."""
    steps = {name: dict(step) for name, step in row.steps.items()}
    under_way = steps.get(row.step)
    if under_way is not None and under_way.get("seconds") is None:
        began = datetime.fromisoformat(str(under_way["at"]))
        under_way["seconds"] = round(max((now - began).total_seconds(), 0.0), 3)
    return steps
