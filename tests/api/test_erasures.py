"""Erasures over HTTP, on both databases where the database matters."""

import hashlib
import threading
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import insert, update

from service.erasures.schemas import ErasureAccepted, ErasurePage, ErasurePreview, ErasureReached, ErasureState
from service.platform import tables
from service.platform.clock import SystemClock
from service.platform.database import Database
from tests.api.conftest import Api

GATE = {"passed": True, "figures": {"auc_heldout": 0.502}, "reasons": []}


def forget(database: Database, erasure_id: str) -> None:
    """Move an erasure to forgotten in version 2, as the worker does."""
    at = SystemClock().now()
    base: dict[str, Any] = {"base": 1, "erasure_seq": 0, "manifest": {}, "status": "ready", "created_at": at}
    row = {**base, "version": 2, "kind": "forgotten", "gate": GATE}
    stages = {
        "accepted": {"at": "2026-11-21T12:00:00.000000Z", "seconds": 0.001},
        "gated": {"at": "2026-11-21T12:00:01.000000Z", "seconds": 0.2},
    }
    change = {"status": "forgotten", "forgotten_at": at, "version_before": 1, "version_after": 2, "stages": stages}
    change |= {"batch_id": 1, "reason": None}
    batch = {"id": 1, "epoch": 1, "version": 2, "step": "settled", "size": 1, "created_at": at}

    def unit(connection: Any) -> None:
        connection.execute(insert(tables.batches).values(batch))
        connection.execute(insert(tables.versions).values(row))
        connection.execute(update(tables.erasures).where(tables.erasures.c.id == erasure_id).values(change))

    database.transact(unit)


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem of a response, which must be this one."""
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["code"]) == (status, code)
    assert body["type"] == f"/problems/{code}"
    return body


@pytest.mark.parametrize(
    ("path", "requested", "matched"),
    [
        ("/v1/users/u1/interactions/a", 1, 1),
        ("/v1/users/u1", 1, 2),
        ("/v1/items/a", 1, 2),
        ("/v1/users/nobody/interactions/nothing", 1, 0),
        ("/v1/users/nobody", 1, 0),
        ("/v1/items/nothing", 1, 0),
    ],
)
def test_a_delete_is_accepted_and_says_what_it_matched(both: Api, path: str, requested: int, matched: int) -> None:
    """202 with everything that a caller needs; what is unknown is answered alike."""
    pairs = [("u1", "a"), ("u1", "b"), ("u2", "a")]
    both.client.post("/v1/interactions", json=as_body(pairs)).raise_for_status()

    response = both.client.delete(path)

    body = ErasureAccepted.model_validate_json(response.content)
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/erasures/{body.id}"
    assert response.headers["retry-after"] == "1"
    assert (body.status, body.mode, body.requested, body.matched) == ("accepted", "forget", requested, matched)
    assert (body.due_at - body.received_at).days == 7
    assert both.client.get(response.headers["location"]).json()["status"] == "accepted"


@pytest.mark.P3
def test_what_is_accepted_is_hidden_from_the_next_read_on(both: Api) -> None:
    """The moment the 202 is there."""
    both.client.post("/v1/interactions", json=as_body([("u1", "a"), ("u1", "b")])).raise_for_status()

    both.client.delete("/v1/users/u1/interactions/a").raise_for_status()

    shown = both.client.get("/v1/users/u1/interactions").json()["interactions"]
    assert [one["item_id"] for one in shown] == ["b"]


@pytest.mark.parametrize("user", ["a/b", "x y", "👩‍🚀", "..a", "%2F", "a?b#c", "007", "é" * 512])
def test_ids_of_every_kind_can_be_erased(api: Api, user: str) -> None:
    """Percent-encoded in paths; what was recorded under an id is matched under it."""
    api.client.post("/v1/interactions", json=as_body([(user, user)])).raise_for_status()

    response = api.client.delete(f"/v1/users/{quote(user, safe='')}/interactions/{quote(user, safe='')}")

    assert response.status_code == 202
    assert response.json()["matched"] == 1


def test_ids_that_clients_take_for_steps_of_a_path_are_erased_by_a_body(api: Api) -> None:
    """Clients resolve `.` and `..` before they send, escaped or not; a body says what it says."""
    api.client.post("/v1/interactions", json=as_body([("..", ".")])).raise_for_status()

    assert api.client.post("/v1/erasures", json=as_body([("..", ".")])).json()["matched"] == 1


def test_many_targets_are_one_erasure(both: Api) -> None:
    """Duplicates merged, each interaction counted once."""
    both.client.post("/v1/interactions", json=as_body([("u1", "a"), ("u1", "b"), ("u2", "a")])).raise_for_status()
    body = {
        "interactions": [{"user_id": "u1", "item_id": "a"}, {"user_id": "u1", "item_id": "a"}],
        "users": ["u1"],
        "items": ["a"],
        "reason": "asked in writing",
    }

    response = both.client.post("/v1/erasures", json=body)

    assert response.status_code == 202
    assert (response.json()["requested"], response.json()["matched"]) == (3, 3)
    assert both.client.get(response.headers["location"]).json()["reason"] == "asked in writing"


def test_the_salt_opens_the_commitment_in_the_log(api: Api) -> None:
    """Whoever got the 202 can show what the log's entry was about; the salt is shown nowhere else."""
    accepted = api.client.delete("/v1/users/u1/interactions/a").json()

    text = b'{"interactions":[{"item_id":"a","user_id":"u1"}],"items":[],"users":[]}'
    commitment = hashlib.sha256(bytes.fromhex(accepted["salt"]) + text).hexdigest()
    entry = api.client.get(accepted["links"]["audit"]).json()["entries"][0]
    assert entry["body"]["commitment"] == accepted["commitment"] == commitment
    elsewhere = (accepted["links"]["self"], "/v1/erasures", "/v1/audit/entries")
    assert not [path for path in elsewhere if accepted["salt"] in api.client.get(path).text]


