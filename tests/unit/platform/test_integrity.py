"""A database that went back in time, and one with damaged pages: found, told, and not served from."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from sqlalchemy import insert, select, text, update

from model_store import Damaged, ModelStore, StoreMarkers, Watermark
from model_store.markers import WATERMARK
from service.platform import metrics
from service.platform.database import Database
from service.platform.integrity import Integrity, compare, raise_watermark, unknown_versions
from service.platform.page_check import PageCheck
from service.platform.problem import DatabaseBehind, DatabaseDamaged
from service.platform.tables import audit_entries, audit_head, batches, interactions, items, users
from tests.factories.versions import publish
from tests.unit.platform.conftest import Serve

NOW = datetime(2026, 11, 25, tzinfo=UTC)
PAGE = 4096


@pytest.fixture
def store(home: Path) -> ModelStore:
    return ModelStore(home / "store", key=b"k" * 32)


def happen(database: Database, times: int = 1, what: str = "x") -> None:
    """Write entries into the audit log, as every transition does."""
    with database.write() as connection:
        for _ in range(times):
            seq = (connection.scalar(select(audit_head.c.size)) or 0) + 1
            leaf = f"{what}{seq}".encode().ljust(32, b".")
            row = {"seq": seq, "at": NOW, "event": what, "body": "{}", "leaf_hash": leaf}
            connection.execute(insert(audit_entries).values(row))
            connection.execute(update(audit_head).values(size=seq))


def reserve(database: Database, version: int) -> None:
    with database.write() as connection:
        row = {"epoch": 1, "version": version, "step": "publish", "size": 1, "created_at": NOW}
        connection.execute(insert(batches).values(row))


@pytest.mark.P4
def test_a_database_that_went_back_in_time_is_found(database: Database, store: ModelStore):
    """The store has seen more of it; what is new since the mark is no sign."""
    happen(database, 3)
    raise_watermark(database, store)
    happen(database, 2)
    assert compare(database, store) is None

    with database.write() as connection:
        connection.execute(audit_entries.delete().where(audit_entries.c.seq > 2))
        connection.execute(update(audit_head).values(size=2))

    assert "has seen 3 entries" in str(compare(database, store))
    assert "the database has 2" in str(compare(database, store))


@pytest.mark.P4
def test_an_old_database_that_went_on_is_found(database: Database, store: ModelStore):
    """However much it grew: the entry that was marked is another one."""
    happen(database, 3)
    raise_watermark(database, store)
    with database.write() as connection:
        connection.execute(audit_entries.delete().where(audit_entries.c.seq > 2))
        connection.execute(update(audit_head).values(size=2))

    happen(database, 10, what="another")

    assert "another one in the database" in str(compare(database, store))


@pytest.mark.P4
def test_a_new_database_beside_a_used_store_is_found(
    database: Database, store: ModelStore, tmp_path: Path, open_database: Callable[[str], Database]
):
    """Even before it has a schema."""
    happen(database, 3)
    raise_watermark(database, store)
    bare = Database(f"sqlite:///{tmp_path}/bare.db")

    assert "no schema" in str(compare(bare, store))
    assert "has 0" in str(compare(open_database(f"sqlite:///{tmp_path}/new.db"), store))
    bare.close()


def test_what_a_crashed_batch_left_is_no_sign(database: Database, store: ModelStore):
    """Its number was reserved before its first byte was written; a number that nobody gave out is a sign."""
    happen(database)
    reserve(database, 2)
    publish(store, 2)
    assert compare(database, store) is None

    publish(store, 3)

    assert "version 3, a number that the database never gave out" in str(compare(database, store))
    assert unknown_versions(database, store) == [3]


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"checksum": "\xc3\xa9"}', b"7", b"[]", b"\xff"])
def test_a_watermark_that_is_none_is_damage(home: Path, content: bytes):
    """Whatever stands in its file."""
    markers = StoreMarkers(home / "store", b"k" * 32)
    markers.raise_watermark(Watermark(5, 2, 1, "aa"))
    (home / "store" / WATERMARK).write_bytes(content)

    with pytest.raises(Damaged):
        markers.watermark()


def test_the_watermark_only_rises(home: Path):
    """A late writer does not lower it; a torn or forged one is damaged, and can be written anew."""
    markers, mark = StoreMarkers(home / "store", b"k" * 32), Watermark(5, 2, 1, "aa")
    assert markers.watermark() is None
    markers.raise_watermark(mark)
    markers.raise_watermark(replace(mark, entries=4))
    assert markers.watermark() == mark
    assert sorted(path.name for path in (home / "store").iterdir()) == [".markers.lock", "watermark.json"]

    file = home / "store" / "watermark.json"
    file.write_text(file.read_text().replace('"entries": 5', '"entries": 6'))

    with pytest.raises(Damaged):
        markers.watermark()
    with pytest.raises(Damaged):
        StoreMarkers(home / "store", b"l" * 32).watermark()
    with pytest.raises(Damaged):
        markers.raise_watermark(replace(mark, entries=9))
    markers.raise_watermark(mark, anew=True)
    assert markers.watermark() == mark


def test_a_database_that_is_behind_answers_nobody(database: Database, store: ModelStore):
    """Neither reads nor writes, until it knows again what the store has seen."""
    happen(database, 3)
    integrity = Integrity(database, store)
    integrity.look()
    assert store.markers.watermark() is not None
    with database.write() as connection:
        connection.execute(update(audit_head).values(size=2))

    integrity.look()

    assert integrity.findings()["history"].status == "failed"
    assert metrics.database_behind._value.get() == 1
    for call in (database.run_read, database.run_write):
        with pytest.raises(DatabaseBehind):
            asyncio.run(call(lambda connection: connection.execute(text("SELECT 1"))))
    with pytest.raises(DatabaseBehind):
        integrity.ensure()
    with database.write() as connection:
        connection.execute(update(audit_head).values(size=3))
    integrity.look()
    integrity.ensure()
    assert asyncio.run(database.run_read(lambda connection: connection.scalar(text("SELECT 1")))) == 1
    assert metrics.database_behind._value.get() == 0


def test_readiness_names_what_is_found(serve: Serve, sqlite: Database, store: ModelStore):
    """503, and the cure, where the database is behind."""
    happen(sqlite, 3)
    integrity = Integrity(sqlite, store)
    integrity.start()
    client = serve(integrity=integrity)
    checks = client.get("/readyz?verbose").json()["checks"]
    assert (checks["history"]["status"], checks["pages"]["status"]) == ("ok", "ok")
    assert "read through" in checks["pages"]["detail"]

    with sqlite.write() as connection:
        connection.execute(update(audit_head).values(size=2))
    integrity.look()
    response = client.get("/readyz?verbose")

    assert response.status_code == 503
    assert "history" in response.json()["detail"]
    assert "restore the newest backup" in response.json()["checks"]["history"]["detail"]
    integrity.stop()


@pytest.fixture
def filled(home: Path, open_database: Callable[[str], Database]) -> Path:
    """A closed SQLite file of some hundred pages."""
    path = home / "filled.db"
    database = open_database(f"sqlite:///{path}")
    with database.write() as connection:
        for table, n in ((users, 3000), (items, 500)):
            rows = [{"id": f"{table.name}-{i:06d}-{'x' * 40}", "digest": i.to_bytes(32)} for i in range(n)]
            connection.execute(insert(table), rows)
        pairs = [{"user_key": i + 1, "item_key": i % 500 + 1, "recorded_at": NOW} for i in range(3000)]
        connection.execute(insert(interactions), pairs)
    database.close()
    return path


def pages_of(path: Path, name: str, kinds: tuple[int, ...]) -> list[int]:
    """Page numbers of a table or an index whose first byte says that they are of a kind."""
    with sqlite3.connect(path) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    connection.close()
    data, found, waiting = path.read_bytes(), [], [root]
    while waiting:
        number = waiting.pop()
        page = data[(number - 1) * PAGE : number * PAGE]
        if page[0] in kinds:
            found.append(number)
        if page[0] in (2, 5):  # interior: the children's numbers
            n_cells = int.from_bytes(page[3:5])
            cells = [int.from_bytes(page[12 + 2 * i : 14 + 2 * i]) for i in range(n_cells)]
            waiting += [int.from_bytes(page[cell : cell + 4]) for cell in cells] + [int.from_bytes(page[8:12])]
    return found


def flip(path: Path, number: int, offset: int = 0) -> None:
    """Write over the head of a page."""
    with path.open("r+b") as file:
        file.seek((number - 1) * PAGE + offset)
        file.write(b"\xee" * 8)


@pytest.mark.parametrize(
    ("name", "kinds", "table"),
    [
        ("users", (13,), "users"),
        ("users", (5,), "users"),
        ("sqlite_autoindex_users_1", (10,), "users"),
        ("ix_interactions_item_key", (10,), "interactions"),
        ("interactions", (10,), "interactions"),
    ],
)
def test_a_damaged_page_is_found_wherever_it_is(filled: Path, name: str, kinds: tuple[int, ...], table: str):
    """Leaves and inner pages of tables and of indexes: the table is named."""
    number = pages_of(filled, name, kinds)[-1]
    check = PageCheck(str(filled))
    assert check.run(30)
    assert check.damaged == []
    flip(filled, number)

    assert check.run(30)

    assert check.damaged == [table]


@pytest.mark.parametrize("offset", [0, 16, 100])
def test_a_damaged_header_is_found(filled: Path, offset: int):
    """The first page says what the file is."""
    flip(filled, 1, offset)

    check = PageCheck(str(filled))
    check.run(30)

    assert check.damaged == ["sqlite_schema"]


@pytest.mark.P10
def test_reading_through_goes_on_where_the_time_ended(filled: Path):
    """A large file is read in slices."""
    check = PageCheck(str(filled))

    assert not check.run(0)
    assert "still to be read" in check.told()
    assert check.run(30)
    assert "read through" in check.told()


def test_damage_is_told_and_serving_goes_on(filled: Path, store: ModelStore, serve: Serve):
    """Readiness fails, the log says so once, and callers are not told to try again; after a repair all is well."""
    sound = filled.with_suffix(".sound")
    shutil.copy(filled, sound)
    flip(filled, pages_of(filled, "users", (13,))[len(pages_of(filled, "users", (13,))) // 2])
    database = Database(f"sqlite:///{filled}")
    everybody = select(users)

    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(DatabaseDamaged) as refusal:
                asyncio.run(database.run_read(lambda connection: connection.execute(everybody).all()))
    integrity = Integrity(database, store)
    response = serve(database=database, integrity=integrity).get("/readyz?verbose")

    assert "SQLITE_CORRUPT" in refusal.value.detail
    assert "Try again" not in refusal.value.detail
    assert "Trying again does not help" in refusal.value.detail
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["database.damaged"]
    assert response.status_code == 503
    assert response.json()["checks"]["pages"]["status"] == "failed"
    assert metrics.database_damaged._value.get() == 1
    assert asyncio.run(database.run_read(lambda connection: connection.scalar(select(items.c.id).limit(1))))
    database.close()
    shutil.copy(sound, filled)
    database = Database(f"sqlite:///{filled}")
    database.note_damage(refusal.value)
    integrity = Integrity(database, store)
    integrity.start()
    integrity.ensure()
    integrity.stop()
    database.close()
    assert metrics.database_damaged._value.get() == 0


def test_damage_is_found_at_the_start(filled: Path, store: ModelStore):
    """Before anybody reads that page."""
    flip(filled, pages_of(filled, "users", (13,))[3])
    database = Database(f"sqlite:///{filled}")
    integrity = Integrity(database, store)

    integrity.start()

    assert integrity.findings()["pages"].status == "failed"
    assert "users" in integrity.findings()["pages"].detail
    with pytest.raises(DatabaseDamaged):
        integrity.ensure()
    integrity.stop()
    database.close()


def test_postgresql_says_when_its_data_are_corrupt():
    """Its own classes of errors."""
    import psycopg
    from sqlalchemy.exc import InternalError

    from service.platform.database_errors import problem_of

    for kind in (psycopg.errors.DataCorrupted, psycopg.errors.IndexCorrupted):
        problem = problem_of(InternalError("SELECT", {}, kind("invalid page in block 7 of relation x")))
        assert isinstance(problem, DatabaseDamaged)
        assert kind.sqlstate in problem.detail
