"""What a stranger may do before any route is reached: real sockets against the real server."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Body
from prometheus_client import REGISTRY
from starlette.responses import PlainTextResponse

from service.platform.http_server import HEAD_BYTES, HEADERS, BoundedProtocol
from tests.serving import serving
from tests.unit.platform.conftest import Serve

POST = b"POST /reads HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\n"

pytestmark = pytest.mark.P10


class Hurried(BoundedProtocol):
    """A server without patience."""

    head_s = 0.5
    rest_s = 0.3


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """A bare connection to a server."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        yield connection


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side ends the connection."""
    got = b""
    with suppress(ConnectionError):
        while data := connection.recv(65536):
            got += data
    return got


def answers(got: bytes) -> list[tuple[int, dict[str, object]]]:
    """Status and JSON body of each answer in a stream of them."""
    found = []
    while got:
        head, _, rest = got.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        size = int(fields[b"content-length"])
        is_problem = fields[b"content-type"] == b"application/problem+json"
        found.append((int(head.split()[1]), json.loads(rest[:size]) if is_problem else {}))
        got = rest[size:]
    return found


def refused(reason: str) -> float:
    return REGISTRY.get_sample_value("expunge_http_refused_total", {"reason": reason}) or 0.0


@pytest.fixture
def url(serve: Serve) -> str:
    """A server of one route that reads its body, and one that does not."""
    router = APIRouter()

    @router.post("/reads")
    async def reads(body: Annotated[bytes, Body(media_type="application/octet-stream")]) -> PlainTextResponse:
        return PlainTextResponse(str(len(body)))

    @router.get("/plain")
    async def plain() -> PlainTextResponse:
        return PlainTextResponse("well")

    client = serve(router)
    return str(client.base_url).rstrip("/")


@pytest.fixture
def hurried(serve: Serve, url: str) -> Iterator[str]:
    """The same application behind a server without patience."""
    assert serve.app is not None
    with ExitStack() as stack:
        yield stack.enter_context(serving(serve.app, http=Hurried))


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "bad_request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_request"),
        (b"GET /plain HTTP/3.7\r\nHost: a\r\n\r\n", 400, "bad_request"),
        (b"GET /plain HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /plain HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request"),
        (b"GET /plain HTTP/1.1\r\nHost: a\x00b\r\n\r\n", 400, "bad_request"),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
        (b"CONNECT other:443 HTTP/1.1\r\nHost: other\r\n\r\n", 400, "bad_request"),
        (
            POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
            400,
            "bad_request",
        ),
        (
            POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
            "bad_request",
        ),
        (
            POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
            400,
            "bad_request",
        ),
        (b"GET /" + b"a" * (HEAD_BYTES + 1), 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * (HEAD_BYTES + 1), 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * HEADERS + b"\r\n", 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"a" * HEAD_BYTES + b"\r\n\r\n", 431, "head_too_large"),
        (
            POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: a\r\n" * (HEADERS + 1),
            431,
            "head_too_large",
        ),
    ],
)
def test_what_is_no_request_is_answered_with_a_problem(url: str, sent: bytes, status: int, code: str):
    """Never in text/plain, and the connection ends."""
    with connected(url) as connection:
        connection.sendall(sent)
        ((got, problem),) = answers(everything(connection))

    assert (got, problem["code"], problem["status"]) == (status, code, status)
    assert problem["request_id"]


def test_a_head_within_the_bounds_is_served(url: str):
    """As large as browsers and proxies send them."""
    headers = {f"x-{place}": "a" * 500 for place in range(80)}

    assert httpx.get(f"{url}/plain", headers=headers).text == "well"


def test_endless_trailers_are_refused_and_a_body_in_small_chunks_is_not(url: str):
    """What frames the pieces of a body may be more than the body."""
    head = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(url) as connection:
        connection.sendall(head + b"1\r\na\r\n" * 50_000 + b"0\r\nTrailer: kept-by-nobody\r\n\r\n")
        assert everything(connection).endswith(b"50000")

    with connected(url) as connection:
        connection.sendall(head + b"0\r\nX: ")
        with suppress(ConnectionError):
            connection.sendall(b"a" * 10 * HEAD_BYTES)
        assert answers(everything(connection))[0][0] == 431


def test_an_answer_that_is_due_comes_before_the_refusal(url: str):
    """Of pipelined requests the second is nonsense: the first has its own answer."""
    with connected(url) as connection:
        connection.sendall(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n")
        statuses = [status for status, _ in answers(everything(connection))]

    assert statuses == [200, 400]


def test_an_upgrade_that_is_not_offered_is_answered_over_http_1_1(url: str):
    """As clients that try HTTP/2 in clear first expect; the connection ends after it."""
    with connected(url) as connection:
        connection.sendall(b"GET /plain HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert everything(connection).endswith(b"well")


def test_a_head_that_never_ends_is_cut_off_however_it_drips(hurried: str):
    """408 where something was asked; nothing where nothing was."""
    before = refused("slow")
    with connected(hurried) as dripping, connected(hurried) as silent:
        dripping.sendall(b"GET /plain HTTP/1.1\r\nHost: a\r\n")
        dripping.settimeout(0.05)
        got = b""
        for _ in range(400):
            try:
                got = dripping.recv(65536)
                break
            except TimeoutError:
                dripping.sendall(b"X")
        assert answers(got)[0] == (408, answers(got)[0][1])
        assert answers(got)[0][1]["code"] == "head_timeout"
        assert everything(silent) == b""

    assert refused("slow") == before + 1


def test_a_connection_that_was_used_has_the_same_deadline(hurried: str):
    """A first good request buys no time for the second."""
    with connected(hurried) as connection:
        connection.sendall(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\nGET /plain HT")
        got = everything(connection)

    assert got.startswith(b"HTTP/1.1 200")
    assert got.count(b"HTTP/1.1") in (1, 2)


def test_a_body_that_goes_on_after_its_answer_ends(hurried: str):
    """A refusal that did not read the body does not leave the connection to whoever sends on."""
    with connected(hurried) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        deadline = time.monotonic() + 20
        with suppress(ConnectionError):
            while time.monotonic() < deadline:
                connection.sendall(b"a")
                time.sleep(0.05)
        assert time.monotonic() < deadline


def test_a_body_that_ends_late_leaves_the_connection_usable(url: str):
    """Within its time the rest is read and the next request answered."""
    with connected(url) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
        assert b"404" in connection.recv(65536)
        connection.sendall(b"abcGET /plain HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert everything(connection).endswith(b"well")


def test_the_connection_that_waits_the_longest_makes_room(serve: Serve, url: str):
    """So that strangers who hold connections cannot shut out callers."""
    assert serve.app is not None
    before = refused("crowded")
    with serving(serve.app, connections_max=10) as few, ExitStack() as stack:
        held = [stack.enter_context(connected(few)) for _ in range(30)]
        for connection in held:
            with suppress(ConnectionError):
                connection.sendall(b"GET /plain HTTP/1.1\r\n")
        assert httpx.get(f"{few}/plain", timeout=20).text == "well"

    assert refused("crowded") >= before + 20
