"""Deadlines, decisions, legal holds and the search of a subject over HTTP, on both databases."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from service.audit.tlog.note import VerifierKey
from service.erasures.decisions import months_after
from service.platform import tables
from service.platform.auth import Scope
from service.platform.clock import rfc3339
from service.receipts.document import Receipt
from service.receipts.verification import verify
from tests.api.conftest import Api

REFUSAL = {"decision": {"outcome": "refused", "ground": "17(3)(e)"}}
PARTIAL = {"decision": {"outcome": "partial", "ground": "17(3)(e)"}}


def accepted(api: Api, user: str = "canary", **headers: str) -> str:
    """The path of a new erasure."""
    return str(api.client.delete(f"/v1/users/{user}", headers=headers).raise_for_status().headers["Location"])


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def extension(until: datetime, **more: str) -> dict[str, Any]:
    return {"extension": {"until": rfc3339(until), "reason": "canary words", **more}}


def statement(api: Api, path: str) -> dict[str, Any]:
    """What the receipt says, once it is verified."""
    key = VerifierKey.parse(httpx.get(f"{api.url}/v1/audit/keys").json()["keys"][0]["vkey"])
    receipt = Receipt.parse(api.client.get(f"{path}/receipt").content)
    assert "canary" not in receipt.json().decode()
    return dict(verify(receipt, [key]).statement)


def test_a_deadline_is_extended_once_and_the_receipt_says_so(both: Api) -> None:
    """Its reason stands in the erasure while it is open, and in no log or receipt."""
    path = accepted(both)
    received = datetime.fromisoformat(both.client.get(path).json()["received_at"])
    until = months_after(received, 3)

    too_late = both.client.patch(path, json=extension(until + timedelta(seconds=1)))
    changed = both.client.patch(path, json=extension(until, ground="complexity"))

    assert code(too_late) == (422, "invalid_request")
    assert too_late.json()["errors"][0]["pointer"] == "#/extension/until"
    assert changed.status_code == 200
    body = changed.json()
    assert (body["due_at"], body["extension"]["until"]) == (rfc3339(until), rfc3339(until))
    assert (body["extension"]["ground"], body["extension"]["reason"]) == ("complexity", "canary words")
    assert both.client.get(path).json() == body | {"waiting_for": both.client.get(path).json()["waiting_for"]}
    assert code(both.client.patch(path, json=extension(until))) == (409, "extension_used")
    told = statement(both, path)
    assert (told["due_at"], told["extension"]["until"], told["final"]) == (rfc3339(until), rfc3339(until), False)
    assert "canary" not in both.client.get("/v1/audit/entries").text

    cancelled = both.client.delete(path).json()
    assert cancelled["extension"]["reason"] is None


def test_after_a_month_it_is_too_late(api: Api) -> None:
    """Whatever the deadline is."""
    path = accepted(api)
    long_ago = datetime.now(UTC) - timedelta(days=32)
    moved = update(tables.erasures).values(received_at=long_ago, due_at=long_ago + timedelta(days=60))
    api.database.transact(lambda connection: connection.execute(moved))

    refused = api.client.patch(path, json=extension(long_ago + timedelta(days=80)))

    assert code(refused) == (409, "extension_too_late")


@pytest.mark.P3
def test_a_refusal_hides_on_and_is_final(both: Api) -> None:
    """The erasure is over; what it hid is not shown again, and not recorded anew."""
    pair = {"interactions": [{"user_id": "canary", "item_id": "a"}]}
    both.client.post("/v1/interactions", json=pair).raise_for_status()
    path = accepted(both)

    refused = both.client.patch(path, json=REFUSAL)

    body = refused.json()
    assert (body["status"], body["decision"]["outcome"], body["decision"]["ground"]) == ("refused",) * 2 + ("17(3)(e)",)
    assert body["waiting_for"] is None
    assert both.client.get("/v1/users/canary/interactions").json()["interactions"] == []
    assert code(both.client.post("/v1/interactions", json=pair)) == (409, "suppressed")
    assert code(both.client.patch(path, json=REFUSAL)) == (409, "erasure_over")
    assert code(both.client.delete(path)) == (409, "erasure_not_cancellable")
    assert [each["status"] for each in both.client.get("/v1/erasures?status=refused").json()["erasures"]] == ["refused"]
    told = statement(both, path)
    assert (told["status"], told["final"], told["guarantee"]) == ("refused", True, None)
    page = both.client.get(f"{path}/receipt.html").text
    assert "Final receipt" in page
    assert "Legal claims: GDPR, Art. 17(3)(e)" in page


def test_a_hold_is_set_and_lifted(both: Api) -> None:
    """It is no deadline's business meanwhile, and the receipt tells of it."""
    path = accepted(both)
    later = {"due_before": "2100-01-01T00:00:00Z"}

    held = both.client.patch(path, json={"legal_hold": True}).json()

    assert (held["status"], held["needs"], held["legal_hold"]) == ("needs_attention", "legal_hold", True)
    assert held["waiting_for"]["code"] == "legal_hold"
    assert both.client.get("/v1/erasures", params=later).json()["erasures"] == []
    assert len(both.client.get("/v1/erasures?legal_hold=true").json()["erasures"]) == 1
    assert statement(both, path)["legal_hold"] is True
    assert "Legal hold" in both.client.get(f"{path}/receipt.html").text
    assert "expunge_erasures_held 1" in both.client.get("/metrics").text

    lifted = both.client.patch(path, json={"legal_hold": False}).json()

    assert (lifted["status"], lifted["legal_hold"], lifted["held_since"]) == ("accepted", False, None)
    assert len(both.client.get("/v1/erasures", params=later).json()["erasures"]) == 1
    assert statement(both, path)["legal_hold"] is False
    assert both.client.get("/problems/legal_hold").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"legal_hold": None},
        {"legal_hold": "yes"},
        {"legal_hold": 1},
        {"legal_hold": True, **REFUSAL},
        {"legal_hold": True, "decision": None},
        {"status": "refused"},
        {"decision": {"outcome": "refused"}},
        {"decision": {"outcome": "refused", "ground": "canary"}},
        {"decision": {"outcome": "deleted", "ground": "17(3)(e)"}},
        {"extension": {"until": "2027-01-01T00:00:00Z"}},
        {"extension": {"until": "2027-01-01T00:00:00Z", "reason": " "}},
        {"extension": {"until": "2027-01-01T00:00:00", "reason": "no zone"}},
        {"extension": {"until": "2027-01-01T00:00:00Z", "reason": "x", "ground": "canary"}},
        {"extension": {"until": "9999-12-31T23:59:59-14:00", "reason": "x"}},
    ],
)
def test_a_change_that_makes_no_sense_is_refused(api: Api, body: dict[str, Any]) -> None:
    """Without an echo; nothing is changed."""
    path = accepted(api)
    before = api.client.get(path).json()

    refused = api.client.patch(path, json=body)

    assert code(refused) == (422, "invalid_request")
    assert "canary" not in refused.text
    assert api.client.get(path).json() | {"waiting_for": None} == before | {"waiting_for": None}


