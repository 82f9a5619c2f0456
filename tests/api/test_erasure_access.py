"""Who may ask for erasures, see them, and see what about them."""

import httpx
import pytest
from sqlalchemy import select

from service.platform import tables
from service.platform.auth import Scope
from service.platform.clock import SystemClock
from service.worker.repository import queue
from tests.api.conftest import Api
from tests.api.test_erasures import as_body, problem


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v1/users/u1/interactions/a"),
        ("DELETE", "/v1/users/u1"),
        ("DELETE", "/v1/items/a"),
        ("POST", "/v1/erasures"),
        ("POST", "/v1/erasures/preview"),
        ("GET", "/v1/erasures"),
        ("GET", "/v1/erasures/x"),
        ("DELETE", "/v1/erasures/x"),
        ("POST", "/v1/erasures/search"),
        ("GET", "/v1/users/u1/interactions"),
    ],
)
def test_every_call_needs_a_key_with_the_scope_erase(api: Api, method: str, path: str) -> None:
    """No key is 401, another scope is 403; nothing is stored."""
    with httpx.Client(base_url=api.url) as stranger:
        problem(stranger.request(method, path, json={"users": ["u1"]}), 401, "unauthenticated")
        other = api.key(Scope.RECOMMEND, Scope.AUDIT)
        problem(stranger.request(method, path, json={"users": ["u1"]}, headers=other), 403, "scope_missing")
    assert api.client.get("/v1/erasures").json()["erasures"] == []


def test_a_key_sees_its_own_erasures_alone(both: Api) -> None:
    """Another key's is not found, whatever is asked of it; nothing tells that it is there."""
    mine, other = both.key(Scope.ERASE), both.key(Scope.ERASE, Scope.AUDIT, Scope.RECOMMEND)
    accepted = both.client.delete("/v1/users/u1?reason=canary", headers=mine).json()
    theirs = both.client.delete("/v1/users/u2", headers=other).json()
    path = accepted["links"]["self"]

    assert both.client.get(path, headers=mine).json()["reason"] == "canary"
    for method in ("GET", "DELETE"):
        known = both.client.request(method, path, headers=other)
        unknown = both.client.request(method, "/v1/erasures/0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e", headers=other)
        assert problem(known, 404, "erasure_not_found")["detail"] == unknown.json()["detail"]
    for headers, own in ((mine, accepted), (other, theirs)):
        page = both.client.get("/v1/erasures", headers=headers).json()
        assert [one["id"] for one in page["erasures"]] == [own["id"]]
    assert both.client.get(path, headers=mine).json()["status"] == "accepted"
    assert "canary" not in both.client.get("/v1/audit/entries", headers=other).text
    assert len(both.client.get("/v1/users/u1/interactions").json()["interactions"]) == 0
    assert both.client.delete(path, headers=mine).json()["status"] == "cancelled"


def test_an_idempotency_key_belongs_to_its_api_key(api: Api) -> None:
    """Another caller's same word is another request, and finds nothing of the first."""
    mine, other = ({**api.key(Scope.ERASE), "Idempotency-Key": "k"} for _ in range(2))
    first = api.client.delete("/v1/users/u1", headers=mine).json()

    second = api.client.delete("/v1/users/u1", headers=other).json()

    assert first["id"] != second["id"]
    assert api.client.delete("/v1/users/u1", headers=mine).json()["id"] == first["id"]


def test_an_officer_sees_all_and_asks_for_nothing(both: Api) -> None:
    """Every key's erasures with their reasons, and the log; no erasure, no cancelling, nobody's history."""
    accepted = [
        both.client.delete(f"/v1/users/u{number}?reason=canary", headers=both.key(Scope.ERASE)).json()
        for number in range(2)
    ]
    officer = both.key(Scope.OFFICER)

    page = both.client.get("/v1/erasures", headers=officer).json()["erasures"]
    assert [one["id"] for one in page] == [one["id"] for one in reversed(accepted)]
    path = accepted[0]["links"]["self"]
    assert both.client.get(path, headers=officer).json()["reason"] == "canary"
    assert both.client.get(accepted[0]["links"]["audit"], headers=officer).status_code == 200
    for method, address in (("DELETE", path), ("DELETE", "/v1/users/u1"), ("GET", "/v1/users/u1/interactions")):
        problem(both.client.request(method, address, headers=officer), 403, "scope_missing")
    problem(both.client.delete(path, headers=both.key(Scope.OFFICER, Scope.ERASE)), 404, "erasure_not_found")
    assert both.client.delete(path).json()["status"] == "cancelled"  # an admin may


def test_a_reason_ends_with_its_erasure(both: Api, capfd: pytest.CaptureFixture[str]) -> None:
    """In clear while somebody has to act on it, gone from the row once it is over, and never in log or audit."""
    cancelled, forgotten = (
        both.client.post("/v1/erasures", json={"users": [user], "reason": "canary"}).json() for user in ("u1", "u2")
    )
    assert both.client.get(cancelled["links"]["self"]).json()["reason"] == "canary"

    assert both.client.delete(cancelled["links"]["self"]).json()["reason"] is None
    rows = [{"erasure": forgotten["id"], "at": SystemClock().now(), "before": None, "after": None}]
    rows = [row | {"batch": None, "stages": {}} for row in rows]
    both.database.transact(lambda connection: queue.mark_forgotten(connection, rows))

    found = both.client.get(forgotten["links"]["self"]).json()
    assert (found["status"], found["reason"], found["model_changed"]) == ("forgotten", None, False)
    kept = both.database.query(lambda read: read.execute(select(tables.erasures.c.reason)).scalars().all())
    assert list(kept) == [None, None]
    assert "canary" not in both.client.get("/v1/audit/entries").text
    assert "canary" not in "".join(capfd.readouterr())


def test_a_cursor_goes_with_its_filters(api: Api) -> None:
    """For another filter, another key or another person it is refused: it would skip what was never shown."""
    for number in range(3):
        api.client.delete(f"/v1/users/u{number}").raise_for_status()
        api.client.post("/v1/interactions", json=as_body([("a", f"i{number}"), ("b", f"i{number}")]))

    following = api.client.get("/v1/erasures?limit=1&status=accepted").json()["next"]
    problem(api.client.get(following.replace("status=accepted", "status=forgotten")), 422, "invalid_cursor")
    problem(api.client.get(following, headers=api.key(Scope.ERASE)), 422, "invalid_cursor")
    following = api.client.get("/v1/users/a/interactions?limit=1").json()["next"]
    problem(api.client.get(following.replace("/users/a/", "/users/b/")), 422, "invalid_cursor")
    following = api.client.get("/v1/audit/entries?limit=1").json()["next"]
    problem(api.client.get(f"{following}&erasure_id=x"), 422, "invalid_cursor")
