"""Compactions of a worker's home, with trainings in this process: a child would load torch anew for each."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from model_store import ModelStore
from service.compaction import repository, service
from service.compaction.repository import Compaction
from service.compaction.steps import CompactionTrigger
from service.compactor.compactor import Compactor
from service.compactor.jobs import AttemptRefused, HopelessTraining, Report, TrainingDied, TrainingJob, TrainingTrouble
from service.compactor.process import run_compactor
from service.compactor.training import perform
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.platform.identity import load_identity
from service.settings import Settings
from service.worker.opening import WorkerDependencies
from tests.factories.workers import Home


class TrainerHere:
    """Does the jobs in this process, and remembers them; `before` is called with each and may raise."""

    def __init__(self, place: Home, before: Callable[[TrainingJob], None] = lambda job: None) -> None:
        self.place, self.before, self.jobs = place, before, list[TrainingJob]()

    def run(self, job: TrainingJob, report: Report, check: Callable[[], None]) -> None:
        """Do one; what fails as a child would is told as of a child."""

        def told(share: float, note: str) -> None:
            report(share, note)
            check()

        check()
        self.jobs.append(job)
        self.before(job)
        try:
            perform(job, self.place.settings, self.place.database, self.place.store, told)
        except (AttemptRefused, HopelessTraining, TrainingTrouble):
            raise
        except MemoryError as error:
            raise TrainingDied from error

    def close(self) -> None:
        """There is nothing to let go of."""

    @property
    def seeds(self) -> list[tuple[str, int]]:
        """Kind and attempt of each job."""
        return [(job.kind, job.attempt) for job in self.jobs]


def compactor_of(place: Home, trainer: TrainerHere | None = None) -> Compactor:
    """A compactor of this home, not running."""
    identity = load_identity(place.settings)
    parts = WorkerDependencies(place.settings, place.database, place.store, None, SystemClock(), None, identity)
    return Compactor(parts, threading.Event(), trainer or TrainerHere(place))


def compact_here(settings: Settings) -> int:
    """What `python -m service.compactor` does, with the trainings in the same process."""
    database = Database(settings.sql_url)
    store = ModelStore(settings.store_root, key=load_identity(settings).derive("manifest"))
    try:
        return run_compactor(settings, None, TrainerHere(Home(settings, database, store)))
    finally:
        database.close()


@contextmanager
def compacting(compactor: Compactor) -> Iterator[Compactor]:
    """Run a compactor in a thread of this process; told to stop at the end."""
    thread = threading.Thread(target=compactor.run, name="compactor", daemon=True)
    thread.start()
    try:
        yield compactor
    finally:
        compactor.stop.set()
        thread.join(30)
    assert not thread.is_alive(), "The compactor did not stop within 30 s."


def asked(place: Home, trigger: CompactionTrigger = CompactionTrigger.OPERATOR) -> str:
    """Ask for a compaction; returns the id of the one that waits or runs."""
    at = SystemClock().now()
    return place.database.transact(lambda write: service.request_one(write, trigger, at))[0].id


def state(place: Home, compaction_id: str) -> Compaction:
    """How a compaction stands."""
    row = place.database.query(lambda read: repository.find(read, compaction_id))
    assert row is not None
    return row


def change(place: Home, compaction_id: str, **values: Any) -> None:
    """Change a compaction behind everybody's back."""
    status = (state(place, compaction_id).status,)
    place.database.transact(lambda write: repository.change(write, compaction_id, status, **values))
