"""The bytes that a purge takes away, searched for without asking the service: in every file of home and server."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from service.platform import scrubbing_postgresql, tables
from service.platform.database import Database
from service.platform.redis import ErasureStream
from service.settings import Settings
from tests.factories.purges import PurgingHome, places_of, reader
from tests.postgres import PostgresServer

pytestmark = pytest.mark.P8

PAIRS = [(u, i) for u in range(1, 40) for i in range(1, 9) if (u + i) % 3] + [(1, 9), (2, 9)]


@pytest.fixture
def home_to_purge(settings: Settings, database: Database, stream: ErasureStream) -> PurgingHome:
    return PurgingHome(settings, database, stream)


@pytest.fixture
def folders(home_to_purge: PurgingHome, request: pytest.FixtureRequest) -> list[Path]:
    """The home, and the data folder of PostgreSQL where that is the database."""
    found = [home_to_purge.settings.home]
    if not home_to_purge.database.is_sqlite:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        found.append(server.socket_folder / "data")
    return found


def erase_user_and_item(home: PurgingHome) -> tuple[list[str], dict[str, bytes]]:
    """Have user 1 and item 9 forgotten; returns the erasures, and what must not be left of them."""
    home.record(*PAIRS)
    home.base(1)
    home.point(live=1, base=1)
    words = {"reason": f"reason-{home.tag}", "idempotency_key": f"key-{home.tag}"}
    ids = [home.accept(users=[1], **words), home.accept(items=[9])]
    needles = {
        "user": home.user(1).encode(),
        "item": home.item(9).encode(),
        "reason": words["reason"].encode(),
        "salt": str(home.domains.erasure(ids[0]).salt).encode(),
        "idempotency": hashlib.sha256(words["idempotency_key"].encode()).digest(),
        "vector": row_of_user_1(home),
    }
    return ids, needles


def row_of_user_1(home: PurgingHome) -> bytes:
    tensors: Any = home.store.open("versions", 1, "embeddings.safetensors")
    with home.database.read() as connection:
        key = connection.scalar(select(tables.users.c.key).where(tables.users.c.id == home.user(1)))
    row: bytes = tensors["users"][list(tensors["user_keys"]).index(key)].tobytes()
    return row


def test_nothing_of_an_erased_person_is_left_in_any_file(home_to_purge: PurgingHome, folders: list[Path]) -> None:
    """Ids, words, salt, keys of requests and vectors: all are there before, and none after."""
    home = home_to_purge
    ids, needles = erase_user_and_item(home)
    assert set(places_of(needles, *folders)) == set(needles)
    home.forget(*ids)
    scope = home.compact(3, *ids)

    report = home.purge(scope)

    assert places_of(needles, *folders) == {}
    assert report.done, report.undone
    assert not any(home.tag in sentence for sentence in (str(report.as_dict()), *report.undone))
    # Whoever was not erased is still there, and found by the same search.
    assert places_of({"other": home.user(2).encode()}, *folders)


def test_a_large_table_is_written_anew_where_that_is_asked_for(
    home_to_purge: PurgingHome, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without, PostgreSQL keeps bytes of dead rows in its pages, and the report says of which tables."""
    home = home_to_purge
    ids, needles = erase_user_and_item(home)
    home.forget(*ids)
    scope = home.compact(3, *ids)
    monkeypatch.setattr(scrubbing_postgresql, "SMALL_BYTES", 0)

    gentle = home.purge(scope)
    left = places_of(needles, *folders)
    hard = home.purge(scope, hard=True)

    assert bool(left) is bool(gentle.undone) is not home.database.is_sqlite
    assert places_of(needles, *folders) == {}
    assert hard.done, hard.undone


def test_a_reader_that_pins_the_past_is_told_and_the_next_purge_ends_it(
    home_to_purge: PurgingHome, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No error, and no word that it was done."""
    home = home_to_purge
    ids, needles = erase_user_and_item(home)
    scope = home.compact(3, *ids)
    monkeypatch.setattr("service.purge.purge.PATIENCE_S", 0.3)
    with reader(home.database):
        home.forget(*ids)

        report = home.purge(home.scope(3))

        assert report.steps["bytes"].undone, report.as_dict()
        assert "user" in places_of(needles, *folders)
    assert scope.erasures == ()

    again = home.purge(home.scope(3))

    assert again.done, again.undone
    assert places_of(needles, *folders) == {}


def test_a_slot_of_replication_that_keeps_old_log_is_told(
    settings: Settings, postgres_url: str, open_database: Any
) -> None:
    """It holds what was deleted for somebody who may never come for it."""
    home = PurgingHome(settings, open_database(postgres_url))
    ids, _ = erase_user_and_item(home)
    home.forget(*ids)
    scope = home.compact(3, *ids)
    slot = f"slot_{home.tag}"
    with home.database.maintenance() as connection:
        connection.execute(text(f"SELECT pg_create_physical_replication_slot('{slot}', true)"))
    try:
        report = home.purge(scope)
    finally:
        with home.database.maintenance() as connection:
            connection.execute(text(f"SELECT pg_drop_replication_slot('{slot}')"))

    assert any("replication slots" in sentence for sentence in report.undone)


def test_a_role_without_privileges_is_told_what_it_lacks(
    settings: Settings, postgres_url: str, open_database: Any
) -> None:
    """The service's role owns its tables and no more: rows go, the rest is left to the server, in so many words."""
    owner = open_database(postgres_url)
    role = f"plain_{settings.home.name.rpartition('-')[2]}"
    with owner.maintenance() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        for name in tables.metadata.tables:
            connection.execute(text(f"ALTER TABLE {name} OWNER TO {role}"))
    plain = Database(postgres_url.replace("expunge@", f"{role}@"))
    try:
        home = PurgingHome(settings, plain)
        ids, _ = erase_user_and_item(home)
        home.forget(*ids)
        report = home.purge(home.compact(3, *ids))
    finally:
        plain.close()
        with owner.maintenance() as connection:
            connection.execute(text(f"REASSIGN OWNED BY {role} TO expunge"))
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))

    told = " ".join(report.undone)
    assert "pg_checkpoint" in told
    assert "pg_statistic" in told
    assert report.steps["bytes"].counts["written_anew"] == 8
    assert home.tag not in told


def test_every_connection_of_sqlite_writes_zeros_over_what_it_deletes(sqlite: Database) -> None:
    """That which writes, that which reads, and that of maintenance."""
    with sqlite.read() as reading, sqlite.write() as writing, sqlite.maintenance() as keeping:
        for connection in (reading, writing, keeping):
            assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
