import socket
import time
from typing import Annotated
from urllib.parse import quote

import httpx
import orjson
import pytest
from fastapi import APIRouter, Body
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from prometheus_client import REGISTRY
from starlette.responses import Response

from service.platform import middleware
from service.platform.ids import SLASH, PathItemId, PathUserId
from service.platform.logging import configure_logging
from service.platform.problem import Conflict
from tests.unit.platform.conftest import Serve
from tests.unit.platform.test_ids import ids

LIMIT = 4096

router = APIRouter()


@router.get("/users/{user_id}/interactions/{item_id}")
async def pair(user_id: PathUserId, item_id: PathItemId) -> list[str]:
    return [user_id, item_id]


@router.post("/echo")
async def echo(body: Annotated[list[str], Body()]) -> int:
    return len(body)


@router.get("/fail")
async def fail() -> None:
    msg = "ana@example.org is not to be seen"
    raise ValueError(msg)


@router.get("/conflict")
async def conflict() -> None:
    raise Conflict("Two at once.", retry_after_s=3)


@router.get("/late")
async def late() -> Response:
    class Broken(Response):
        async def __call__(self, scope, receive, send):  # type: ignore[no-untyped-def]
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
            raise ValueError

    return Broken()


@pytest.fixture
def client(serve: Serve) -> httpx.Client:
    settings = serve.services.settings.model_copy(update={"body_limit_bytes": LIMIT})
    return serve(router, settings=settings)


def seen(method: str, route: str, status_class: str) -> float:
    labels = {"method": method, "route": route, "status_class": status_class}
    return REGISTRY.get_sample_value("expunge_http_request_duration_seconds_count", labels) or 0


def test_every_answer_has_a_request_id(client: httpx.Client):
    """A new one each, whatever the status."""
    made = [client.get(path).headers["X-Request-Id"] for path in ("/livez", "/none", "/fail", "/livez")]

    assert len(set(made)) == 4


def test_the_callers_request_id_is_echoed(client: httpx.Client):
    """In the header and in the problem."""
    response = client.get("/none", headers={"X-Request-Id": "abc-123"})

    assert response.headers["X-Request-Id"] == "abc-123"
    assert response.json()["request_id"] == "abc-123"
    assert response.json()["instance"] == "urn:request:abc-123"


@pytest.mark.parametrize("given_id", ["", "a b", "x" * 65, "<script>", "a;b"])
def test_a_request_id_that_is_no_plain_token_is_replaced(client: httpx.Client, given_id: str):
    """It goes into logs."""
    response = client.get("/livez", headers={"X-Request-Id": given_id.encode()})

    assert response.headers["X-Request-Id"] != given_id
    assert len(response.headers["X-Request-Id"]) == 36


@given(ids, ids)
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ids_travel_in_paths(client: httpx.Client, user_id: str, item_id: str):
    """Any text, percent-encoded, is one segment and comes out as it went in."""
    path = f"/users/{quote(user_id, safe='')}/interactions/{quote(item_id, safe='')}"
    request = client.build_request("GET", path)
    request.url = request.url.copy_with(raw_path=path.encode())  # httpx would resolve `..`

    assert client.send(request).json() == [user_id, item_id]


@pytest.mark.parametrize("slash", ["%2F", "%2f"])
def test_an_encoded_slash_stays_in_its_segment(client: httpx.Client, slash: str):
    """And a plain one ends it."""
    assert client.get(f"/users/a{slash}b/interactions/c{slash}{slash}").json() == ["a/b", "c//"]
    assert client.get("/users/a/b/interactions/c").status_code == 404


@pytest.mark.P4
@pytest.mark.parametrize("segment", [quote(SLASH), f"a{quote(SLASH)}b%2Fc", "%FF", "%C3", "%ED%A0%80"])
def test_a_path_that_would_name_another_id_is_refused(client: httpx.Client, segment: str):
    """The stand-in of a slash itself, and what is not UTF-8."""
    response = client.get(f"/users/{segment}/interactions/x")

    assert response.status_code == 400
    assert response.json()["code"] == "bad_request"


@pytest.mark.parametrize("segment", ["a%0Ab", "%00", "%1B%5B31m", "x" * 513, "%E2%80%A8"])
def test_a_path_id_with_control_characters_is_refused_without_repeating_it(client: httpx.Client, segment: str):
    """422, naming the parameter."""
    response = client.get(f"/users/{segment}/interactions/item-secret")

    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "path/user_id"
    assert "item-secret" not in response.text
    assert "xxx" not in response.text


@pytest.mark.P10
def test_a_body_over_the_limit_is_refused(client: httpx.Client):
    """By its announced length, before it is read; the limit itself passes."""
    at_limit = b'["' + b"x" * (LIMIT - 4) + b'"]'
    headers = {"Content-Type": "application/json"}

    assert client.post("/echo", content=at_limit, headers=headers).json() == 1
    response = client.post("/echo", content=at_limit + b" ", headers=headers)

    assert response.status_code == 413
    assert response.json()["code"] == "body_too_large"
    assert str(LIMIT) in response.json()["detail"]


