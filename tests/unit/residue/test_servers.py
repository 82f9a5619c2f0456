"""The search of a PostgreSQL server's files, and of a Valkey server and its files."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import text, update
from sqlalchemy.engine import make_url

from service.platform import tables
from service.platform.database import Database
from service.platform.embedded import EmbeddedValkey
from service.platform.redis import ErasureStream, Message
from service.residue.report import StoreResult, Verdict
from tests.unit.residue.conftest import REASON, ZOE, Aftermath

pytestmark = pytest.mark.P8


def result_of(aftermath: Aftermath, store: str) -> StoreResult:
    (found,) = [result for result in aftermath.search().stores if result.store == store]
    return found


def outside(database: Database, *statements: str) -> None:
    """Run statements outside transactions."""
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(text(statement))


def vacuum(database: Database) -> None:
    outside(database, "VACUUM FULL", "CHECKPOINT")


@pytest.fixture
def reader(on_postgresql: Aftermath) -> Iterator[psycopg.Connection]:
    """Somebody who reads for long."""
    url = make_url(str(on_postgresql.world.settings.database_url))
    with closing(
        psycopg.connect(dbname=url.database, user=url.username, host=url.query["host"], port=url.query["port"])
    ) as connection:
        yield connection


def test_a_vacuumed_database_is_gone_but_for_its_log(on_postgresql: Aftermath) -> None:
    """The segments that were written hold it until they are written over: that is PRESENT, with what keeps them."""
    vacuum(on_postgresql.database)
    found = {result.store.value: result for result in on_postgresql.search().stores}
    files, log = found["database_files"], found["write_ahead_log"]

    assert (files.verdict, files.places, files.unread) == (Verdict.GONE, [], [])
    assert {place.place.rpartition("(")[2] for place in files.allowed} == {"suppressions)"}
    assert files.n_bytes > 1_000_000
    assert log.verdict is Verdict.PRESENT
    assert {place.place.partition("/")[0] for place in log.places} == {"pg_wal"}
    assert {"id", "reason", "salt"} <= {place.kind.value for place in log.places}
    assert all("min_wal_size" in str(place.note) for place in log.places)
    assert found["columns"].verdict is Verdict.GONE


def test_a_dead_row_is_found_with_what_pins_it(on_postgresql: Aftermath, reader: psycopg.Connection) -> None:
    """A reader that began before keeps VACUUM from taking it away."""
    database = on_postgresql.database
    vacuum(database)
    with database.write() as write:
        write.execute(update(tables.erasures).where(tables.erasures.c.id == on_postgresql.pair).values(reason=REASON))
    reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    reader.execute("SELECT 1 FROM users")
    with database.write() as write:
        write.execute(update(tables.erasures).values(reason=None))
    outside(database, "VACUUM erasures", "CHECKPOINT")

    pid = reader.info.backend_pid
    found = result_of(on_postgresql, "database_files")
    assert {(place.kind.value, place.place.rpartition(" ")[2]) for place in found.places} == {("reason", "(erasures)")}
    assert all(f"process {pid}" in str(place.note) for place in found.places)

    reader.rollback()
    outside(database, "VACUUM erasures", "CHECKPOINT")
    assert result_of(on_postgresql, "database_files").places == []


def test_a_column_of_any_type_is_searched(on_postgresql: Aftermath) -> None:
    """As the database spells it."""
    with on_postgresql.database.write() as write:
        write.execute(text("CREATE TABLE notes (plain text, bytes bytea, page jsonb, list text[], at timestamptz)"))
        write.execute(
            text("INSERT INTO notes VALUES (:t, :b, jsonb_build_object('of', CAST(:t AS text)), ARRAY[:t], now())"),
            {"t": "x Zoe's " + REASON, "b": b"\0" + on_postgresql.salt},
        )

    found = {(place.place, place.kind.value) for place in result_of(on_postgresql, "columns").places}
    assert found == {
        ("notes.plain", "reason"),
        ("notes.bytes", "salt"),
        ("notes.page", "reason"),
        ("notes.list", "reason"),
    }


def test_a_role_without_the_grants_is_told_which(on_postgresql: Aftermath) -> None:
    """Files that may not be read are not checked; with the grants they are."""
    database, role = on_postgresql.database, f"app_{on_postgresql.home.name[-6:]}".lower()
    outside(
        database,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT USAGE ON SCHEMA public TO {role}",
    )
    url = make_url(str(on_postgresql.world.settings.database_url)).set(username=role)
    try:
        on_postgresql.world.database = Database(url)
        files = result_of(on_postgresql, "database_files")
        assert files.verdict is Verdict.NOT_CHECKED
        grants = files.unread[0].partition("run: ")[2]
        assert f'"{role}"' in grants

        outside(database, *(each for each in grants.split("; ") if each))
        files = result_of(on_postgresql, "database_files")
        assert files.n_bytes > 1_000_000
        assert "memory alone" in " ".join(files.unread)
    finally:
        on_postgresql.world.database.close()
        outside(database, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_the_stream_and_its_files_are_searched(aftermath: Aftermath, valkey: ErasureStream) -> None:
    """An entry, a dead letter, and what the append-only file remembers of entries that went."""
    valkey.publish([aftermath.whole, aftermath.pair])
    valkey.dead_letter(Message("0-1", aftermath.pair), "x")
    name = aftermath.world.settings.stream
    assert {place for store, place, _ in aftermath.places() if store == "stream"} == {name, f"{name}:dead"}

    for message in valkey.read(count=10, block_ms=10):
        valkey.ack([message.entry_id])
    found = aftermath.places()
    assert {place for store, place, _ in found if store == "stream"} == {f"{name}:dead"}
    (file,) = {place for store, place, _ in found if store == "stream_files"}
    assert file.startswith("valkey/appendonlydir/")

    valkey.remove([aftermath.pair])
    assert valkey.write_anew(20)
    assert aftermath.places() == set()
    assert result_of(aftermath, "stream").verdict is Verdict.GONE
    # Children of the supervisor are told the home's own server by its address: its files are here all the same.
    own = EmbeddedValkey(aftermath.world.settings.home).url
    aftermath.world.settings = aftermath.world.settings.model_copy(update={"redis_url": own})
    assert result_of(aftermath, "stream_files").verdict is Verdict.GONE


def test_a_base_of_the_append_only_file_hides_nothing(aftermath: Aftermath, valkey: ErasureStream) -> None:
    """What it was rewritten with stands in it uncompressed."""
    valkey.publish([aftermath.whole] * 50)
    assert valkey.write_anew(20)

    assert [name for _, name, _ in aftermath.places() if ".base." in name]


def test_a_server_that_is_away_is_not_checked(aftermath: Aftermath) -> None:
    """And so are the files of a server elsewhere."""
    aftermath.stream = ErasureStream("redis://127.0.0.1:1/0", stream="s", group="g", consumer="c", timeout_s=0.2)
    aftermath.world.settings = aftermath.world.settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})

    assert result_of(aftermath, "stream").verdict is Verdict.NOT_CHECKED
    assert "BGREWRITEAOF" in " ".join(result_of(aftermath, "stream_files").unread)
    assert ZOE not in str(aftermath.search().as_dict())
