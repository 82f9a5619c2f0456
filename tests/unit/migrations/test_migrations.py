import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Table, func, insert, inspect, select, text, update
from sqlalchemy.exc import IntegrityError

import migrations
from service.platform.database import Database
from service.platform.tables import metadata

NOW = datetime(2026, 11, 21, 3, 0, 0, 123456, tzinfo=UTC)

# One row of each table, in an order that the foreign keys allow.
ROWS: dict[str, dict[str, Any]] = {
    "secret_check": {"id": 1, "value": b"v" * 32, "made_at": NOW},
    "users": {"key": 1, "id": "ana/🦆", "digest": b"u" * 32},
    "items": {"key": 1, "id": "i 1", "digest": b"i" * 32, "title": "One"},
    "interactions": {"user_key": 1, "item_key": 1, "recorded_at": NOW},
    "batches": {"id": 1, "epoch": 1, "version": 2, "step": "settled", "size": 1, "created_at": NOW},
    "compactions": {
        "id": "c1",
        "trigger": "operator",
        "status": "waiting",
        "step": "snapshot",
        "requested_at": NOW,
    },
    "erasures": {
        "id": "e1",
        "seq": 1,
        "status": "accepted",
        "mode": "forget",
        "requested": 1,
        "matched": 1,
        "commitment": "c" * 64,
        "received_at": NOW,
        "due_at": NOW,
        "key_id": "k1",
        "batch_id": 1,
        "compaction_id": "c1",
        "purged_at": NOW,
    },
    "erasure_evidence": {"erasure_id": "e1", "body": "{}"},
    "erasure_targets": {"erasure_id": "e1", "ordinal": 0, "kind": "interaction", "matched": 1},
    "suppressions": {"user_digest": b"u" * 32, "item_digest": b"", "erasure_id": "e1", "created_at": NOW, "until": NOW},
    "outbox": {"seq": 1, "erasure_id": "e1", "created_at": NOW},
    "idempotency": {
        "key_id": "k1",
        "key_sha256": b"k" * 32,
        "body_sha256": b"b" * 32,
        "erasure_id": "e1",
        "created_at": NOW,
    },
    "audit_entries": {"seq": 1, "at": NOW, "event": "erasure.accepted", "body": "{}", "leaf_hash": b"l" * 32},
    "audit_nodes": {"level": 1, "position": 0, "hash": b"n" * 32},
    "audit_checkpoints": {"size": 1, "note": "n", "signed_at": NOW},
    "audit_keys": {"vkey": "log+00000000+AA==", "since": NOW},
    "versions": {
        "version": 1,
        "kind": "base",
        "status": "ready",
        "base": 1,
        "erasure_seq": 0,
        "manifest": {"files": {}},
        "created_at": NOW,
    },
    "aliases": {"name": "live", "version": 1, "moved_at": NOW},
    "leases": {"name": "worker", "holder": "w", "epoch": 1, "beat": 1},
    "api_keys": {"id": "k1", "token_sha256": b"t" * 32, "label": "x", "scopes": "admin", "created_at": NOW},
}


@pytest.fixture
def empty(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


def fill(database: Database) -> None:
    with database.write() as connection:
        for name, row in ROWS.items():
            connection.execute(insert(metadata.tables[name]).values(**row))
        connection.execute(update(metadata.tables["audit_head"]).values(size=1))


def count(database: Database, table: Table) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def test_the_migrations_make_the_schema_that_the_code_uses(database: Database):
    """Nothing in the tables of the code differs from the migrated database."""
    with database.read() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), metadata)

    assert difference == []
    assert set(ROWS) | {"audit_head"} == set(metadata.tables)


def test_a_migrated_database_knows_its_revision(database: Database):
    """Readiness compares the two."""
    with database.read() as connection:
        assert migrations.revision_of(connection) == migrations.head()


def test_a_database_without_a_schema_has_no_revision(empty: Database):
    """None, not an error."""
    with empty.read() as connection:
        assert migrations.revision_of(connection) is None


