"""SQLite's two users in a process: one thread that writes, and one connection that reads.

SQLite takes one writer at a time. Writers that queue here wait without spinning on a busy file, and those that wait
together are committed together: one fsync for all of them, each in a savepoint of its own, each told after the commit.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import Connection, Engine

from service.platform import metrics
from service.platform.database_errors import is_transient
from service.platform.problem import TooManyRequests
from service.platform.retries import attempts

T = TypeVar("T")

GROUP_MAX = 64
QUEUE_MAX = 10_000


def raw(connection: Connection) -> sqlite3.Connection:
    """The driver's connection: transactions are begun here, statements on the hottest paths run here."""
    return cast(sqlite3.Connection, connection.connection.dbapi_connection)


class SqliteReader:
    """One connection kept open for reads; each unit sees one snapshot."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._raw: sqlite3.Connection | None = None

    def run(self, unit: Callable[[Connection], T]) -> T:
        """Run a unit on the calling thread."""
        with self._lock:
            connection, driver = self._open()
            driver.execute("BEGIN")
            try:
                return unit(connection)
            finally:
                driver.rollback()

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = self._raw = None

    def _open(self) -> tuple[Connection, sqlite3.Connection]:
        if self._connection is None or self._raw is None:
            self._connection = self._engine.connect()
            self._raw = raw(self._connection)
        return self._connection, self._raw


@dataclass(eq=False)
class _Job(Generic[T]):
    unit: Callable[[Connection], T]
    future: asyncio.Future[T]
    loop: asyncio.AbstractEventLoop
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        """Tell the waiting coroutine, on its loop; it may have gone away."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class _GroupLost(Exception):
    """The transaction ended before it was committed (as SQLite does when the disk is full): nothing is stored."""


class SqliteWriter:
    """The writer thread of a process. `exclusively()` is the same lock for callers on threads of their own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._jobs: queue.Queue[_Job[Any] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = False

    async def submit(self, unit: Callable[[Connection], T]) -> T:
        """Run a unit on the writer thread and return its result once it is durable."""
        if self._jobs.qsize() >= QUEUE_MAX:
            msg = f"{QUEUE_MAX} writes are waiting for the database."
            raise TooManyRequests(msg, retry_after_s=1)
        if self._thread is None:
            self._start()
        loop = asyncio.get_running_loop()
        job = _Job(unit, loop.create_future(), loop)
        self._jobs.put(job)
        result: T = await job.future
        return result

    @contextmanager
    def exclusively(self) -> Iterator[Connection]:
        """A write transaction on the calling thread."""
        with self._lock, self._engine.connect() as connection:
            driver = raw(connection)
            driver.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                driver.rollback()
                raise
            driver.commit()

    def close(self) -> None:
        """Finish the jobs that wait, then stop the thread."""
        with self._starting:
            self._closed = True
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()

    def _start(self) -> None:
        with self._starting:
            if self._closed:
                msg = "The database is closed."
                raise RuntimeError(msg)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="sqlite-writer", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        connection: Connection | None = None
        while (job := self._jobs.get()) is not None:
            group = self._gather(job)
            metrics.writer_queue_depth.set(self._jobs.qsize())
            try:
                connection = connection or self._engine.connect()
                self._run(connection, group)
            except BaseException as error:  # the thread outlives every failure, and the callers are told
                for waiting in group:
                    waiting.error = error
            _settle(group)
        if connection is not None:
            connection.close()

    def _gather(self, first: _Job[Any]) -> list[_Job[Any]]:
        group = [first]
        while len(group) < GROUP_MAX:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)  # the end comes after this group
                break
            group.append(job)
        return group

    def _run(self, connection: Connection, group: list[_Job[Any]]) -> None:
        try:
            self._retrying(connection, group)
        except _GroupLost:
            for job in group:
                self._alone(connection, job)

    def _alone(self, connection: Connection, job: _Job[Any]) -> None:
        try:
            self._retrying(connection, [job])
        except Exception as error:
            job.error = error.__cause__ if isinstance(error, _GroupLost) else error

    def _retrying(self, connection: Connection, group: list[_Job[Any]]) -> None:
        for attempt in attempts():
            with attempt, self._lock:
                _commit_together(connection, raw(connection), group)


def _commit_together(connection: Connection, driver: sqlite3.Connection, group: list[_Job[Any]]) -> None:
    driver.execute("BEGIN IMMEDIATE")
    try:
        for job in group:
            _run_in_savepoint(connection, driver, job)
        _commit(driver, group)
    except BaseException:
        driver.rollback()
        raise


def _commit(driver: sqlite3.Connection, group: list[_Job[Any]]) -> None:
    try:
        driver.execute("COMMIT")
    except sqlite3.Error as error:
        if is_transient(error) or len(group) == 1:
            raise
        raise _GroupLost from error  # one of them cannot be committed: alone, the others can


def _run_in_savepoint(connection: Connection, driver: sqlite3.Connection, job: _Job[Any]) -> None:
    driver.execute("SAVEPOINT unit")
    try:
        job.result, job.error = job.unit(connection), None
    except Exception as error:
        if is_transient(error):
            raise
        if not driver.in_transaction:
            raise _GroupLost from error
        driver.execute("ROLLBACK TO unit")
        job.error = error
    driver.execute("RELEASE unit")


def _settle(group: list[_Job[Any]]) -> None:
    # One wake-up of the event loop for the whole group.
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job[Any]]] = {}
    for job in group:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, jobs in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle_all, jobs)


def _settle_all(jobs: list[_Job[Any]]) -> None:
    for job in jobs:
        job.settle()
