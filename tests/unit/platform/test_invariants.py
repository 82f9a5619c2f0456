from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection, delete, insert, update

from service.platform.database import Database
from service.platform.invariants import INVARIANTS, check_invariants
from service.platform.tables import metadata
from tests.unit.migrations.test_migrations import NOW, ROWS

tables = metadata.tables


@pytest.fixture
def sound(database: Database) -> Database:
    """A row in every table, and nothing wrong with them."""
    with database.write() as connection:
        for name, row in ROWS.items():
            connection.execute(insert(tables[name]).values(**row))
        connection.execute(update(tables["audit_head"]).values(size=1))
    return database


def found(database: Database) -> dict[str, int]:
    return {rule: count for rule, count in database.query(check_invariants).items() if count}


def counted(rule: str) -> float:
    return REGISTRY.get_sample_value("expunge_invariant_violations_total", {"rule": rule}) or 0


def test_a_sound_database_breaks_no_rule(sound: Database):
    """Neither does an empty one."""
    assert found(sound) == {}


def test_an_empty_database_breaks_no_rule(database: Database):
    """Before anything was trained or asked."""
    assert found(database) == {}


def forgotten_in(version: int) -> dict[str, Any]:
    return {"status": "forgotten", "version_after": version}


BREAKING: dict[str, Any] = {
    "accepted_is_suppressed": lambda write: write.execute(delete(tables["suppressions"])),
    "accepted_has_outbox_row": lambda write: write.execute(delete(tables["outbox"])),
    "forgotten_is_live": lambda write: write.execute(update(tables["erasures"]).values(**forgotten_in(2))),
    "live_version_is_ready": lambda write: write.execute(update(tables["versions"]).values(status="retired")),
    "audit_log_has_no_gap": lambda write: write.execute(update(tables["audit_head"]).values(size=2)),
}


@pytest.mark.parametrize("rule", BREAKING)
def test_each_rule_sees_what_breaks_it(sound: Database, rule: str):
    """And counts it, so that an alert can fire."""
    before = counted(rule)
    with sound.write() as connection:
        BREAKING[rule](connection)

    assert found(sound) == {rule: 1}
    assert counted(rule) == before + 1


def test_every_rule_is_tried():
    """A rule without a test holds nothing."""
    assert {invariant.rule for invariant in INVARIANTS} == set(BREAKING)


@pytest.mark.P7
def test_a_gap_in_the_log_is_seen(sound: Database):
    """An entry that vanished from its middle."""

    def lose_one(connection: Connection) -> None:
        for seq in (2, 3):
            connection.execute(
                insert(tables["audit_entries"]).values(seq=seq, at=NOW, event="x", body="{}", leaf_hash=b"")
            )
        connection.execute(update(tables["audit_head"]).values(size=3))
        connection.execute(delete(tables["audit_entries"]).where(tables["audit_entries"].c.seq == 2))

    sound.transact(lose_one)

    assert found(sound) == {"audit_log_has_no_gap": 1}
