"""The compactor's life: look whether a compaction is asked for or due, take the lease, run it; until told to stop."""

import threading

import structlog

from service.compaction import repository, service
from service.compaction.problems import TrainingUnderway
from service.compaction.repository import Compaction
from service.compaction.steps import CompactionStatus
from service.compactor.cleaning import clean_after
from service.compactor.jobs import Trainer
from service.compactor.saga import CompactionSaga
from service.platform.logging import error_facts
from service.worker.lease import COMPACTOR, Lease
from service.worker.opening import WorkerDependencies

FAILED_PAUSE_S = 5.0

log = structlog.get_logger()


class Compactor:
    """Runs compactions. One at a time, however many compactors there are; the lease says whose it is.

    The lease is held only while there is something to do: trainings by hand take it, too.

    Args:
        dependencies: settings, database, store, stream, clock.
        stop: ends the work when set; what is under way is taken up by the next one.
        trainer: does the trainings.
    """

    def __init__(self, dependencies: WorkerDependencies, stop: threading.Event, trainer: Trainer) -> None:
        settings = dependencies.settings
        self.dependencies, self.stop = dependencies, stop
        self.lease = Lease(
            dependencies.database, seconds=settings.lease_seconds, clock=dependencies.clock, name=COMPACTOR
        )
        self._saga = CompactionSaga(dependencies, self.lease, stop, trainer)
        self._cleaned = False

    def run(self) -> None:
        """Work until `stop` is set."""
        try:
            while not self.stop.is_set():
                pause = self.dependencies.settings.compaction_check_seconds
                try:
                    self.round()
                except Exception as error:  # the compactor outlives every failure: without it nothing is erased
                    log.error("compactor.round_failed", **error_facts(error))
                    pause = max(pause, FAILED_PAUSE_S)
                self.stop.wait(pause)
        finally:
            self.lease.release()

    def round(self) -> None:
        """Look once, and run what there is to run."""
        if self.dependencies.integrity is not None:
            self.dependencies.integrity.ensure()
        compaction = self._wanted()
        if compaction is None and self._cleaned:
            return
        if not self.lease.acquire(self.stop, self.dependencies.settings.compaction_check_seconds):
            self._stand_by(compaction)
            return
        try:
            clean_after(self.dependencies, self.lease)
            self._cleaned = True
            if compaction is not None:
                self._saga.run(compaction.id)
        finally:
            self.lease.release()

    def _wanted(self) -> Compaction | None:
        """The compaction that waits or runs; where there is none, one that a trigger asks for now."""
        database, settings = self.dependencies.database, self.dependencies.settings
        now = self.dependencies.clock.now()
        found, due = database.query(
            lambda connection: (repository.find_open(connection), service.is_due(connection, settings, now))
        )
        if found is not None or not due:
            return found
        asked = database.transact(lambda connection: service.request_if_due(connection, settings, now))
        if asked is not None:
            log.info("compaction.due", compaction=asked.id, trigger=asked.trigger)
        return asked

    def _stand_by(self, compaction: Compaction | None) -> None:
        """Another holds the lease: a compactor that runs it already, or a training by hand, which is told."""
        if compaction is None or compaction.problem == TrainingUnderway.code:
            return
        waiting = (CompactionStatus.WAITING,)
        self.dependencies.database.transact(
            lambda connection: repository.change(connection, compaction.id, waiting, problem=TrainingUnderway.code)
        )
