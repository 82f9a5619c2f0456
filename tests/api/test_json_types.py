"""Scalars of a body or a query are what JSON has them as: what could be read as one is refused, and does nothing."""

from typing import Any

import pytest

from tests.api.conftest import Api

UNTIL = {"until": "2026-12-30T00:00:00Z", "reason": "words"}


@pytest.mark.parametrize(
    ("method", "path", "body", "pointer"),
    [
        ("POST", "/v1/recommendations", {"users": ["u"], "exclude_seen": 0}, "#/exclude_seen"),
        ("POST", "/v1/recommendations", {"users": ["u"], "exclude_seen": "false"}, "#/exclude_seen"),
        ("POST", "/v1/recommendations", {"users": ["u"], "n": "5"}, "#/n"),
        ("POST", "/v1/recommendations", {"users": ["u"], "n": True}, "#/n"),
        ("PUT", "/v1/models/aliases/live", {"version": "1"}, "#/version"),
        ("PUT", "/v1/models/aliases/live", {"version": True}, "#/version"),
        ("PATCH", "/v1/erasures/x", {"extension": UNTIL | {"until": 1_800_000_000}}, "#/extension/until"),
        ("PATCH", "/v1/erasures/x", {"extension": UNTIL | {"until": "1800000000"}}, "#/extension/until"),
        ("PATCH", "/v1/erasures/x", {"extension": UNTIL | {"until": "2026-12-30"}}, "#/extension/until"),
        ("GET", "/v1/erasures?due_before=0.5", None, "query/due_before"),
        ("GET", "/v1/erasures?due_before=1800000000", None, "query/due_before"),
        ("GET", "/v1/erasures?due_before=2026-12-30T00:00:00", None, "query/due_before"),
    ],
)
def test_what_is_no_such_scalar_is_refused(api: Api, method: str, path: str, body: Any, pointer: str):
    """A number of seconds is no instant, a text no number, 0 no boolean."""
    answer = api.client.request(method, path, json=body) if body else api.client.request(method, path)

    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_a_whole_number_may_be_written_with_a_fraction_of_nothing(api: Api):
    """JSON has one kind of number."""
    answer = api.client.put("/v1/models/aliases/live", json={"version": 1.0})

    assert answer.json()["code"] == "version_unknown", answer.text


def test_the_document_tells_that_an_officer_reads_the_log(api: Api):
    """A scope that another implies stands beside it."""
    paths = api.client.get("/openapi.json").json()["paths"]

    assert paths["/v1/audit/entries"]["get"]["security"] == [{"API key": ["audit", "officer"]}]


def test_the_document_tells_what_a_change_holds(api: Api):
    """One member that is not null, as the call has it."""
    change = api.client.get("/openapi.json").json()["components"]["schemas"]["ErasureChange"]

    assert (change["maxProperties"], len(change["oneOf"])) == (1, 3)


def test_the_document_tells_of_addresses_that_are_too_long(api: Api):
    """414, wherever a parameter may make one."""
    paths = api.client.get("/openapi.json").json()["paths"]

    assert "414" in paths["/v1/users/{user_id}/recommendations"]["get"]["responses"]
    assert "414" not in paths["/livez"]["get"]["responses"]
