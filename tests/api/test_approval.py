"""Four eyes: an erasure of a large share waits for a second key, hidden all the while."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

import migrations
from service.app import create_app
from service.audit.tlog.note import VerifierKey
from service.interactions.service import snapshot
from service.platform.auth import Scope
from service.platform.database import Database
from service.platform.tables import outbox
from service.receipts.document import Receipt
from service.receipts.verification import verify
from service.settings import Settings
from service.worker.repository import queue
from tests.api.conftest import Api
from tests.serving import serving

USERS, ITEMS = 6, 4


@pytest.fixture
def both(
    settings: Settings, redis_url: str, database_url: str, open_database: Callable[[str], Database]
) -> Iterator[Api]:
    """The API on SQLite and on PostgreSQL, with 24 interactions recorded; above 8 of them a second key is needed."""
    update = {"redis_url": redis_url, "stream": f"api:{settings.home.name}", "database_url": database_url}
    given = settings.model_copy(update=update | {"approval_min_pairs": 3, "approval_share": 1 / 3})
    migrations.upgrade(database_url)
    with serving(create_app(given)) as url, httpx.Client(base_url=url, timeout=20) as client:
        api = Api(url, client, open_database(database_url), given)
        client.headers.update(api.key(Scope.ADMIN))
        pairs = [{"user_id": f"u{user}", "item_id": f"i{item}"} for user in range(USERS) for item in range(ITEMS)]
        assert client.post("/v1/interactions", json={"interactions": pairs}).status_code < 300
        yield api


def waiting(api: Api) -> list[str]:
    """What the worker would take."""
    return [each.id for each in api.database.query(lambda read: queue.waiting(read, 10))]


def in_outbox(api: Api) -> int:
    return api.database.query(lambda read: read.scalar(select(func.count()).select_from(outbox))) or 0


def learnt(api: Api) -> int:
    """How many pairs a base trained now would learn."""
    return int(api.database.query(snapshot).edges.shape[1])


def events(api: Api, erasure_id: str) -> list[str]:
    found = api.client.get(f"/v1/audit/entries?erasure_id={erasure_id}").json()["entries"]
    return [entry["event"] for entry in found]


def verified(api: Api, path: str) -> Mapping[str, Any]:
    """What the receipt says, checked as somebody offline would."""
    key = VerifierKey.parse(api.client.get("/v1/audit/keys").json()["keys"][0]["vkey"])
    return verify(Receipt.parse(api.client.get(f"{path}/receipt").content), [key]).statement


def ask_for_half(api: Api, headers: dict[str, str]) -> httpx.Response:
    return api.client.post("/v1/erasures", json={"users": ["u0", "u1", "u2"]}, headers=headers)


@pytest.mark.P3
def test_a_large_erasure_is_hidden_at_once_and_forgotten_once_it_is_approved(both: Api) -> None:
    """The worker does not hear of it before, and no base is trained without it; then it is one as any other."""
    asker, officer = both.key(Scope.ERASE, label="shop"), both.key(Scope.OFFICER, label="privacy")
    asked = ask_for_half(both, asker)
    given = asked.json()
    path = asked.headers["Location"]

    assert asked.status_code == 202
    assert (given["status"], given["needs"], given["matched"]) == ("needs_attention", "approval", 12)
    assert given["waiting_for"]["code"] == "approval"
    assert len(given["salt"]) == 64
    assert both.client.get("/v1/users/u0/interactions").json()["interactions"] == []
    assert (waiting(both), in_outbox(both), learnt(both)) == ([], 0, 24)

    assert verified(both, path)["status"] == "needs_attention"

    approved = both.client.post(f"{path}/approval", headers=officer)

    assert verified(both, path)["status"] == "accepted"
    assert approved.status_code == 200
    assert (approved.json()["status"], approved.json()["needs"]) == ("accepted", None)
    assert (waiting(both), in_outbox(both), learnt(both)) == ([given["id"]], 1, 12)
    assert both.client.get("/v1/users/u0/interactions").json()["interactions"] == []
    assert events(both, given["id"]) == [
        "erasure.accepted",
        "erasure.needs_attention",
        "erasure.approval_awaited",
        "erasure.accepted_again",
        "erasure.approved",
    ]
    again = both.client.post(f"{path}/approval", headers=officer)
    assert (again.status_code, again.json()["code"]) == (409, "approval_not_awaited")


def test_who_asked_does_not_approve(both: Api) -> None:
    """Nor the label's other key, whatever its scopes; nor a key without the scope."""
    asker, second = both.key(Scope.ADMIN, label="shop"), both.key(Scope.OFFICER, label="shop")
    path = ask_for_half(both, asker).headers["Location"]

    for headers in (asker, second):
        refused = both.client.post(f"{path}/approval", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "approved_by_asker")
    refused = both.client.post(f"{path}/approval", headers=both.key(Scope.ERASE, Scope.AUDIT))
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
    assert waiting(both) == []
    unknown = both.client.post("/v1/erasures/0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e/approval")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "erasure_not_found")


