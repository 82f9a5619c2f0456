"""The append-only log: gapless, hashed, and free of people."""

import asyncio
import hashlib
import json
import threading

import numpy as np
import pytest
import rfc8785
from sqlalchemy import Connection

from service.audit import repository, service
from service.audit.service import AuditEvent
from service.platform.database import Database
from service.platform.problem import InvalidCursor
from tests.factories.domains import Domains


def append(database: Database, event: str = "test.happened", **body: object) -> int:
    """Append one entry in a transaction of its own."""
    return database.transact(lambda connection: service.append(connection, event, body=body))


def test_entries_are_numbered_from_one_without_gaps(database: Database) -> None:
    """Single ones and many at once."""

    def many(connection: Connection) -> int:
        first = service.reserve(connection, 3)
        at = Domains(database).clock.now()
        service.write(connection, first, [AuditEvent("test.happened", {"n": n}) for n in range(3)], at)
        return first

    assert append(database) == 1
    assert database.transact(many) == 2
    assert append(database) == 5
    assert [entry["seq"] for entry in Domains(database).log()] == [1, 2, 3, 4, 5]


@pytest.mark.P7
def test_a_transaction_that_fails_leaves_no_gap(database: Database) -> None:
    """A number is taken when its entry is committed, not before."""

    def failing(connection: Connection) -> None:
        service.append(connection, "test.happened", body={})
        msg = "no"
        raise ArithmeticError(msg)

    append(database)
    with pytest.raises(ArithmeticError):
        database.transact(failing)

    assert append(database) == 2


@pytest.mark.P7
def test_writers_at_once_get_different_numbers(database: Database) -> None:
    """The log's head orders them."""
    threads = [threading.Thread(target=append, args=(database,)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [entry["seq"] for entry in Domains(database).log()] == list(range(1, 13))


@pytest.mark.P7
def test_a_leaf_is_the_hash_of_the_canonical_entry(database: Database) -> None:
    """RFC 8785 for the text, RFC 9162 for the leaf; anybody can compute it from what the API shows."""
    append(database, auc=0.5, big=1e21, name="é\u2028", list=[1, None, True], nested={"b": 1, "a": 2})

    row = database.query(lambda connection: repository.page(connection, 0, 10, None))[0]

    document = json.loads(row.canonical)
    assert rfc8785.dumps(document).decode() == row.canonical
    assert row.leaf_hash == hashlib.sha256(b"\0" + row.canonical.encode()).digest()
    assert set(document) == {"at", "body", "erasure_id", "event", "seq", "version"}


def test_figures_of_numpy_and_undefined_ones_are_written(database: Database) -> None:
    """What is undefined is null: JSON has no other word for it."""
    append(database, auc=np.float32(0.5), n=np.int64(3), ratio=float("nan"), worst=np.float64("inf"), ok=np.True_)

    assert Domains(database).log()[0]["body"] == {"auc": 0.5, "n": 3, "ratio": None, "worst": None, "ok": True}


def test_pages_hold_every_entry_once_in_order(database: Database) -> None:
    """Also while entries are appended, and for one erasure alone."""
    domains = Domains(database)
    erasures = [domains.accept((f"u{number}", "a")) for number in range(5)]
    domains.cancel(erasures[2].id)

    first, cursor = asyncio.run(service.page(domains.services, None, 4, None))
    append(database)
    second, end = asyncio.run(service.page(domains.services, cursor, 4, None))
    own, _ = asyncio.run(service.page(domains.services, None, 10, erasures[2].id))

    assert [row.seq for row in first + second] == [1, 2, 3, 4, 5, 6, 7]
    assert end is None
    assert [row.event for row in own] == ["erasure.accepted", "erasure.cancelled"]


def test_a_cursor_that_was_not_given_out_is_refused(database: Database) -> None:
    """Of another service, or made up."""
    stranger = Domains(database, identity=type(Domains(database).identity)(b"x" * 32))
    for _ in range(3):
        append(database)
    _, foreign = asyncio.run(service.page(stranger.services, None, 1, None))
    assert foreign is not None

    for cursor in (foreign, "AAAA", "é"):
        with pytest.raises(InvalidCursor):
            asyncio.run(service.page(Domains(database).services, cursor, 1, None))


@pytest.mark.P8
def test_entries_hold_no_id_of_a_person_nor_a_digest_of_one(database: Database) -> None:
    """Counts and a commitment, which says nothing to who lacks the salt."""
    domains = Domains(database)
    secrets = ("canary-user", "canary-item")
    domains.cancel(domains.accept(secrets, users=secrets[:1], items=secrets[1:], reason="canary-reason").id)

    text = json.dumps(domains.log())

    identity = domains.identity
    digests = [digest(id).hex() for digest in (identity.user, identity.item) for id in secrets]
    plain = [hashlib.sha256(id.encode()).hexdigest() for id in secrets]
    assert not [secret for secret in ("canary", *digests, *plain) if secret in text]
