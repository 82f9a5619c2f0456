import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from service.platform import sqlite as sqlite_module
from service.platform.database import Database
from service.platform.problem import DatabaseUnusable, StorageFull, StorageUnavailable, TooManyRequests
from service.platform.sqlite import raw
from service.platform.tables import leases


def put(name: str) -> Callable[[Connection], str]:
    def unit(connection: Connection) -> str:
        connection.execute(insert(leases).values(name=name, holder="h", epoch=1, beat=1))
        return name

    return unit


def names(database: Database) -> list[str]:
    return database.query(lambda read: list(read.scalars(select(leases.c.name).order_by(leases.c.name))))


def test_a_unit_that_returns_is_stored(database: Database):
    """Its result comes back once it is durable."""
    result = asyncio.run(database.run_write(put("a")))

    assert result == "a"
    assert names(database) == ["a"]


def test_a_unit_that_raises_stores_nothing(database: Database):
    """Neither what it wrote before it failed."""

    def unit(connection: Connection) -> None:
        put("a")(connection)
        raise KeyError("b")

    with pytest.raises(KeyError, match="b"):
        asyncio.run(database.run_write(unit))

    assert names(database) == []


def test_a_block_that_raises_stores_nothing(database: Database):
    """`write()` rolls back."""

    def fail_half_way() -> None:
        with database.write() as connection:
            put("a")(connection)
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()

    assert names(database) == []


def test_a_constraint_that_is_broken_reaches_the_caller(database: Database):
    """It is the domain's to decide what it means."""
    asyncio.run(database.run_write(put("a")))

    with pytest.raises(IntegrityError):
        asyncio.run(database.run_write(put("a")))


def test_reading_sees_what_was_written(database: Database):
    """A read after a write finds it."""

    async def write_then_read() -> int:
        await database.run_write(put("a"))
        return await database.run_read(lambda read: read.scalar(select(func.count()).select_from(leases))) or 0

    assert asyncio.run(write_then_read()) == 1


def test_a_read_transaction_cannot_write(database: Database):
    """The database itself refuses."""
    for read in (database.query, lambda unit: asyncio.run(database.run_read(unit))):
        with pytest.raises((DBAPIError, DatabaseUnusable)):
            read(put("a"))

    assert names(database) == []


def test_a_read_transaction_sees_one_snapshot(database: Database):
    """What others commit meanwhile stays out of it."""
    count = select(func.count()).select_from(leases)

    with database.read() as connection:
        before = connection.scalar(count)
        with database.write() as other:
            put("a")(other)
        after = connection.scalar(count)

    assert (before, after) == (0, 0)
    assert names(database) == ["a"]


@pytest.mark.P2
def test_units_that_run_together_lose_no_update(database: Database):
    """Fifty concurrent increments add up to fifty."""

    def increment(connection: Connection) -> None:
        connection.execute(update(leases).values(epoch=leases.c.epoch + 1))

    async def storm() -> None:
        await database.run_write(put("a"))
        await asyncio.gather(*(database.run_write(increment) for _ in range(50)))

    asyncio.run(storm())

    assert database.query(lambda read: read.scalar(select(leases.c.epoch))) == 51


def test_a_unit_that_fails_takes_no_neighbour_with_it(database: Database):
    """Of units that wait together, each is stored or not on its own."""

    def half(number: int) -> Callable[[Connection], str]:
        def unit(connection: Connection) -> str:
            put(f"half {number}")(connection)
            raise KeyError(number)

        return unit

    async def mixed() -> list[object]:
        units = [unit for number in range(7) for unit in (put(str(number)), half(number))]
        return list(await asyncio.gather(*(database.run_write(unit) for unit in units), return_exceptions=True))

    outcomes = asyncio.run(mixed())

    assert outcomes[::2] == names(database) == [str(number) for number in range(7)]
    assert all(isinstance(outcome, KeyError) for outcome in outcomes[1::2])


def test_a_transient_error_runs_the_whole_unit_again(database: Database):
    """Nothing of the first run is left."""
    runs = []

    def unit(connection: Connection) -> str:
        runs.append(len(runs))
        put(f"run {len(runs)}")(connection)
        if len(runs) < 3:
            raise _busy() if database.is_sqlite else _deadlock()
        return "done"

    assert asyncio.run(database.run_write(unit)) == "done"
    assert database.transact(lambda _: "fine") == "fine"
    assert names(database) == ["run 3"]


