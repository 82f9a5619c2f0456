"""The HTTP server below the application: uvicorn with httptools, and what a stranger may do before a key is checked.

Every bound holds for bytes and seconds that no route has seen yet, so nothing in the application can set it:

    head     64 kB, 100 header lines, complete 10 s after its first byte (or after the connection was made)
    trailer  counts as head; so does what frames a chunk
    idle     5 s between two requests
    rest     a body that is still under way when its answer is complete gets 5 s to end
    number   EXPUNGE_CONNECTIONS_MAX; beyond it the connection that waits the longest makes room

What cannot be read is answered with problem+json, and never ahead of the answer to a request before it.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

import httptools
import orjson
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.platform import metrics
from service.platform.ids import uuid7
from service.platform.listening import BACKLOG
from service.platform.problem import (
    MEDIA_TYPE,
    BadRequest,
    FieldError,
    HeadTimeout,
    HeadTooLarge,
    Problem,
    TooManyConnections,
    UriTooLong,
)

HEAD_BYTES: Final = 64 * 1024
HEADERS: Final = 100
HEAD_S: Final = 10.0
KEEP_ALIVE_S: Final = 5
REST_S: Final = 5.0
LINGER_S: Final = 1.0
GRACE_S: Final = 15
LINE_BYTES: Final = 4  # ": " and the line's end

log = structlog.get_logger()


class BoundedProtocol(HttpToolsProtocol):
    """One connection, within the bounds of this module. A subclass may set others."""

    head_s = HEAD_S
    rest_s = REST_S
    connections_max = 800

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a connection, where there is room."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._since = self.loop.time()
        self._refused = False
        self._later: Problem | None = None
        self._in_message = self._in_head = False
        self._unseen = self._head = self._lines = 0
        self.url = b""
        if len(self.connections) > self.connections_max and not self._make_room():
            self._refuse(TooManyConnections(retry_after_s=1), "crowded")
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of what was timed."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; refuse it where it is too much, or no HTTP."""
        if self._refused or self._later is not None:
            return  # read and dropped, so that the answer is not lost to a reset
        self._unset_keepalive_if_required()
        if self._deadline is None and not self._in_message and not self._answering():
            self._await_head()
        self._unseen += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            problem = error.__context__
            self._refuse(*(problem.args if isinstance(problem, _Refused) else (_unreadable(), "malformed")))
        except httptools.HttpParserError:
            self._refuse(_unreadable(), "malformed")
        except httptools.HttpParserUpgrade:
            pass  # answered as if it had not been asked for, and closed after that: the parser is at its end
        else:
            if self._unseen > HEAD_BYTES:
                self._refuse(*_too_large(self.url, self._lines))

    def on_message_begin(self) -> None:
        """Begin to count anew."""
        super().on_message_begin()
        self._in_message = self._in_head = True
        self._head = self._lines = 0

    def on_url(self, url: bytes) -> None:
        """Count the address."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a line of the head, or of a trailer; trailers are for nobody here and are not kept."""
        self._lines += 1
        self._count(len(name) + len(value) + LINE_BYTES)
        if self._lines > HEADERS:
            raise _Refused(*_too_large(self.url, self._lines))
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the head and hand the request over."""
        self._disarm()
        self._unseen, self._in_head = 0, False
        names = [name for name, _ in self.headers]
        hosts = names.count(b"host")
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            detail = "A request names its host once."
            raise _Refused(BadRequest(detail, errors=[FieldError("header/Host", detail)]), "malformed")
        upgrades = self.parser.should_upgrade()
        if upgrades and _has_body(self.headers):
            # The parser would take the body for the next request.
            detail = "A request with a body cannot ask for another protocol; HTTP/1.1 is spoken here."
            raise _Refused(BadRequest(detail, errors=[FieldError("header/Upgrade", detail)]), "malformed")
        if self.url == b"*":
            self.url = b"/*"
        super().on_headers_complete()
        if upgrades:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of the body."""
        self._unseen = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next request from now on."""
        self._unseen, self._in_message = 0, False
        self._disarm()
        super().on_message_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._await_head()

    def on_response_complete(self) -> None:
        """Send a refusal that had to wait; give a body that is under way still some time to end."""
        super().on_response_complete()
        self._since = self.loop.time()
        if self._later is not None and not self._answering():
            self._answer(self._later)
        elif self._in_message and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._arm(self.rest_s, self._close)

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > HEAD_BYTES:
            raise _Refused(*_too_large(self.url, self._lines))

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        # Armed once a head: bytes that drip in do not move it.
        self._since = self.loop.time()
        self._arm(self.head_s, self._head_is_late)

    def _head_is_late(self) -> None:
        if not self._in_message:
            self._close()  # nobody asked anything
            return
        msg = f"The head was not complete after {self.head_s:g} s."
        self._refuse(HeadTimeout(msg), "slow")

    def _make_room(self) -> bool:
        """Close the connection that waits the longest for a request; False where none does."""
        waiting = [one for one in self.connections if isinstance(one, BoundedProtocol) and one._waits()]
        oldest = min((one for one in waiting if one is not self), key=lambda one: one._since, default=None)
        if oldest is None:
            return False
        metrics.http_refused_total.labels("crowded").inc()
        oldest._close()
        return True

    def _waits(self) -> bool:
        return not self._answering() and not self.transport.is_closing()

    def _refuse(self, problem: Problem, reason: str) -> None:
        """Answer with a problem and close, after the answers that are due before; only close where one has begun."""
        metrics.http_refused_total.labels(reason).inc()
        log.debug("http.refused", cause=reason)
        self._disarm()
        if self._answering() and (self.pipeline or not self.cycle.more_body):
            self._later = problem
        elif self._answering() and self.cycle.response_started:
            self._close()
        else:
            self._answer(problem)

    def _answer(self, problem: Problem) -> None:
        self._refused = True
        request_id = uuid7()
        body = orjson.dumps(problem.body(request_id))
        headers = {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(body)),
            "x-request-id": request_id,
            "x-content-type-options": "nosniff",
            "connection": "close",
            **problem.headers,
        }
        own = b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())
        common = b"".join(name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers)
        if self._answering():
            self.cycle.disconnected = True  # its application waits for a body that will not come
            self.cycle.message_event.set()
        self.transport.write(STATUS_LINE[problem.status] + common + own + b"\r\n" + body)
        # What is on its way still is read for a moment: closing now would reset the connection, and lose the answer.
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if isinstance(problem, TooManyConnections):
            self._close()
        else:
            self._arm(LINGER_S, self._close)

    def _close(self) -> None:
        self._disarm()
        if not self.transport.is_closing():
            self.transport.close()

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, then)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Refused(Exception):
    """Leaves the parser: the problem to answer with, and the label of the metric."""


class ApplicationServer(uvicorn.Server):
    """Serves an application until a signal comes, and says so before it waits for the requests that are under way."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        """`stopping` is called on the loop when the server is to end: it wakes those who wait for something."""
        super().__init__(config)
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no further connections, have what is under way answered, then end."""
        self._stopping()
        await super().shutdown(sockets)


def server_config(app: ASGIApp, *, connections_max: int, **changed: Any) -> uvicorn.Config:
    """How the house serves an application; `changed` replaces arguments of uvicorn.Config."""
    protocol = type("Protocol", (BoundedProtocol,), {"connections_max": connections_max})
    given: dict[str, Any] = {
        "loop": "auto",
        "http": protocol,
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "backlog": BACKLOG,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "timeout_graceful_shutdown": GRACE_S,
    }
    return uvicorn.Config(app, **(given | changed))


def _unreadable() -> BadRequest:
    return BadRequest("What came is not HTTP/1.1.")


def _too_large(url: bytes, lines: int) -> tuple[Problem, str]:
    if not lines:
        return UriTooLong(f"It has more than {HEAD_BYTES} bytes."), "large"
    return HeadTooLarge(f"The limits are {HEAD_BYTES} bytes and {HEADERS} header lines."), "large"


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0") for name, value in headers
    )