@pytest.mark.parametrize("by", ["asker", "officer"])
def test_either_ends_it_and_all_is_shown_again(both: Api, by: str) -> None:
    """The asker cancels, the other refuses; a receipt tells of it."""
    asker, officer = both.key(Scope.ERASE, label="shop"), both.key(Scope.OFFICER, label="privacy")
    path = ask_for_half(both, asker).headers["Location"]

    if by == "asker":
        ended = both.client.delete(path, headers=asker)
    else:
        ended = both.client.delete(f"{path}/approval", headers=officer)

    assert (ended.status_code, ended.json()["status"], ended.json()["needs"]) == (200, "cancelled", None)
    assert len(both.client.get("/v1/users/u0/interactions").json()["interactions"]) == ITEMS
    assert (waiting(both), in_outbox(both), learnt(both)) == ([], 0, 24)
    assert verified(both, path)["final"] is True
    late = both.client.post(f"{path}/approval", headers=officer)
    assert (late.status_code, late.json()["code"]) == (409, "approval_not_awaited")


def test_smaller_ones_wait_for_nobody(both: Api) -> None:
    """A third of everything is the bound here, and it may be reached."""
    asker = both.key(Scope.ERASE)

    answer = both.client.post("/v1/erasures", json={"users": ["u0", "u1"]}, headers=asker)

    assert (answer.status_code, answer.json()["status"], answer.json()["matched"]) == (202, "accepted", 8)
    refused = both.client.post(f"{answer.headers['Location']}/approval")
    assert (refused.status_code, refused.json()["code"]) == (409, "approval_not_awaited")


def test_a_retry_finds_it_waiting_and_then_approved(both: Api) -> None:
    """200 with the present state, as for any replay."""
    asker = {**both.key(Scope.ERASE, label="shop"), "Idempotency-Key": "k"}
    first = ask_for_half(both, asker).json()

    waits = ask_for_half(both, asker)
    both.client.post(f"/v1/erasures/{first['id']}/approval")
    approved = ask_for_half(both, asker)

    assert (waits.status_code, waits.json()["status"], waits.json()["id"]) == (200, "needs_attention", first["id"])
    assert (approved.status_code, approved.json()["status"], approved.json()["id"]) == (202, "accepted", first["id"])


@pytest.mark.parametrize("after", ["lifted", "never"])
def test_a_legal_hold_takes_nobody_round_the_second_key(both: Api, after: str) -> None:
    """Set and lifted, it awaits approval as before; while it is set, nobody approves, refuses or cancels."""
    asker, officer = both.key(Scope.ERASE, label="shop"), both.key(Scope.OFFICER, label="privacy")
    path = ask_for_half(both, asker).headers["Location"]

    held = both.client.patch(path, json={"legal_hold": True}, headers=officer)

    assert (held.status_code, held.json()["status"], held.json()["needs"]) == (200, "needs_attention", "approval")
    for method in ("POST", "DELETE"):
        refused = both.client.request(method, f"{path}/approval", headers=officer)
        assert (refused.status_code, refused.json()["code"]) == (409, "legal_hold")
    assert both.client.delete(path, headers=asker).status_code == 409
    if after == "lifted":
        lifted = both.client.patch(path, json={"legal_hold": False}, headers=officer)
        assert (lifted.json()["status"], lifted.json()["needs"]) == ("needs_attention", "approval")
        assert waiting(both) == []
        assert both.client.post(f"{path}/approval", headers=officer).json()["status"] == "accepted"
    else:
        assert waiting(both) == []
    assert verified(both, path)["legal_hold"] is (after == "never")