@pytest.mark.P10
def test_a_body_announced_over_the_limit_is_refused_before_it_comes(client: httpx.Client):
    """Nobody reads a body that is too large anyway."""
    head = f"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {LIMIT + 1}\r\n\r\n"

    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10) as caller:
        caller.sendall(head.encode())
        assert caller.recv(65536).startswith(b"HTTP/1.1 413")


@pytest.mark.P10
def test_a_streamed_body_over_the_limit_is_refused(client: httpx.Client):
    """One whose length is not told is counted as it comes."""

    def chunks():
        for _ in range(100):
            yield b"x" * 100

    response = client.post("/echo", content=chunks(), headers={"Content-Type": "application/json"})

    assert response.status_code == 413
    assert response.json()["code"] == "body_too_large"


@pytest.mark.P10
def test_a_body_that_never_ends_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    """408 instead of a held worker."""
    monkeypatch.setattr(middleware.BodyLimit.__init__, "__kwdefaults__", {"timeout_s": 0.2})
    url = serve(router).base_url
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n["

    with socket.create_connection((url.host, url.port or 80), timeout=10) as caller:
        begun = time.monotonic()
        caller.sendall(head)
        answer = caller.recv(65536)

    assert answer.startswith(b"HTTP/1.1 408")
    assert b"body_timeout" in answer
    assert time.monotonic() - begun < 5


def test_what_escapes_from_a_route_is_told_without_its_text(client: httpx.Client, capfd: pytest.CaptureFixture[str]):
    """500, with the request id to report; neither answer nor log quotes the exception."""
    response = client.get("/fail")

    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "internal_error"
    assert response.headers["X-Request-Id"] == response.json()["request_id"]
    assert "ana@example.org" not in response.text + "".join(capfd.readouterr())


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize("log_requests", [False, True])
def test_requests_are_logged_where_they_fail_or_somebody_asked(
    serve: Serve, capfd: pytest.CaptureFixture[str], log_requests: bool
):
    """By their route, so that no id gets in; a caller's own mistakes are not failures of the service."""
    configure_logging()
    client = serve(router, settings=serve.services.settings.model_copy(update={"log_requests": log_requests}))

    for path in ("/users/ana/interactions/film", "/conflict", "/nowhere/ana", "/fail", "/livez"):
        client.get(path)

    lines = [orjson.loads(line) for line in capfd.readouterr().err.splitlines()]
    logged = [(line["route"], line["status"], line["level"]) for line in lines if line["event"] == "http.request"]
    all_of_them = [
        ("/users/{user_id}/interactions/{item_id}", 200, "info"),
        ("/conflict", 409, "info"),
        ("(none)", 404, "info"),
        ("/fail", 500, "warning"),
    ]
    assert logged == (all_of_them if log_requests else all_of_them[-1:])
    assert "ana" not in str(lines)


def test_a_failure_after_the_answer_began_cuts_the_connection(client: httpx.Client):
    """There is no second answer; the server goes on."""
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/late")

    assert client.get("/livez").status_code == 200


def test_a_problem_keeps_its_headers(client: httpx.Client):
    """Retry-After among them."""
    response = client.get("/conflict")

    assert (response.status_code, response.headers["Retry-After"]) == (409, "3")
    assert response.json()["detail"].startswith("Two at once.")


def test_requests_are_measured_by_route_template(client: httpx.Client):
    """All statuses; ids are no labels."""
    route = "/users/{user_id}/interactions/{item_id}"
    before = seen("GET", route, "2xx"), seen("GET", "/fail", "5xx"), seen("GET", "(none)", "4xx")

    client.get("/users/ana/interactions/x")
    client.get("/users/ben/interactions/y")
    client.get("/fail")
    client.get("/no/such/path/ana")

    after = seen("GET", route, "2xx"), seen("GET", "/fail", "5xx"), seen("GET", "(none)", "4xx")
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1, 1]
    assert "ana" not in client.get("/metrics").text


def test_health_and_metrics_are_not_measured(client: httpx.Client):
    """They would drown the rest."""
    for path in ("/livez", "/readyz", "/metrics"):
        client.get(path)

    assert not any(f'route="{path}"' in client.get("/metrics").text for path in ("/livez", "/readyz", "/metrics"))


@pytest.mark.P10
def test_made_up_methods_make_no_labels(client: httpx.Client):
    """A caller cannot grow the metrics."""
    for method in ("PROPFIND", "MKCOL", "SUBSCRIBE"):  # the server's parser knows these, and no others beyond ours
        assert client.request(method, "/livez2").status_code == 404

    shown = client.get("/metrics").text
    assert 'method="OTHER"' in shown
    assert "PROPFIND" not in shown
