"""What a route does not declare is refused on every route of the application, and nothing is done."""

import json
from typing import Any

import httpx
import pytest

from service.platform.auth import Scope
from tests.api.conftest import Api
from tests.api.test_application import OPEN, calls, concrete
from tests.api.test_erasures import as_body, problem


def erasures(api: Api) -> list[dict[str, Any]]:
    """Everything that was accepted."""
    found: list[dict[str, Any]] = api.client.get("/v1/erasures").json()["erasures"]
    return found


def test_every_route_refuses_what_it_does_not_declare(api: Api) -> None:
    """A parameter, a repeated value, a body, a member at any depth: 422 on each, and no name of the caller's back."""
    seen = set()
    for method, path, operation in calls(api):
        seen.add(path)
        body = _example(api, operation)
        given: dict[str, Any] = {} if body is None else {"json": body}
        refused = [api.client.request(method, concrete(path), params={"canary": "1"}, **given)]
        single = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
        twice = [f"{concrete(path)}?{name}=1&{name}=1" for name in single if name != "exclude"]
        refused += [api.client.request(method, address, **given) for address in twice]
        if body is None:
            refused.append(api.client.request(method, concrete(path), json={"canary": 1}))
        else:
            refused.append(api.client.request(method, concrete(path), json=body | {"canary": 1}))
            text = json.dumps(body | {"canary": 1})[:-1] + ', "canary": 2}'
            headers = {"Content-Type": "application/json"}
            refused.append(api.client.request(method, concrete(path), content=text, headers=headers))
        for answer in refused:
            assert answer.status_code == 422, (method, path, answer.text)
            assert problem(answer, 422, "invalid_request")["errors"], (method, path)
            assert "canary" not in answer.text
    assert {"/v1/erasures/preview", "/livez", "/v1/models/aliases/live", "/v1/users/{user_id}"} <= seen
    assert erasures(api) == []


def test_every_body_is_closed_at_every_depth(api: Api) -> None:
    """As the description says: no object of a request takes members that it does not name."""
    schemas = api.client.get("/openapi.json").json()["components"]["schemas"]

    def closed(schema: dict[str, Any]) -> None:
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        if schema.get("type") == "object":
            assert schema.get("additionalProperties") is False, schema
        for part in [*schema.get("properties", {}).values(), *schema.get("anyOf", []), schema.get("items", {})]:
            if part:
                closed(part)

    bodies = [operation["requestBody"] for _, _, operation in calls(api) if "requestBody" in operation]
    assert len(bodies) >= 4
    for body in bodies:
        closed(body["content"]["application/json"]["schema"])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/users/u1?dry_run=true",
        "/v1/users/u1?mod=dislike",
        "/v1/users/u1?Mode=dislike",
        "/v1/users/u1?mode=forget&mode=dislike",
        "/v1/users/u1?=1",
        "/v1/users/u1?x/interactions/5",
        "/v1/items/a?confirm",
        "/v1/users/u1/interactions/a?recursive=0",
    ],
)
def test_a_delete_with_anything_unknown_erases_nothing(api: Api, path: str) -> None:
    """Whatever it was meant to do."""
    body = problem(api.client.delete(path), 422, "invalid_request")

    assert body["errors"][0]["pointer"].startswith("query")
    assert erasures(api) == []


@pytest.mark.parametrize(
    "path", ["/v1/users/u1/", "/v1/users/u1/interactions/", "/v1/users//interactions/a", "/v1/items/a/"]
)
def test_an_address_that_lost_an_id_erases_nothing(api: Api, path: str) -> None:
    """Clients resolve `DELETE /v1/users/u1/interactions/..` to the first of these: it is not the whole user."""
    assert api.client.delete(path, follow_redirects=True).status_code in (404, 405)
    assert erasures(api) == []


def test_a_misspelt_parameter_is_told_the_right_one(api: Api) -> None:
    """And which there are."""
    body = problem(api.client.delete("/v1/users/u1?mod=dislike"), 422, "invalid_request")

    assert body["errors"][0]["detail"] == (
        "A parameter is not known here; `mode` may be meant, there are `mode`, `reason`."
    )


