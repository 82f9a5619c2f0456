"""The audit log over HTTP."""

import hashlib

import httpx
import pytest
import rfc8785

from service.audit.schemas import AuditPage
from service.platform.auth import Scope
from tests.api.conftest import Api


def test_every_transition_is_told_in_order(api: Api) -> None:
    """Acceptance and cancellation, found by the erasure's own link."""
    first = api.client.delete("/v1/users/u1").json()
    api.client.delete("/v1/items/a").raise_for_status()
    api.client.delete(first["links"]["self"]).raise_for_status()

    page = AuditPage.model_validate_json(api.client.get("/v1/audit/entries").content)
    own = api.client.get(first["links"]["audit"]).json()["entries"]

    assert [entry.event for entry in page.entries] == ["erasure.accepted", "erasure.accepted", "erasure.cancelled"]
    assert [entry.seq for entry in page.entries] == [1, 2, 3]
    assert [entry["seq"] for entry in own] == [1, 3]
    assert own[0]["body"]["targets"] == {"interactions": 0, "items": 0, "users": 1}


@pytest.mark.P7
def test_anybody_can_compute_the_leaf_of_an_entry(api: Api) -> None:
    """From what is shown, without its hash: canonical JSON, a zero byte before it, SHA-256."""
    api.client.delete("/v1/users/u1").raise_for_status()

    entry = api.client.get("/v1/audit/entries").json()["entries"][0]

    leaf = entry.pop("leaf_hash")
    assert hashlib.sha256(b"\0" + rfc8785.dumps(entry)).hexdigest() == leaf


def test_pages_are_followed_by_their_links(api: Api) -> None:
    """Of all entries, and of those of one erasure."""
    first = api.client.delete("/v1/users/u1").json()
    for number in range(4):
        api.client.delete(f"/v1/users/v{number}").raise_for_status()
    api.client.delete(first["links"]["self"]).raise_for_status()

    def follow(path: str | None) -> list[int]:
        seen: list[int] = []
        while path is not None:
            page = api.client.get(path).json()
            seen += [entry["seq"] for entry in page["entries"]]
            path = page["next"]
        return seen

    assert follow("/v1/audit/entries?limit=4") == [1, 2, 3, 4, 5, 6]
    assert follow(f"/v1/audit/entries?limit=1&erasure_id={first['id']}") == [1, 6]


@pytest.mark.P8
def test_the_log_says_nothing_of_a_person(api: Api) -> None:
    """Neither an id nor the reason that somebody gave."""
    body = {
        "interactions": [{"user_id": "canary-1", "item_id": "canary-2"}],
        "users": ["canary-3"],
        "reason": "canary-4",
    }
    api.client.post("/v1/erasures", json=body).raise_for_status()

    assert "canary" not in api.client.get("/v1/audit/entries").text


def test_the_log_is_for_auditors(api: Api) -> None:
    """The scope audit, or admin."""
    with httpx.Client(base_url=api.url) as caller:
        statuses = [
            caller.get("/v1/audit/entries", headers=headers).status_code
            for headers in ({}, api.key(Scope.ERASE, Scope.RECOMMEND), api.key(Scope.AUDIT), api.key(Scope.ADMIN))
        ]

    assert statuses == [401, 403, 200, 200]


@pytest.mark.parametrize(
    ("query", "code"),
    [("cursor=AAAA", "invalid_cursor"), ("limit=0", "invalid_request"), ("limit=1001", "invalid_request")],
)
def test_a_page_that_makes_no_sense_is_refused(api: Api, query: str, code: str) -> None:
    """With what is wrong."""
    response = api.client.get(f"/v1/audit/entries?{query}")

    assert (response.status_code, response.json()["code"]) == (422, code)