def test_the_log_can_be_appended_to_from_the_start(database: Database):
    """The row that writers of the audit log lock is there, at size 0."""
    with database.read() as connection:
        assert connection.execute(select(metadata.tables["audit_head"])).all() == [(1, 0)]


def test_up_down_up_works_with_rows_in_every_table(database: Database, database_url: str):
    """Going back leaves nothing behind but alembic's own table; going up again gives an empty schema."""
    fill(database)
    assert all(count(database, table) == 1 for table in metadata.tables.values())

    migrations.downgrade(database_url, "base")
    with database.read() as connection:
        assert set(inspect(connection).get_table_names()) == {"alembic_version"}
        assert migrations.revision_of(connection) is None

    migrations.upgrade(database_url)
    fill(database)
    assert all(count(database, table) == 1 for table in metadata.tables.values())


def test_keys_keep_what_they_were_promised(database: Database, database_url: str):
    """Keys from before `read` and `write` may record and read on; the names go when the migration is taken back."""
    migrations.downgrade(database_url, "0004")
    with database.write() as connection:
        for number, scopes in enumerate(("recommend", "erase", "audit", "admin", "erase recommend")):
            row = {"id": str(number), "token_sha256": bytes(32 * [number]), "label": "", "created_at": NOW}
            connection.execute(insert(metadata.tables["api_keys"]).values(scopes=scopes, **row))

    migrations.upgrade(database_url)
    assert scopes_of(database) == ["recommend write", "erase read", "audit", "admin", "erase read recommend write"]

    migrations.downgrade(database_url, "0004")
    assert scopes_of(database) == ["recommend", "erase", "audit", "admin", "erase recommend"]


def test_what_was_asked_for_stays_with_the_key_that_asked(database: Database, database_url: str):
    """Keys of one label from before stay strangers to each other: nobody is shown more than on the day before."""
    keys, erasures = metadata.tables["api_keys"], metadata.tables["erasures"]
    migrations.downgrade(database_url, "0006")
    with database.write() as connection:
        for name in ("k1", "k2"):
            row = {"id": name, "token_sha256": name.encode() * 16, "label": "x", "scopes": "erase", "created_at": NOW}
            connection.execute(insert(keys).values(**row))
        connection.execute(insert(metadata.tables["batches"]).values(**ROWS["batches"]))
        row = {name: value for name, value in ROWS["erasures"].items() if name not in ("compaction_id", "purged_at")}
        connection.execute(insert(erasures).values(**row))

    migrations.upgrade(database_url)

    with database.read() as connection:
        assert connection.execute(select(keys.c.id, keys.c.owner).order_by(keys.c.id)).all() == [
            ("k1", "k1"),
            ("k2", "k2"),
        ]
        assert connection.execute(select(erasures.c.key_id, erasures.c.owner)).all() == [("k1", "k1")]
        assert connection.execute(select(keys.c.expires_at, keys.c.last_used_at).distinct()).all() == [(None, None)]


def test_what_was_decided_goes_back_to_an_operator(database: Database, database_url: str):
    """The older schema has no word for a refusal; rows that refer to the erasure stay, and so does what it may be."""
    fill(database)
    table = metadata.tables["erasures"]
    decided = {"status": "refused", "decision": "refused", "decided_at": NOW, "held_since": NOW}
    with database.write() as connection:
        connection.execute(update(table).values(decided))

    migrations.downgrade(database_url, "0007")
    with database.read() as connection:
        found = connection.execute(text("SELECT status, needs, matched FROM erasures")).all()
        assert found == [("needs_attention", "refused", 1)]
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(text("UPDATE erasures SET status = 'refused'"))

    migrations.upgrade(database_url)
    with database.write() as connection:
        connection.execute(update(table).values(status="refused"))
    later = {"compactions", "erasure_evidence"}  # tables that the older schema had not
    assert all(count(database, each) == 1 for name, each in metadata.tables.items() if name not in later)


