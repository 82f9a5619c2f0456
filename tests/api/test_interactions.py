"""Interactions over HTTP: new feedback and subject access."""

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from service.interactions.schemas import RecordedInteractions, UserInteractions
from service.platform.auth import Scope
from tests.api.conftest import Api


def send(api: Api, *pairs: tuple[str, str]) -> httpx.Response:
    """Record interactions."""
    body = {"interactions": [{"user_id": user, "item_id": item} for user, item in pairs]}
    return api.client.post("/v1/interactions", json=body)


def test_new_interactions_are_recorded_and_shown(api: Api) -> None:
    """To the person they are about."""
    response = send(api, ("u1", "a"), ("u1", "b"), ("u1", "a"))

    outcome = RecordedInteractions.model_validate_json(response.content)
    assert response.status_code == 200
    assert (outcome.recorded, outcome.duplicates, outcome.refused) == (2, 1, [])
    shown = UserInteractions.model_validate_json(api.client.get("/v1/users/u1/interactions").content)
    assert {one.item_id for one in shown.interactions} == {"a", "b"}
    assert shown.next is None


@pytest.mark.P4
def test_suppressed_ones_are_refused_by_their_place(api: Api) -> None:
    """What is left is recorded."""
    api.client.delete("/v1/users/u1/interactions/a").raise_for_status()
    api.client.delete("/v1/users/u2").raise_for_status()

    response = send(api, ("u1", "b"), ("u1", "a"), ("u2", "z"))

    assert response.json() == {
        "recorded": 1,
        "duplicates": 0,
        "refused": [{"index": 1, "code": "suppressed"}, {"index": 2, "code": "suppressed"}],
    }


@pytest.mark.P4
def test_only_suppressed_ones_are_a_conflict(api: Api) -> None:
    """A problem that names places and no ids."""
    api.client.delete("/v1/users/canary-user").raise_for_status()

    response = send(api, ("canary-user", "a"))

    assert response.status_code == 409
    body = response.json()
    assert body["code"] == "suppressed"
    assert [error["pointer"] for error in body["errors"]] == ["#/interactions/0"]
    assert "canary" not in response.text


def test_pages_are_followed_by_their_links(api: Api) -> None:
    """Also of a user whose id needs escaping."""
    user = "a/b 👩‍🚀?&"
    send(api, *((user, f"i{number}") for number in range(7))).raise_for_status()
    seen: list[str] = []
    following: str | None = f"/v1/users/{quote(user, safe='')}/interactions?limit=3"

    while following is not None:
        page = api.client.get(following).json()
        assert page["user_id"] == user
        seen += [one["item_id"] for one in page["interactions"]]
        following = page["next"]

    assert sorted(seen) == [f"i{number}" for number in range(7)]


def test_somebody_unknown_is_answered_like_somebody_without_interactions(api: Api) -> None:
    """Who asks does not learn whether the user was ever known."""
    send(api, ("u1", "a")).raise_for_status()
    api.client.delete("/v1/users/u1").raise_for_status()

    erased, unknown = (api.client.get(f"/v1/users/{user}/interactions").json() for user in ("u1", "u2"))

    assert erased == {"user_id": "u1", "interactions": [], "next": None}
    assert unknown == {"user_id": "u2", "interactions": [], "next": None}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"interactions": []},
        {"interactions": [{"user_id": "canary"}]},
        {"interactions": [{"user_id": "canary", "item_id": "x" * 513}]},
        {"interactions": [{"user_id": "canary", "item_id": "a\u0085"}]},
        {"interactions": [{"user_id": "canary", "item_id": "a", "recorded_at": "2020-01-01T00:00:00Z"}]},
        {"interactions": {"user_id": "canary", "item_id": "a"}},
    ],
)
def test_a_body_that_makes_no_sense_is_refused_without_an_echo(api: Api, body: Any) -> None:
    """Nothing of it is recorded."""
    response = api.client.post("/v1/interactions", json=body)

    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert "canary" not in response.text


@pytest.mark.P10
def test_more_than_ten_thousand_at_once_are_refused(api: Api) -> None:
    """Ten thousand are taken."""
    pairs = [(f"u{number}", "a") for number in range(10_001)]

    assert send(api, *pairs).status_code == 422
    assert send(api, *pairs[1:]).json()["recorded"] == 10_000


def test_recording_needs_the_scope_write_and_reading_the_scope_read(api: Api) -> None:
    """What a shop may write it may not read of a person."""
    body = {"interactions": [{"user_id": "u1", "item_id": "a"}]}
    with httpx.Client(base_url=api.url) as caller:
        shop, office = api.key(Scope.WRITE, Scope.RECOMMEND), api.key(Scope.READ, Scope.ERASE)
        statuses = [
            caller.post("/v1/interactions", json=body).status_code,
            caller.post("/v1/interactions", json=body, headers=office).status_code,
            caller.post("/v1/interactions", json=body, headers=shop).status_code,
            caller.get("/v1/users/u1/interactions", headers=shop).status_code,
            caller.get("/v1/users/u1/interactions", headers=office).status_code,
        ]

    assert statuses == [401, 403, 200, 403, 200]


def test_a_cursor_that_was_not_given_out_is_refused(api: Api) -> None:
    """As everywhere."""
    response = api.client.get("/v1/users/u1/interactions?cursor=AAAA")

    assert (response.status_code, response.json()["code"]) == (422, "invalid_cursor")
