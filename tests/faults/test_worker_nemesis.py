"""Random trouble under load, one seed a run: whatever happened, every promise holds once it is over."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import redis
from sqlalchemy import select

from service.erasures.problems import NotCancellable
from service.platform import tables
from service.platform.problem import Problem, StorageUnavailable
from tests.factories.workers import Home, copy_template, opened
from tests.faults.checker import check_at_rest, check_never_ahead, ids_of
from tests.faults.conftest import stream_of
from tests.faults.server import Server
from tests.faults.test_worker_kills import POINTS
from tests.faults.worker_processes import WorkerProcesses, stopped
from tests.unit.worker.waiting import eventually

SEEDS = range(int(os.environ.get("NEMESIS_SEED", "0")), int(os.environ.get("NEMESIS_SEED", "0")) + 8)
STEPS = 60


@pytest.fixture
def place(template: Path, home: Path, server: Server) -> Iterator[Home]:
    """An open home whose terms are short enough to run out often."""
    changes = {"redis_url": server.url, "redis_timeout_s": 0.3, "lease_seconds": 0.6, "batch_max": 4}
    with opened(copy_template(template, home, **changes)) as place:
        yield place


class Nemesis:
    """A caller that erases and cancels, and everything that can go wrong meanwhile."""

    def __init__(self, place: Home, processes: WorkerProcesses, server: Server, seed: int) -> None:
        self.place, self.processes, self.server = place, processes, server
        self.random = random.Random(seed)
        self.workers: list[BaseProcess] = []
        self.asleep: list[BaseProcess] = []
        self.accepted: set[str] = set()
        self.cancelled: set[str] = set()

    def step(self) -> str:
        """Do one random thing; returns its name."""
        trouble: list[tuple[int, Callable[[], None]]] = [
            (8, self.erase),
            (3, self.cancel),
            (3, self.kill),
            (2, self.doomed),
            (2, self.sleep),
            (3, self.wake),
            (1, self.flush),
            (1, self.lose_server),
            (2, self.copies),
        ]
        action = self.random.choices([do for _, do in trouble], [weight for weight, _ in trouble])[0]
        try:
            action()
        except StorageUnavailable:
            # A worker that sleeps in the middle of a commit keeps SQLite's only write lock; nothing was stored.
            self.wake()
        self._keep_two_workers()
        time.sleep(self.random.random() * 0.2)
        return action.__name__

    def erase(self) -> None:
        """Accept an erasure of any kind."""
        pair = self.random.choice(self.place.learnt)
        kind = self.random.random()
        if kind < 0.1:
            self.accepted.add(self.place.accept(users=[pair[0]]))
        elif kind < 0.15:
            self.accepted.add(self.place.accept(items=[pair[1]]))
        else:
            self.accepted.add(self.place.accept(pair))

    def cancel(self) -> None:
        """Cancel an erasure, if it is early enough."""
        if not self.accepted:
            return
        erasure_id = self.random.choice(sorted(self.accepted))
        try:
            self.place.cancel(erasure_id)
        except NotCancellable:
            return
        self.accepted.remove(erasure_id)
        self.cancelled.add(erasure_id)

    def kill(self) -> None:
        """kill -9 a worker."""
        self.random.choice(self.workers).kill()

    def doomed(self) -> None:
        """Start a worker that will kill itself at some step."""
        self.workers.append(self.processes.start(f"{self.random.choice(POINTS)}:kill"))

    def sleep(self) -> None:
        """Suspend a worker."""
        worker = self.random.choice(self.workers)
        if worker.is_alive() and worker.pid is not None:
            os.kill(worker.pid, signal.SIGSTOP)
            self.asleep.append(worker)

    def wake(self) -> None:
        """Wake who sleeps."""
        for worker in self.asleep:
            if worker.is_alive() and worker.pid is not None:
                os.kill(worker.pid, signal.SIGCONT)
        self.asleep.clear()

    def flush(self) -> None:
        """Lose the stream and its group."""
        client = redis.Redis.from_url(self.server.url)
        client.flushall()
        client.close()

    def lose_server(self) -> None:
        """Lose the server; it comes back empty."""
        self.server.kill()
        time.sleep(self.random.random())
        self.server.start()

    def copies(self) -> None:
        """Deliver what was delivered before, many times."""
        stream = stream_of(self.place)
        stream.publish(self.random.choices(sorted(self.accepted | self.cancelled | {"nobody"}), k=20))
        stream.close()

    def _keep_two_workers(self) -> None:
        self.workers = [worker for worker in self.workers if worker.is_alive()]
        while len(self.workers) < 2:
            self.workers.append(self.processes.start())


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.P1
@pytest.mark.P2
@pytest.mark.P5
@pytest.mark.P9
@pytest.mark.parametrize("seed", SEEDS)
def test_no_random_trouble_breaks_a_promise(seed: int, place: Home, server: Server) -> None:
    """Kills, sleeps, lost streams and servers, duplicates, cancellations; afterwards all is forgotten, once."""
    with WorkerProcesses(place.settings, place.settings.home / "worker.log") as processes:
        nemesis = Nemesis(place, processes, server, seed)
        nemesis._keep_two_workers()
        history = []
        for _ in range(STEPS):
            history.append(nemesis.step())
            check_never_ahead_retrying(place)
        print(f"seed {seed}: {' '.join(history)}")

        nemesis.wake()
        for worker in nemesis.workers:
            worker.kill()
        last = processes.start()
        eventually(lambda: works(place, last))
        eventually(lambda: not ids_of(place, "accepted"), 60)
        eventually(lambda: _drained(place), 30)
        assert stopped(last) == 0
    check_at_rest(place, nemesis.accepted, nemesis.cancelled)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.P1
def test_a_crash_loop_under_load_loses_nothing(place: Home) -> None:
    """kill -9 every fifth of a second for twenty seconds while erasures come in."""
    accepted, end = set(), time.monotonic() + 20
    with WorkerProcesses(place.settings, place.settings.home / "worker.log") as processes:
        while time.monotonic() < end:
            worker = processes.start()
            accepted.add(place.accept(random.Random(len(accepted)).choice(place.learnt)))
            time.sleep(0.2 + 0.2 * random.Random(len(accepted)).random())
            worker.kill()
        last = processes.start()
        eventually(lambda: works(place, last))
        eventually(lambda: not ids_of(place, "accepted"), 60)
        assert stopped(last) == 0
    check_at_rest(place, accepted)


def check_never_ahead_retrying(place: Home) -> None:
    """The check reads SQL and files one after the other while workers go on: what moved in between is read again."""
    for attempt in range(5):
        try:
            return check_never_ahead(place)
        except Exception:
            if attempt == 4:
                raise
            time.sleep(0.05)
    return None


def works(place: Home, worker: BaseProcess) -> bool:
    """Whether a worker holds the lease."""
    return f"/{worker.pid}/" in place.one(select(tables.leases.c.holder)).holder


def _drained(place: Home) -> bool:
    try:
        return stream_of(place).pending().length == 0
    except Problem:
        return False