@pytest.mark.P2
def test_a_retry_with_its_key_finds_the_same_erasure(both: Api) -> None:
    """With its salt; what else a replay says, test_http has."""
    headers = {"Idempotency-Key": "f81d4fae"}
    first = both.client.delete("/v1/users/u1/interactions/a", headers=headers)

    again = both.client.delete("/v1/users/u1/interactions/a", headers=headers)

    assert (again.status_code, again.json()) == (202, {**first.json(), "replayed": True})
    assert again.headers["location"] == first.headers["location"]
    assert len(both.client.get("/v1/erasures").json()["erasures"]) == 1


def test_a_delete_and_a_post_of_the_same_target_are_the_same_request(api: Api) -> None:
    """What counts is what is asked for."""
    headers = {"Idempotency-Key": "k"}
    first = api.client.delete("/v1/users/u1", headers=headers)

    again = api.client.post("/v1/erasures", json={"users": ["u1"]}, headers=headers)

    assert again.json() == {**first.json(), "replayed": True}


def test_a_key_with_another_request_is_refused(both: Api) -> None:
    """422, and what is asked is not echoed."""
    headers = {"Idempotency-Key": "k"}
    both.client.delete("/v1/users/u1/interactions/a", headers=headers).raise_for_status()

    response = both.client.delete("/v1/users/u1/interactions/canary-item", headers=headers)

    problem(response, 422, "idempotency_key_reused")
    assert "canary" not in response.text


@pytest.mark.P9
def test_a_caller_who_waits_gets_the_state_reached(both: Api) -> None:
    """200 as soon as the worker is done, with the salt that was not shown before."""

    def work() -> None:
        while not (found := both.client.get("/v1/erasures").json()["erasures"]):
            pass
        forget(both.database, found[0]["id"])

    worker = threading.Thread(target=work)
    worker.start()
    response = both.client.delete("/v1/users/u1/interactions/a", headers={"Prefer": "wait=20"})
    worker.join()

    body = ErasureReached.model_validate_json(response.content)
    assert (response.status_code, body.status, body.version_after) == (200, "forgotten", 2)
    assert body.salt
    assert response.headers["preference-applied"] == "wait=20"
    assert response.headers["location"] == f"/v1/erasures/{body.id}"


def test_a_caller_who_waits_in_vain_gets_the_202(api: Api) -> None:
    """When the time is over; no time is a time too."""
    response = api.client.delete("/v1/users/u1/interactions/a", headers={"Prefer": "wait=0"})

    assert response.status_code == 202
    assert response.headers["preference-applied"] == "wait=0"


def test_waiting_holds_nobody_up(api: Api) -> None:
    """Forty callers wait at once while others are answered."""
    url, headers = f"{api.url}/v1/users/u1/interactions/a", {**api.client.headers, "Prefer": "wait=25"}
    waiting = [
        threading.Thread(target=httpx.delete, args=(url,), kwargs={"headers": headers, "timeout": 30})
        for _ in range(40)
    ]
    for caller in waiting:
        caller.start()
    while len(api.client.get("/v1/erasures?limit=500").json()["erasures"]) < 40:
        pass

    assert all(caller.is_alive() for caller in waiting)
    assert api.client.delete("/v1/users/u2/interactions/a").status_code == 202
    for erasure in api.client.get("/v1/erasures?limit=500").json()["erasures"]:
        api.client.delete(f"/v1/erasures/{erasure['id']}").raise_for_status()
    for caller in waiting:
        caller.join()