def test_what_postgresql_sampled_of_ids_goes(postgres_url: str):
    """Histograms kept from before would outlive every deletion: ANALYZE passes such columns over from now on."""
    migrations.upgrade(postgres_url)
    migrations.downgrade(postgres_url, "0008")
    database = Database(postgres_url)
    with database.write() as connection:
        rows = [{"id": f"user-{n}", "digest": bytes([n]) * 32} for n in range(200)]
        connection.execute(insert(metadata.tables["users"]), rows)
        connection.execute(text("ANALYZE users"))
    sampled = text("SELECT attname FROM pg_stats WHERE tablename = 'users' AND attname IN ('id', 'digest')")
    with database.read() as connection:
        assert len(connection.execute(sampled).all()) == 2

    migrations.upgrade(postgres_url)

    with database.write() as connection:
        connection.execute(text("ANALYZE users"))
        assert connection.execute(sampled).all() == []
    database.close()


def scopes_of(database: Database) -> list[str]:
    keys = metadata.tables["api_keys"]
    with database.read() as connection:
        return list(connection.scalars(select(keys.c.scopes).order_by(keys.c.id)))


def test_upgrading_again_changes_nothing(database: Database, database_url: str):
    """Rows stay."""
    fill(database)

    migrations.upgrade(database_url)

    assert count(database, metadata.tables["erasures"]) == 1


def test_processes_that_upgrade_together_do_not_collide(empty: Database, database_url: str):
    """Replicas that start at once all end with one schema, threads of one of them too."""
    command = [sys.executable, "-c", "import sys, migrations; migrations.upgrade(sys.argv[1])", database_url]
    processes = [subprocess.Popen(command) for _ in range(3)]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(migrations.upgrade, [database_url] * 2))

    assert [process.wait(60) for process in processes] == [0, 0, 0]

    assert count(empty, metadata.tables["audit_head"]) == 1


def test_a_second_migrator_waits_for_the_first(empty: Database, database_url: str):
    """It then finds the work done, instead of half of it."""
    with ThreadPoolExecutor(1) as threads:
        with empty.write() as first:
            if not empty.is_sqlite:
                first.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": migrations.MIGRATION_LOCK})
            second = threads.submit(migrations.upgrade, database_url)
            with pytest.raises(TimeoutError):
                second.result(0.5)
        second.result(30)

    assert count(empty, metadata.tables["audit_head"]) == 1


def test_a_migration_that_fails_leaves_nothing_behind(
    empty: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
):
    """The schema changes whole or not at all, on both databases."""
    from alembic import op

    monkeypatch.setattr(op, "bulk_insert", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        migrations.upgrade(database_url)

    with empty.read() as connection:
        assert inspect(connection).get_table_names() == []


@pytest.mark.P4
@pytest.mark.parametrize("table", ["users", "items"])
def test_a_key_is_never_given_out_twice(database: Database, table: str):
    """Model files still hold the keys of users and items whose rows are gone."""
    given = metadata.tables[table]

    with database.write() as connection:
        first = connection.execute(insert(given).values(id="a", digest=b"a" * 32)).inserted_primary_key
        connection.execute(given.delete())
        second = connection.execute(insert(given).values(id="b", digest=b"b" * 32)).inserted_primary_key

    assert first is not None
    assert second is not None
    assert second[0] > first[0]


def test_a_status_that_does_not_exist_is_refused_by_the_database(database: Database):
    """The states of an erasure are six."""
    fill(database)

    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(update(metadata.tables["erasures"]).values(status="gone"))


def test_instants_come_back_as_they_went_in(database: Database):
    """Aware, UTC, to the microsecond."""
    fill(database)

    with database.read() as connection:
        received = connection.scalar(select(metadata.tables["erasures"].c.received_at))

    assert received == NOW
    assert received.utcoffset().total_seconds() == 0


def test_naive_instants_are_refused(database: Database):
    """They would be read in some other zone."""
    lease = metadata.tables["aliases"]

    with pytest.raises(Exception, match="aware"), database.write() as connection:
        connection.execute(insert(lease).values(name="x", version=1, moved_at=NOW.replace(tzinfo=None)))