@pytest.mark.P10
def test_retries_come_to_an_end(database: Database):
    """Six runs, then the caller is told to come back."""
    runs = []

    def unit(connection: Connection) -> None:
        runs.append(1)
        raise _busy() if database.is_sqlite else _deadlock()

    with pytest.raises(StorageUnavailable):
        asyncio.run(database.run_write(unit))

    assert len(runs) == 6


def test_two_transactions_that_deadlock_both_end_stored(postgres_url: str, open_database: Callable[[str], Database]):
    """PostgreSQL stops one of them; its unit is run again."""
    database = open_database(postgres_url)
    database.transact(put("a"))
    database.transact(put("b"))
    both_hold_one = threading.Barrier(2)

    def swap(first: str, second: str) -> Callable[[Connection], None]:
        tried: list[int] = []

        def unit(connection: Connection) -> None:
            bump(connection, first)
            if not tried:
                tried.append(1)
                both_hold_one.wait(10)
            bump(connection, second)

        return unit

    def bump(connection: Connection, name: str) -> None:
        connection.execute(update(leases).where(leases.c.name == name).values(beat=leases.c.beat + 1))

    async def cross() -> None:
        await asyncio.gather(database.run_write(swap("a", "b")), database.run_write(swap("b", "a")))

    asyncio.run(cross())

    assert database.query(lambda read: list(read.scalars(select(leases.c.beat)))) == [3, 3]