def test_a_forgotten_erasure_shows_stages_versions_and_the_gates_figures(both: Api) -> None:
    """What the worker and the gate wrote down."""
    accepted = both.client.delete("/v1/users/u1/interactions/a").json()
    forget(both.database, accepted["id"])

    response = both.client.get(accepted["links"]["self"])

    body = ErasureState.model_validate_json(response.content)
    assert (body.status, body.version_before, body.version_after) == ("forgotten", 1, 2)
    assert (body.gate, body.model_changed) == (GATE, True)
    assert body.stages["gated"].seconds == 0.2
    assert body.forgotten_at is not None
    assert "salt" not in response.json()


def test_acceptance_is_a_stage_with_its_time(api: Api) -> None:
    """From the first moment on."""
    accepted = api.client.delete("/v1/users/u1/interactions/a").json()

    stages = api.client.get(accepted["links"]["self"]).json()["stages"]

    assert stages["accepted"]["at"] == accepted["received_at"]
    assert 0 <= stages["accepted"]["seconds"] < 5


def test_an_accepted_erasure_can_be_cancelled_once(both: Api) -> None:
    """What it had hidden is shown again; then it is over."""
    both.client.post("/v1/interactions", json=as_body([("u1", "a")])).raise_for_status()
    accepted = both.client.delete("/v1/users/u1/interactions/a").json()

    response = both.client.delete(accepted["links"]["self"])

    assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    assert len(both.client.get("/v1/users/u1/interactions").json()["interactions"]) == 1
    problem(both.client.delete(accepted["links"]["self"]), 409, "erasure_not_cancellable")


def test_a_forgotten_erasure_cannot_be_cancelled(both: Api) -> None:
    """The problem names its state."""
    accepted = both.client.delete("/v1/users/u1/interactions/a").json()
    forget(both.database, accepted["id"])

    body = problem(both.client.delete(accepted["links"]["self"]), 409, "erasure_not_cancellable")

    assert "forgotten" in body["detail"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_unknown_erasure_is_not_found(api: Api, method: str) -> None:
    """A well-formed id or any other text."""
    for erasure_id in ("0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e", "x"):
        problem(api.client.request(method, f"/v1/erasures/{erasure_id}"), 404, "erasure_not_found")


def test_the_list_is_followed_by_its_links(both: Api) -> None:
    """Newest first, each once, filtered where asked."""
    ids = [both.client.delete(f"/v1/users/u{number}").json()["id"] for number in range(5)]
    both.client.delete(f"/v1/erasures/{ids[0]}").raise_for_status()
    seen: list[str] = []
    following: str | None = "/v1/erasures?limit=2&status=accepted"

    while following is not None:
        page = ErasurePage.model_validate_json(both.client.get(following).content)
        seen += [erasure.id for erasure in page.erasures]
        following = page.next

    assert seen == ids[:0:-1]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("cursor=AAAA", "invalid_cursor"),
        ("cursor=", "invalid_cursor"),
        ("limit=0", "invalid_request"),
        ("limit=501", "invalid_request"),
        ("status=done", "invalid_request"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(api: Api, query: str, code: str) -> None:
    """With what is wrong."""
    problem(api.client.get(f"/v1/erasures?{query}"), 422, code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "no_targets"),
        ({"interactions": [], "users": [], "items": []}, "no_targets"),
        ({"users": ["canary" + "x" * 512]}, "invalid_request"),
        ({"users": [""]}, "invalid_request"),
        ({"users": ["canary\n"]}, "invalid_request"),
        ({"items": ["canary\x00"]}, "invalid_request"),
        ({"users": [7]}, "invalid_request"),
        ({"users": "canary"}, "invalid_request"),
        ({"interactions": [{"user_id": "canary"}]}, "invalid_request"),
        ({"interactions": [{"user_id": "canary", "item_id": "b", "x": 1}]}, "invalid_request"),
        ({"users": ["canary"], "mode": "destroy"}, "invalid_request"),
        ({"users": ["canary"], "mode": "dislike"}, "mode_unavailable"),
        ({"users": ["canary"], "reason": "canary" * 100}, "invalid_request"),
        ({"users": ["canary"], "status": "erased"}, "invalid_request"),
        ({"users": ["canary"], "received_at": "2020-01-01T00:00:00Z"}, "invalid_request"),
        ([], "invalid_request"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_without_an_echo(api: Api, body: Any, code: str) -> None:
    """Fields that only the service may set are refused like any other that is not known."""
    response = api.client.post("/v1/erasures", json=body)

    problem(response, 422, code)
    assert "canary" not in response.text
    assert api.client.get("/v1/erasures").json()["erasures"] == []


@pytest.mark.parametrize("body", [b"{", b"", b'{"users":["\\ud800"]}', b"\xff"])
def test_a_body_that_is_no_json_is_refused(api: Api, body: bytes) -> None:
    """As a mistake of the caller's."""
    response = api.client.post("/v1/erasures", content=body, headers={"Content-Type": "application/json"})

    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.P10
def test_more_targets_than_one_erasure_takes_are_refused(api: Api) -> None:
    """10,000 are taken, one more is not."""
    users = [f"u{number}" for number in range(10_001)]

    problem(api.client.post("/v1/erasures", json={"users": users}), 422, "too_many_targets")
    assert api.client.post("/v1/erasures", json={"users": users[1:]}).json()["requested"] == 10_000


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?mode=destroy", {}),
        ("?reason=" + "x" * 501, {}),
        ("", {"Idempotency-Key": ""}),
        ("", {"Idempotency-Key": "k" * 256}),
    ],
)
def test_a_delete_that_makes_no_sense_is_refused(api: Api, query: str, headers: dict[str, str]) -> None:
    """Query and headers are checked like a body."""
    body = problem(api.client.delete(f"/v1/users/u1{query}", headers=headers), 422, "invalid_request")

    assert body["errors"]


def test_a_preview_tells_the_reach_and_hides_nothing(both: Api) -> None:
    """The body of an erasure, answered with what it would do; nothing is stored."""
    both.client.post("/v1/interactions", json=as_body([("u1", "a"), ("u1", "b"), ("u2", "a")])).raise_for_status()
    body = {"interactions": [{"user_id": "u2", "item_id": "a"}], "users": ["u1", "nobody"], "reason": "asked by mail"}

    response = both.client.post("/v1/erasures/preview", json=body)

    assert response.status_code == 200
    preview = ErasurePreview.model_validate_json(response.content)
    assert (preview.requested, preview.matched, preview.hidden) == (3, 3, 3)
    assert (preview.affected_users, preview.affected_items, preview.recorded, preview.share) == (2, 2, 3, 1.0)
    assert len(both.client.get("/v1/users/u1/interactions").json()["interactions"]) == 2
    assert both.client.get("/v1/erasures").json()["erasures"] == []
    assert both.client.get("/v1/audit/entries").json()["entries"] == []
    assert both.client.post("/v1/erasures", json=body).json()["matched"] == preview.matched


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "no_targets"),
        ({"users": ["canary"], "dry_run": True}, "invalid_request"),
        ({"users": ["canary"], "mode": "dislike"}, "mode_unavailable"),
        ({"users": [f"canary{number}" for number in range(10_001)]}, "too_many_targets"),
    ],
)
def test_what_could_not_be_erased_has_no_preview(api: Api, body: Any, code: str) -> None:
    """The same refusals as the erasure itself."""
    response = api.client.post("/v1/erasures/preview", json=body)

    problem(response, 422, code)
    assert "canary" not in response.text


