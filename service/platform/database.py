"""The one door to SQL: engines, units of work, and retries of a whole unit.

A unit is a function of a Connection that runs in one transaction. It may run more than once (a deadlock, a busy file),
so it has no effects outside the database. Application code never commits: a unit that returns is committed, one that
raises is not.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import orjson
import structlog
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from service.platform import metrics
from service.platform.database_errors import is_disconnect, problem_of
from service.platform.problem import DatabaseDamaged, Problem, StorageUnavailable
from service.platform.retries import attempts
from service.platform.sqlite import SqliteReader, SqliteWriter, raw

T = TypeVar("T")
Unit = Callable[[Connection], T]

LOCK_TIMEOUT_MS = 5_000
STATEMENT_TIMEOUT_MS = 60_000
POOL_TIMEOUT_S = 5.0
DAMAGE_TOLD_EVERY_S = 60.0

log = structlog.get_logger()


class Database:
    """SQLite (WAL, one writer thread a process) or PostgreSQL (a pool), behind the same methods."""

    def __init__(self, url: str | URL, *, pool_size: int = 5, logs_damage: bool = True) -> None:
        """`url` is a SQLAlchemy URL; `pool_size` is the number of PostgreSQL connections. Connects on first use.

        A command that ends tells of damage in its own sentence and needs no line in a log: `logs_damage` False.
        """
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(self.url, read_only=False) if self.is_sqlite else _pool(self.url, pool_size)
        self._reading = (
            _sqlite_engine(self.url, read_only=True)
            if self.is_sqlite
            else self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        )
        self._writer = SqliteWriter(self.engine) if self.is_sqlite else None
        self._reader = SqliteReader(self._reading) if self.is_sqlite else None
        self._threads = ThreadPoolExecutor(pool_size, thread_name_prefix="sql")
        self.refusal: Problem | None = None
        """What is found against answering from this database at all; `run_read` and `run_write` raise it."""
        self.damage: DatabaseDamaged | None = None
        """What is known to be damaged in it; it answers what it can."""
        self._logs_damage = logs_damage
        self._damage_told_at: float | None = None

    def read(self) -> AbstractContextManager[Connection]:
        """A read-only transaction with one snapshot, rolled back at the end."""
        return self._translated(self._read())

    def write(self) -> AbstractContextManager[Connection]:
        """A transaction that commits when the block ends and rolls back when it raises; not retried."""
        return self._translated(self._write())

    def query(self, unit: Unit[T]) -> T:
        """Run a unit in a read-only transaction on this thread; retried as a whole on transient errors."""
        return self._retrying(lambda: _within(self._read, unit))

    def transact(self, unit: Unit[T]) -> T:
        """Run a unit in a write transaction on this thread; retried as a whole on transient errors."""
        return self._retrying(lambda: _within(self._write, unit))

    @contextmanager
    def maintenance(self) -> Iterator[Connection]:
        """A connection of its own outside transactions, for what runs in none; closed at the end with its settings."""
        with self._told(), self.engine.connect() as connection:
            if not self.is_sqlite:
                connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()
            yield connection

    async def run_read(self, unit: Unit[T]) -> T:
        """Run a unit in a read-only transaction.

        SQLite: on the event loop (a WAL read never waits, and a thread hop costs more than the read). PostgreSQL: in a
        thread.
        """
        if self.refusal is not None:
            raise self.refusal
        if self._reader is None:
            return await self._in_thread(lambda: self.query(unit))
        try:  # not `_told()`: this is the hottest path
            return self._reader.run(unit)
        except Exception as error:
            problem = self._noted(problem_of(error))
            if problem is None:
                raise
            raise problem from error

    async def run_write(self, unit: Unit[T]) -> T:
        """Run a unit in a write transaction that is durable when this returns; retried as a whole on transient errors.

        SQLite: on the writer thread, which commits units that wait together in one transaction, each in its savepoint.
        Raises StorageUnavailable, StorageFull, TooManyRequests, or what the unit raises.
        """
        if self.refusal is not None:
            raise self.refusal
        if self._writer is None:
            return await self._in_thread(lambda: self.transact(unit))
        with self._told():
            return await self._writer.submit(unit)

    def note_damage(self, damage: DatabaseDamaged) -> None:
        """Remember that the database is damaged, and log it, once a minute at most."""
        self.damage = damage
        metrics.database_damaged.set(1)
        now = time.monotonic()
        if not self._logs_damage:
            return
        if self._damage_told_at is None or now - self._damage_told_at >= DAMAGE_TOLD_EVERY_S:
            self._damage_told_at = now
            log.error("database.damaged", detail=damage.detail)

    def forgive_damage(self) -> None:
        """Forget the damage: all of the database was read and is sound."""
        self.damage = self._damage_told_at = None
        metrics.database_damaged.set(0)

    def close(self) -> None:
        """Finish what is running and let go of every connection."""
        if self._writer is not None:
            self._writer.close()
        if self._reader is not None:
            self._reader.close()
        self._threads.shutdown()
        self._reading.dispose()
        self.engine.dispose()

    def _noted(self, problem: Problem | None) -> Problem | None:
        if isinstance(problem, DatabaseDamaged):
            self.note_damage(problem)
        return problem

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise what callers are to be told in place of an error of the driver."""
        try:
            yield
        except Exception as error:
            problem = self._noted(problem_of(error))
            if problem is None:
                raise
            raise problem from error

    @contextmanager
    def _translated(self, transaction: AbstractContextManager[Connection]) -> Iterator[Connection]:
        with self._told(), transaction as connection:
            yield connection

    def _retrying(self, call: Callable[[], T]) -> T:
        with self._told():
            for attempt in attempts():
                with attempt:
                    return call()
        raise AssertionError  # pragma: no cover -- the attempts return or raise

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._reading.connect() as connection:
            if self.is_sqlite:
                raw(connection).execute("BEGIN")
            yield connection
            connection.rollback()

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        if self._writer is not None:
            with self._writer.exclusively() as connection:
                yield connection
            return
        with self.engine.connect() as connection:
            yield connection
            _commit(connection)