def test_a_decision_fits_the_state(api: Api) -> None:
    """`partial` is of what is forgotten."""
    partial = {"decision": {"outcome": "partial", "ground": "17(3)(b)"}}
    path = accepted(api)
    assert code(api.client.patch(path, json=partial)) == (409, "decision_not_possible")
    forgotten = update(tables.erasures).values(status="forgotten", forgotten_at=datetime.now(UTC))
    api.database.transact(lambda connection: connection.execute(forgotten))
    assert code(api.client.patch(path, json=REFUSAL)) == (409, "decision_not_possible")

    decided = api.client.patch(path, json=partial).json()

    assert (decided["status"], decided["decision"]["outcome"]) == ("forgotten", "partial")


def test_officers_and_admins_decide_and_nobody_else(api: Api) -> None:
    """Not even whoever asked; and of an unknown erasure everybody is told alike."""
    asker, officer = api.key(Scope.ERASE), api.key(Scope.OFFICER)
    path = accepted(api, **asker)
    url, unknown = api.url + path, f"{api.url}/v1/erasures/0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e"

    assert httpx.patch(url, json={"legal_hold": True}).status_code == 401
    assert code(httpx.patch(url, json={"legal_hold": True}, headers=asker)) == (403, "scope_missing")
    assert code(httpx.patch(unknown, json={"legal_hold": True}, headers=officer)) == (404, "erasure_not_found")
    assert httpx.patch(url, json={"legal_hold": True}, headers=officer).json()["legal_hold"] is True
    assert httpx.get(url, headers=asker).json()["legal_hold"] is True


