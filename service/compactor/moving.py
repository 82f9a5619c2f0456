"""Having the worker move live to the new base: it forgets first what was accepted meanwhile."""

import threading
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection

from service.compaction import repository
from service.compaction.repository import Compaction
from service.compaction.steps import CompactionStep
from service.compactor.jobs import AttemptRefused
from service.compactor.journal import CompactionJournal
from service.models import service as models
from service.platform.faults import fault_point
from service.platform.obstacles import obstacle_to, read_forgetting_state
from service.worker.opening import WorkerDependencies
from service.worker.repository import lineage

LOOK_S = 0.5
REFUSALS = 3
"""Versions of the new base that the worker's gate refuses one after another, before the base is held to be at fault."""
SETTLE_S = 60.0
"""Longest wait for the worker to forget what is to be erased with this compaction; the rest is left to the next."""


def point(journal: CompactionJournal) -> None:
    """Let the new base serve, and have the next versions come from it; done before, nothing changes."""

    def unit(connection: Connection, row: Compaction, now: datetime) -> None:
        assert row.base_after is not None
        if lineage.alias(connection, lineage.BASE) != row.base_after:
            models.admit(connection, row.base_after)
            lineage.point_base(connection, row.base_after, now)

    journal.transact(unit)
    fault_point("compactor.after_point")


def wait(
    journal: CompactionJournal, dependencies: WorkerDependencies, check: Callable[[], None], stop: threading.Event
) -> None:
    """Wait until live comes from the new base, telling what keeps the worker from it.

    Raises:
        AttemptRefused: the worker's gate refuses what comes from the new base.
    """
    row = journal.read()
    since = datetime.fromisoformat(str(row.steps[CompactionStep.MOVING]["at"]))
    database, clock = dependencies.database, dependencies.clock

    def look(connection: Connection) -> tuple[int | None, int, str | None, int]:
        live = lineage.read_state(connection).live
        obstacle = obstacle_to(read_forgetting_state(connection, clock.now()))
        return (
            None if live is None else live.base,
            repository.count_refused_moves(connection, since),
            None if obstacle is None or obstacle.code == "stream_away" else obstacle.code,
            repository.count_unforgotten(connection, journal.id),
        )

    moved_at: float | None = None
    while True:
        check()
        live_base, refusals, code, unforgotten = database.query(look)
        if live_base == row.base_after:
            moved_at = clock.monotonic() if moved_at is None else moved_at
            if not unforgotten or clock.monotonic() - moved_at > SETTLE_S:
                journal.note_problem(None)
                return
        elif refusals >= REFUSALS:
            raise AttemptRefused({"reasons": ["gate"], "refused_versions": refusals})
        journal.note_problem(code)
        journal.note_progress(CompactionStep.MOVING, 0.5)
        stop.wait(LOOK_S)