def _within(transaction: Callable[[], AbstractContextManager[Connection]], unit: Unit[T]) -> T:
    with transaction() as connection:
        return unit(connection)


def _commit(connection: Connection) -> None:
    try:
        connection.commit()
    except DBAPIError as error:
        if not is_disconnect(error):
            raise
        # Whether this commit happened is not known: repeating it could do it twice. The Idempotency-Key settles it.
        msg = "The connection to the database was lost during a commit."
        raise StorageUnavailable(msg) from error


def _sqlite_engine(url: URL, *, read_only: bool) -> Engine:
    if not url.database or url.database == ":memory:":
        msg = "The database URL must name a file: sqlite:////absolute/path.db"
        raise ValueError(msg)
    Path(url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # isolation_level None: the driver begins nothing by itself, every BEGIN is ours.
    arguments = {"isolation_level": None, "timeout": LOCK_TIMEOUT_MS / 1000}
    engine = create_engine(url, connect_args=arguments, pool_timeout=POOL_TIMEOUT_S, **_common())
    event.listen(engine, "connect", _read_only_pragmas if read_only else _pragmas)
    return engine


def _pragmas(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute(f"PRAGMA busy_timeout={LOCK_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")
    connection.execute("PRAGMA cache_size=-16000")
    # A savepoint that touches 16 pages spills its journal to a temporary file: a fifth of an acceptance's time there,
    # and a file with rows in it outside the home.
    connection.execute("PRAGMA temp_store=MEMORY")


def _read_only_pragmas(connection: sqlite3.Connection, record: object) -> None:
    _pragmas(connection, record)
    connection.execute("PRAGMA query_only=ON")


def _pool(url: URL, size: int) -> Engine:
    options = f"-c lock_timeout={LOCK_TIMEOUT_MS} -c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC"
    return create_engine(
        url,
        connect_args={"options": options, "connect_timeout": 5, "application_name": "expunge"},
        pool_size=size,
        max_overflow=2,
        pool_timeout=POOL_TIMEOUT_S,
        pool_recycle=1800,
        **_common(),
    )


def _common() -> dict[str, Any]:
    # hide_parameters: parameters are ids, and the text of an error may reach a log.
    return {"hide_parameters": True, "json_serializer": _dump, "json_deserializer": orjson.loads}


def _dump(value: Any) -> str:
    return orjson.dumps(value).decode()