def test_what_is_due_is_listed_page_by_page(both: Api) -> None:
    """Before an instant; the filters go on in the link, and a cursor goes with them."""
    paths = [accepted(both, f"u{number}") for number in range(3)]
    due = [datetime.fromisoformat(both.client.get(path).json()["due_at"]) for path in paths]
    params = {"due_before": rfc3339(due[2]), "limit": "1"}

    first = both.client.get("/v1/erasures", params=params).json()
    second = both.client.get(first["next"]).json()

    assert [each["links"]["self"] for each in first["erasures"] + second["erasures"]] == [paths[1], paths[0]]
    assert second["next"] is None
    other = both.client.get(first["next"].replace("due_before=2", "due_before=3"))
    assert code(other) == (422, "invalid_cursor")
    assert code(both.client.get("/v1/erasures?due_before=tomorrow")) == (422, "invalid_request")
    for value in ("2027-01-01T00:00:00", "0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00"):
        assert code(both.client.get(f"/v1/erasures?due_before={value}")) == (422, "invalid_request")
    for value in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        both.client.get(f"/v1/erasures?due_before={value}").raise_for_status()


def test_a_subject_is_searched_by_a_body(both: Api, capfd: pytest.CaptureFixture[str]) -> None:
    """An officer finds everybody's erasures, a key its own; the id stands in no URL, answer or log."""
    asker, officer = both.key(Scope.ERASE), both.key(Scope.OFFICER)
    own, others = accepted(both, **asker), accepted(both)
    accepted(both, "somebody")
    capfd.readouterr()  # so far ids stood in paths, as a DELETE has them
    item = both.client.delete("/v1/items/a").raise_for_status().headers["Location"]

    def found(headers: dict[str, str], query: str = "", **body: str) -> tuple[list[str], str | None]:
        url = f"{both.url}/v1/erasures/search{query}"
        answer = httpx.post(url, json=body, headers=headers, timeout=20).raise_for_status()
        assert "canary" not in answer.text
        page = answer.json()
        return [each["links"]["self"] for each in page["erasures"]], page["next"]

    assert found(officer, user_id="canary") == ([others, own], None)
    assert found(asker, user_id="canary") == ([own], None)
    assert found(officer, user_id="canary", item_id="a") == ([item, others, own], None)
    assert found(officer, item_id="a") == ([item], None)
    assert found(officer, user_id="nobody") == ([], None)
    first, following = found(officer, "?limit=1", user_id="canary")
    assert following is not None
    assert "canary" not in following
    query = following.partition("/search")[2]
    assert (first, found(officer, query, user_id="canary")) == ([others], ([own], None))
    other = httpx.post(both.url + following, json={"user_id": "somebody"}, headers=officer)
    assert code(other) == (422, "invalid_cursor")
    assert "canary" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("body", [{}, {"user_id": ""}, {"user_id": 7}, {"users": ["u"]}, {"user_id": None}])
def test_a_search_for_nothing_is_refused(api: Api, body: dict[str, Any]) -> None:
    """It would find everybody's."""
    assert code(api.client.post("/v1/erasures/search", json=body)) == (422, "invalid_request")


@pytest.mark.P9
def test_what_is_purged_cannot_be_kept_any_more(both: Api) -> None:
    """A decision or a hold would say so of what is gone; more time may be asked for still."""
    path = accepted(both)
    table = tables.erasures
    purged = {"status": "forgotten", "forgotten_at": datetime.now(UTC), "purged_at": datetime.now(UTC), "salt": None}
    both.database.transact(lambda connection: connection.execute(update(table).values(**purged)))

    for change in (PARTIAL, {"legal_hold": True}):
        refused = both.client.patch(path, json=change)
        assert code(refused) == (409, "being_erased")
        assert "gone" in refused.json()["title"]

    body = both.client.get(path).json()
    assert (body["legal_hold"], body["decision"]) == (False, None)
    assert both.client.patch(path, json={"legal_hold": False}).status_code == 200
    until = datetime.fromisoformat(body["due_at"]) + timedelta(days=1)
    assert both.client.patch(path, json=extension(until)).status_code == 200
