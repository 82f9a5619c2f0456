"""Taking away what compactions, and trainings that died, left behind; whoever holds the compactor's lease may."""

import contextlib

import structlog
from sqlalchemy import Connection

from model_store import StoreError
from service.audit import service as audit
from service.compaction import repository
from service.compaction.steps import NOT_DONE, CompactionStatus
from service.compactor.files import sweep
from service.models import service as models
from service.worker.lease import Lease
from service.worker.opening import WorkerDependencies
from service.worker.repository import journal
from service.worker.retention import TRAINING

log = structlog.get_logger()


def clean_after(dependencies: WorkerDependencies, lease: Lease) -> None:
    """Purge the bases of compactions that came to nothing, encoders of purged bases, and files of no use any more.

    Nobody trains meanwhile: whatever looks unfinished was left by a process that died. May be repeated at any time.
    """
    store, home = dependencies.store, dependencies.settings.home

    def unit(connection: Connection) -> str | None:
        audit.reserve(connection, 0)
        lease.confirm(connection)
        now = dependencies.clock.now()
        for compaction in repository.with_leftovers(connection):
            assert compaction.base_after is not None
            if compaction.base_after != compaction.base_before:
                models.mark_purged(connection, compaction.base_after)
            repository.change(connection, compaction.id, NOT_DONE, base_after=None)
        for batch in journal.unfinished(connection, TRAINING):
            journal.finish(connection, batch.id, "abandoned", now)
        running = repository.find_open(connection)
        return None if running is None or running.status != CompactionStatus.RUNNING else running.id

    running, numbers = dependencies.database.transact(unit), store.numbers("versions")
    orphans = dependencies.database.query(lambda connection: journal.orphans(connection, numbers))
    for number in orphans:
        store.withdraw("versions", [number])  # an alias file may lag behind SQL, where none names it
        log.info("version.purged", version=number)
    kept = frozenset(numbers) - frozenset(orphans)
    for number in store.numbers("encoders"):
        with contextlib.suppress(StoreError):  # a damaged one is the purge's to see to
            if store.manifest("encoders", number).facts.parent not in kept:
                store.purge("encoders", number)
                log.info("encoder.purged", encoder=number)
    sweep(home, running, kept)