def test_a_delete_with_a_body_erases_nothing(api: Api) -> None:
    """Announced by its length or in chunks; an empty one is none."""
    body = b'{"mode":"dislike"}'
    for content in (body, iter([body]), iter([b"{", b'"mode":"dislike"}'])):
        problem(api.client.request("DELETE", "/v1/users/u1", content=content), 422, "invalid_request")
    assert erasures(api) == []

    assert api.client.request("DELETE", "/v1/users/u1", content=iter([b""])).status_code == 202


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ('{"users":["u1"],"users":["u2"]}', "#/users"),
        ('{"interactions":[{"user_id":"u1","item_id":"a","item_id":"b"}]}', "#/item_id"),
        ('{"users":["u1"],"mode":"forget","mode":"forget"}', "#/mode"),
    ],
)
def test_a_member_that_stands_twice_is_refused_at_any_depth(api: Api, body: str, pointer: str) -> None:
    """Nobody can say which of the two was meant."""
    headers = {"Content-Type": "application/json"}

    refused = problem(api.client.post("/v1/erasures", content=body, headers=headers), 422, "invalid_request")

    assert refused["errors"][0]["pointer"] == pointer
    assert erasures(api) == []


def test_a_filter_that_does_not_exist_lists_nobody(api: Api) -> None:
    """Not everybody."""
    api.client.delete("/v1/users/943").raise_for_status()

    assert "943" not in problem(api.client.get("/v1/erasures?user_id=943"), 422, "invalid_request")["detail"]


def test_what_is_declared_goes_through(api: Api) -> None:
    """Repeated where it may be, in any order, percent-encoded, with headers that nobody knows."""
    api.client.post("/v1/interactions", json=as_body([("u1", "a")])).raise_for_status()

    assert api.client.get("/v1/erasures?limit=2&status=accepted").status_code == 200
    assert api.client.get("/readyz?verbose").status_code in (200, 503)
    answer = api.client.get("/v1/users/u1/recommendations?exclude=a&exclude=%C3%A9&n=5")
    assert answer.json().get("code", "model_unavailable") == "model_unavailable"
    headers = {"Prefer": "handling=strict, flavour=vanilla", "X-Dry-Run": "true"}
    assert api.client.delete("/v1/users/u1?reason=a+b", headers=headers).status_code == 202


def test_a_query_that_is_no_utf8_is_refused(api: Api) -> None:
    """It would become another id."""
    assert problem(api.client.get("/v1/users/u1/recommendations?exclude=%FF"), 400, "bad_request")


def test_a_stranger_learns_nothing_of_what_is_known(api: Api) -> None:
    """No key, or one that may not: told so first."""
    stranger, other = httpx.Client(base_url=api.url), api.key(Scope.AUDIT)
    with stranger:
        for method, path, _ in calls(api):
            if path in OPEN:
                continue
            address = f"{concrete(path)}?canary=1"
            problem(stranger.request(method, address), 401, "unauthenticated")
        problem(stranger.delete("/v1/users/u1?canary=1", headers=other), 403, "scope_missing")
        problem(stranger.request("DELETE", "/v1/users/u1", json={}, headers=other), 403, "scope_missing")


def _example(api: Api, operation: dict[str, Any]) -> dict[str, Any] | None:
    """A body that the operation takes; None where it takes none."""
    if "requestBody" not in operation:
        return None
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    name = schema.get("anyOf", [schema])[0]["$ref"].rpartition("/")[2]
    bodies: dict[str, dict[str, Any]] = {
        "ErasureRequest": {"users": ["u1"]},
        "NewInteractions": as_body([("u1", "a")]),
        "RecommendMany": {"users": ["u1"]},
        "Promotion": {"version": 1},
        "ErasureChange": {"legal_hold": True},
        "ErasureSearch": {"user_id": "u1"},
        "NewConsent": {"users": ["u1"]},
        "CompactionRequest": {},
        "PresentedSubjects": {"salt": "a1" * 32, "users": ["u1"]},
    }
    return bodies[name]