def test_another_process_that_holds_the_file_is_waited_for(sqlite: Database):
    """A busy file is no error while it is short."""
    other = sqlite3.connect(str(sqlite.url.database), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    release.start()

    asyncio.run(sqlite.run_write(put("a")))

    release.join()
    other.close()
    assert names(sqlite) == ["a"]


def test_reads_go_on_while_somebody_writes(sqlite: Database):
    """WAL: a reader waits for no writer."""
    with sqlite.write() as writing:
        put("a")(writing)
        seen = asyncio.run(sqlite.run_read(lambda read: read.scalar(select(func.count()).select_from(leases))))

    assert seen == 0


def test_a_caller_that_goes_away_leaves_the_writer_working(sqlite: Database):
    """A cancelled request is stored or not; the next one is served."""

    async def leave() -> str:
        going = asyncio.create_task(sqlite.run_write(put("a")))
        await asyncio.sleep(0)
        going.cancel()
        return await sqlite.run_write(put("b"))

    assert asyncio.run(leave()) == "b"
    assert "b" in names(sqlite)


def test_a_unit_that_ends_the_transaction_takes_no_neighbour_with_it(sqlite: Database):
    """As SQLite itself may when the disk is full: the others are run again, alone."""

    def break_off(connection: Connection) -> None:
        raw(connection).execute("ROLLBACK")
        raise KeyError

    async def beside() -> list[object]:
        units = (put("a"), break_off, put("b"))
        return list(await asyncio.gather(*(sqlite.run_write(unit) for unit in units), return_exceptions=True))

    first, failed, last = asyncio.run(beside())

    assert (first, last) == ("a", "b")
    assert isinstance(failed, KeyError)
    assert names(sqlite) == ["a", "b"]


@pytest.mark.P1
def test_nobody_is_told_before_the_commit(sqlite: Database):
    """A commit that fails is an error for whoever asked for it, and for nobody beside."""

    def impossible(connection: Connection) -> str:
        connection.execute(text("PRAGMA defer_foreign_keys=ON"))
        connection.execute(text("INSERT INTO interactions VALUES (1, 2, '2026-11-21 00:00:00')"))
        return "stored"

    async def beside() -> list[object]:
        units = (put("a"), impossible, put("b"))
        return list(await asyncio.gather(*(sqlite.run_write(unit) for unit in units), return_exceptions=True))

    first, failed, last = asyncio.run(beside())

    assert (first, last) == ("a", "b")
    assert isinstance(failed, sqlite3.IntegrityError)
    assert names(sqlite) == ["a", "b"]


@pytest.mark.P10
def test_writes_beyond_the_bound_are_turned_away(sqlite: Database, monkeypatch: pytest.MonkeyPatch):
    """Nothing is stored, and the caller hears when to come back."""
    monkeypatch.setattr(sqlite_module, "QUEUE_MAX", 0)

    with pytest.raises(TooManyRequests) as refusal:
        asyncio.run(sqlite.run_write(put("a")))

    assert refusal.value.headers["Retry-After"] == "1"


def test_a_full_disk_is_told_and_reads_go_on(sqlite: Database):
    """507 for the writers; what is stored stays readable; the next write is served when there is room."""
    asyncio.run(sqlite.run_write(put("a")))
    with sqlite.write() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar()
    writer = sqlite._writer
    assert writer is not None

    def fill(connection: Connection) -> None:
        connection.execute(text(f"PRAGMA max_page_count={pages}"))
        put("x" * 32)(connection)
        connection.execute(text("CREATE TABLE big (b)"))
        connection.execute(text("INSERT INTO big VALUES (zeroblob(10000000))"))

    async def beside() -> list[object]:
        return list(await asyncio.gather(sqlite.run_write(fill), sqlite.run_write(put("b")), return_exceptions=True))

    full, stored = asyncio.run(beside())

    assert isinstance(full, StorageFull)
    assert stored == "b"
    assert names(sqlite) == ["a", "b"]


def test_a_database_without_a_schema_says_what_to_run(database_url: str):
    """Instead of a stack trace."""
    database = Database(database_url)

    with pytest.raises(StorageUnavailable, match="expunge db upgrade"):
        asyncio.run(database.run_write(put("a")))
    with pytest.raises(StorageUnavailable, match="expunge db upgrade"):
        asyncio.run(database.run_read(lambda read: read.execute(select(leases)).all()))

    database.close()


def test_a_database_that_is_away_is_told_as_such(tmp_path: Path):
    """503, after bounded retries."""
    database = Database(f"postgresql+psycopg://nobody@/x?host={tmp_path}")

    with pytest.raises(StorageUnavailable):
        asyncio.run(database.run_read(lambda read: read.execute(text("SELECT 1"))))

    database.close()


def test_a_connection_that_was_cut_is_replaced(postgres_url: str, open_database: Callable[[str], Database]):
    """A restart of the server costs a retry, not an error."""
    database = open_database(postgres_url)
    asyncio.run(database.run_write(put("a")))
    kill = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    other = Database(postgres_url)
    with other.write() as connection:
        connection.execute(kill)
    other.close()

    assert asyncio.run(database.run_write(put("b"))) == "b"


def test_a_commit_whose_outcome_is_unknown_is_not_repeated(
    postgres_url: str, open_database: Callable[[str], Database], monkeypatch: pytest.MonkeyPatch
):
    """It may have happened: the caller is told to ask again with the same key."""
    database = open_database(postgres_url)
    runs = []

    def unit(connection: Connection) -> None:
        runs.append(1)
        put("a")(connection)
        driver = connection.connection.dbapi_connection
        assert driver is not None
        monkeypatch.setattr(driver, "commit", lambda: driver.close() or _lost())

    with pytest.raises(StorageUnavailable, match="Idempotency-Key"):
        asyncio.run(database.run_write(unit))

    assert runs == [1]


@pytest.mark.P8
def test_the_text_of_an_error_holds_no_parameter(database: Database):
    """Parameters are ids, and texts may be logged."""
    with pytest.raises(DBAPIError) as failure, database.write() as connection:
        connection.execute(text("SELECT :id, nowhere FROM users"), {"id": "ana@example.org"})

    assert "ana@example.org" not in str(failure.value)


@pytest.mark.P8
def test_sqlite_overwrites_what_it_forgets(sqlite: Database):
    """secure_delete is on, on every connection that writes; commits are forced to the disk."""
    with sqlite.write() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("secure_delete", "synchronous", "foreign_keys", "journal_mode")
        }

    assert pragmas == {"secure_delete": 1, "synchronous": 2, "foreign_keys": 1, "journal_mode": "wal"}


def test_a_database_in_memory_is_refused():
    """Two processes would each have one of their own."""
    with pytest.raises(ValueError, match="must name a file"):
        Database("sqlite://")


def test_closing_waits_for_what_was_asked(sqlite: Database):
    """A unit that was submitted is stored before the connections go."""

    async def submit() -> None:
        writing = [asyncio.create_task(sqlite.run_write(put(str(n)))) for n in range(20)]
        await asyncio.sleep(0)
        await asyncio.to_thread(sqlite.close)
        await asyncio.gather(*writing)

    asyncio.run(submit())

    assert len(names(Database(str(sqlite.url)))) == 20


def _busy() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


def _deadlock() -> Exception:
    import psycopg

    return psycopg.errors.DeadlockDetected()


def _lost() -> None:
    import psycopg

    raise psycopg.OperationalError("server closed the connection unexpectedly")
