"""New consent over HTTP, on both databases: what it lifts, what it leaves, and what it tells."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, select, update

from service.erasures.targets import Subjects
from service.platform import tables
from service.platform.auth import Scope
from service.purge import repository
from tests.api.conftest import Api

pytestmark = pytest.mark.P4

NOTHING = {"count": 0, "user_erased": 0, "item_erased": 0, "interactions_erased": 0}
PAIR = {"user_id": "ana", "item_id": "duck"}


def ask(api: Api, **named: Any) -> str:
    """Ask for an erasure; returns its id."""
    return str(api.client.post("/v1/erasures", json=named).raise_for_status().json()["id"])


def end(api: Api, *ids: str, **more: Any) -> None:
    """Bring erasures to their end, as worker, purge and compaction do."""

    def unit(connection: Connection) -> None:
        mine = update(tables.erasures).where(tables.erasures.c.id.in_(ids))
        now = datetime.now(UTC)
        connection.execute(mine.values(status="forgotten", forgotten_at=now, **more))
        repository.purge_rows(connection, ids, now, now + timedelta(days=1))
        keys, _ = repository.unneeded_users(connection, b"", 100)
        repository.delete_users(connection, keys)
        connection.execute(mine.values(status="erased", erased_at=now))

    api.database.transact(unit)


def record(api: Api, user: str = "ana", item: str = "duck") -> int:
    body = {"interactions": [{"user_id": user, "item_id": item}]}
    return api.client.post("/v1/interactions", json=body).status_code


def consent(api: Api, **named: Any) -> httpx.Response:
    return api.client.post("/v1/consents", json=named)


def entries(api: Api) -> list[dict[str, Any]]:
    found = api.client.get("/v1/audit/entries?limit=500").json()["entries"]
    return [entry for entry in found if entry["event"] == "consent.given"]


def test_what_was_erased_may_be_recorded_again_once_the_person_consents(both: Api) -> None:
    """Not before; and what was erased does not come back by it."""
    assert record(both) == record(both, item="goose") == 200
    end(both, ask(both, interactions=[PAIR]))
    assert record(both) == 409

    answer = consent(both, interactions=[PAIR])

    assert answer.status_code == 200
    body = answer.json()
    assert (body["lifted"], body["still_refused"]) == (1, NOTHING)
    shown = both.client.get("/v1/users/ana/interactions").json()["interactions"]
    assert [own["item_id"] for own in shown] == ["goose"]
    assert record(both) == 200
    (entry,) = entries(both)
    assert entry["body"] == {
        "commitment": body["commitment"],
        "lifted": 1,
        "targets": {"interactions": 1, "items": 0, "users": 0},
    }
    opened = Subjects.of([("ana", "duck")], [], []).commitment(bytes.fromhex(body["salt"]))
    assert opened == body["commitment"]


def test_a_consent_that_lifts_nothing_says_so_and_leaves_no_entry(both: Api) -> None:
    """Sent again, or about what nobody ever erased."""
    end(both, ask(both, interactions=[PAIR]))
    consent(both, interactions=[PAIR])

    again = consent(both, interactions=[PAIR, PAIR], users=["nobody"], items=["nothing"])

    assert again.status_code == 200
    assert again.json() == {"lifted": 0, "still_refused": NOTHING, "commitment": None, "salt": None}
    assert len(entries(both)) == 1


def test_a_whole_user_stays_refused_until_the_user_is_consented_to(both: Api) -> None:
    """Late writes are refused though the row of the vocabulary is gone; the answer says what else it takes."""
    assert record(both) == 200
    end(both, ask(both, users=["ana"]))
    known = select(tables.users.c.key).where(tables.users.c.id == "ana")
    assert both.database.query(lambda connection: connection.execute(known).all()) == []

    narrow = consent(both, interactions=[PAIR])

    assert narrow.json()["still_refused"] == NOTHING | {"count": 1, "user_erased": 1}
    assert narrow.json()["lifted"] == 0
    assert record(both) == 409
    assert consent(both, users=["ana"]).json()["lifted"] == 1
    assert record(both) == 200


def test_what_is_refused_still_is_counted_by_its_cause(both: Api) -> None:
    """An item erased whole; and single interactions of a user or an item that was consented to."""
    pairs = [{"user_id": "ana", "item_id": item} for item in ("duck", "goose")]
    end(both, ask(both, interactions=pairs), ask(both, items=["duck"]))

    one = consent(both, interactions=[pairs[0]], users=["ana"], items=["goose"])

    assert one.json()["lifted"] == 1
    assert one.json()["still_refused"] == {
        "count": 3,
        "user_erased": 0,
        "item_erased": 1,
        "interactions_erased": 2,
    }
    assert record(both) == record(both, item="goose") == 409
    assert record(both, user="bob") == 409
    assert consent(both, interactions=[pairs[1]], items=["duck"]).json()["lifted"] == 2
    assert record(both) == record(both, item="goose") == record(both, user="bob") == 200


def test_a_dislike_is_lifted_too(both: Api) -> None:
    """It has no end of its own."""
    erasure = ask(both, interactions=[PAIR])
    end(both, erasure, mode="dislike")
    ends = select(tables.suppressions.c.until)
    assert both.database.query(lambda connection: connection.scalars(ends).all()) == [None]

    assert consent(both, interactions=[PAIR]).json()["lifted"] == 1
    assert record(both) == 200


def test_while_an_erasure_is_open_nothing_is_lifted(both: Api) -> None:
    """It would take away what is recorded anew; each target that it covers is pointed at, whatever covers it."""
    end(both, ask(both, interactions=[{"user_id": "bob", "item_id": "goose"}]), ask(both, users=["ana"]))
    open_too = ask(both, users=["ana"])

    answer = consent(both, interactions=[{"user_id": "bob", "item_id": "goose"}, PAIR], users=["ana"])

    assert answer.status_code == 409
    assert answer.json()["code"] == "erasure_open"
    assert [error["pointer"] for error in answer.json()["errors"]] == ["#/interactions/1", "#/users/0"]
    assert "ana" not in answer.text
    assert record(both, "bob", "goose") == 409
    assert entries(both) == []
    both.client.delete(f"/v1/erasures/{open_too}").raise_for_status()
    assert consent(both, users=["ana"]).json()["lifted"] == 1


@pytest.mark.parametrize("status", ["forgotten", "needs_attention", "refused"])
def test_only_what_is_erased_can_be_consented_to(api: Api, status: str) -> None:
    erasure = ask(api, interactions=[PAIR])
    mine = update(tables.erasures).where(tables.erasures.c.id == erasure)
    api.database.transact(lambda connection: connection.execute(mine.values(status=status)))

    assert consent(api, interactions=[PAIR]).status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"interactions": []},
        {"interactions": [{"user_id": "ana"}]},
        {"interactions": [{**PAIR, "more": 1}]},
        {"users": [""]},
        {"users": ["ana"], "reason": "x"},
        {"items": ["x"] * 10_001},
    ],
)
def test_what_makes_no_sense_is_refused(api: Api, body: dict[str, Any]) -> None:
    assert api.client.post("/v1/consents", json=body).status_code == 422


def test_a_member_that_stands_twice_is_refused(api: Api) -> None:
    """Which of the two was meant is not guessed."""
    answer = api.client.post(
        "/v1/consents", content=b'{"users":["a"],"users":["b"]}', headers={"Content-Type": "application/json"}
    )

    assert answer.status_code in (400, 422)


def test_it_takes_the_scope_that_recording_takes(api: Api) -> None:
    """Whoever erases, reads or recommends does not consent."""
    for scopes, expected in (((Scope.WRITE,), 200), ((Scope.ERASE, Scope.READ, Scope.RECOMMEND), 403)):
        answer = httpx.post(f"{api.url}/v1/consents", json={"users": ["ana"]}, headers=api.key(*scopes))
        assert answer.status_code == expected