def test_the_metrics_count_requests_by_kind_and_outcome(api: Api) -> None:
    """Without an id of anybody."""
    before = samples(api)
    headers = {"Idempotency-Key": "k"}
    for _ in range(2):
        api.client.delete("/v1/users/canary-user/interactions/a", headers=headers).raise_for_status()
    api.client.post("/v1/erasures", json={"users": ["canary-user"], "items": ["a"]}).raise_for_status()

    after = samples(api)

    def grown(kind: str, outcome: str) -> float:
        name = f'expunge_erasure_requests_total{{kind="{kind}",outcome="{outcome}"}}'
        return after.get(name, 0) - before.get(name, 0)

    assert (grown("interaction", "accepted"), grown("interaction", "replayed")) == (1, 1)
    assert (grown("user", "accepted"), grown("item", "accepted")) == (1, 1)
    stage = 'expunge_erasure_duration_seconds_count{stage="accept"}'
    assert after[stage] - before.get(stage, 0) == 2
    assert "canary" not in api.client.get("/metrics").text


def test_the_answers_are_those_of_the_description(api: Api) -> None:
    """Parameters that are read by hand are described all the same."""
    paths = api.client.get("/openapi.json").json()["paths"]

    names = {
        (path, method): {parameter["name"] for parameter in operation.get("parameters", [])}
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    asked = {"mode", "reason", "Idempotency-Key", "Prefer"}
    assert names["/v1/users/{user_id}/interactions/{item_id}", "delete"] == {"user_id", "item_id"} | asked
    assert names["/v1/users/{user_id}", "delete"] == {"user_id"} | asked
    assert names["/v1/items/{item_id}", "delete"] == {"item_id"} | asked
    assert names["/v1/erasures", "post"] == {"Idempotency-Key", "Prefer"}
    for path in ("/v1/users/{user_id}", "/v1/items/{item_id}"):
        assert {"200", "202", "401", "403", "422", "429"} <= set(paths[path]["delete"]["responses"])


def samples(api: Api) -> dict[str, float]:
    """Every sample of /metrics."""
    lines = [line for line in api.client.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def as_body(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """The body of POST /v1/interactions."""
    return {"interactions": [{"user_id": user, "item_id": item} for user, item in pairs]}
