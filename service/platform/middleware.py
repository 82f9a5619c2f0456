"""What every request passes, outermost first; plain ASGI, because each layer is paid for on every recommendation.

RequestId -> Access -> Problems -> BodyLimit -> EncodedSlash -> routes
"""

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.platform import metrics
from service.platform.ids import SLASH, uuid7
from service.platform.logging import error_facts
from service.platform.logging import request_id as current_request_id
from service.platform.problem import (
    BadRequest,
    BodyTimeout,
    BodyTooLarge,
    FieldError,
    InternalError,
    Problem,
    ShuttingDown,
)

BODY_TIMEOUT_S = 30.0
SHUTDOWN_RETRY_S = 5
GONE = 499  # the caller went away and nothing was sent; customary, and of no standard
UNMEASURED = frozenset({"/livez", "/readyz", "/metrics"})

NO_SNIFFING = (b"x-content-type-options", b"nosniff")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_PARAMETER = re.compile(rb"[a-z_]{1,32}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SLASH_BYTES = SLASH.encode()
_ENCODED_SLASH = re.compile(rb"%2[fF]")

log = structlog.get_logger()


class RequestId:
    """Gives each request an id: the caller's X-Request-Id if it is a plain token, else a new UUIDv7; echoed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _given_id(scope) or uuid7()
        scope.setdefault("state", {})["request_id"] = request_id
        current_request_id.set(request_id)
        added = ((b"x-request-id", request_id.encode()), NO_SNIFFING)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self.app(scope, receive, send_with_id)


def _given_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode() if _REQUEST_ID.fullmatch(value) else None
    return None


class Access:
    """Measures each request by its route template, whatever its status; paths hold ids and are not kept.

    Logs those that failed in here (5xx), and with `log_all` every one.
    """

    def __init__(self, app: ASGIApp, *, log_all: bool = False) -> None:
        self.app, self._log_all = app, log_all
        self._observers: dict[tuple[str, str, int], Callable[[float], None]] = {}
        self._log = structlog.get_logger().bind()  # bound once: binding costs more than a line that is not written

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = GONE

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting_send)
        finally:
            self._note(scope, status, time.perf_counter() - begun)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "(none)")
        if route in UNMEASURED:
            return
        method = scope["method"]
        key = (method, route, status // 100)
        observe = self._observers.get(key)
        if observe is None:
            observe = self._observer(key)
        observe(seconds)
        # The rest is the bulk of the traffic, and strangers can make any number of them: the histogram has it all.
        if self._log_all or status >= 500:
            write = self._log.warning if status >= 500 else self._log.info
            write("http.request", method=method, route=route, status=status, seconds=round(seconds, 6))

    def _observer(self, key: tuple[str, str, int]) -> Callable[[float], None]:
        method, route, status_class = key
        name = method if method in _METHODS else "OTHER"
        observe = metrics.http_request_duration_seconds.labels(name, route, f"{status_class}xx").observe
        if method in _METHODS:  # only what is bounded is remembered
            self._observers[key] = observe
        return observe


class Problems:
    """Turns whatever escapes from the routes into problem+json; what is not a Problem becomes internal_error."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def noting_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, noting_send)
        except GeneratorExit:
            raise
        except ClientDisconnect:
            return  # nobody is there to be answered
        except BaseException as error:
            # Base: a request cancelled at the end of the grace period, and groups of errors, are answered too.
            problem = _problem_of(error)
            if started:
                return  # too late for another answer; the server cuts the connection
            await problem.response(scope["state"]["request_id"])(scope, receive, send)


def _problem_of(error: BaseException) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, asyncio.CancelledError):
        log.warning("http.cancelled")
        return ShuttingDown(retry_after_s=SHUTDOWN_RETRY_S)
    log.error("http.failed", **error_facts(error))
    return InternalError()


class BodyLimit:
    """Refuses bodies over `limit_bytes`, announced or streamed, and those not there after `timeout_s` seconds."""

    def __init__(self, app: ASGIApp, *, limit_bytes: int, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self.app = app
        self._limit, self._timeout_s = limit_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raises BodyTooLarge, BodyTimeout."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = announced_bytes(scope)
        if announced > self._limit:
            raise self._too_large()
        await self.app(scope, self._counting(receive) if announced else receive, send)

    def _counting(self, receive: Receive) -> Receive:
        taken, complete = 0, False
        deadline = asyncio.get_running_loop().time() + self._timeout_s

        async def counted() -> Message:
            nonlocal taken, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                metrics.http_body_refused_total.labels("slow").inc()
                msg = f"The body was not complete after {self._timeout_s:g} s."
                raise BodyTimeout(msg, headers={"Connection": "close"}) from None
            taken += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if taken > self._limit:
                raise self._too_large()
            return message

        return counted

    def _too_large(self) -> BodyTooLarge:
        metrics.http_body_refused_total.labels("large").inc()
        return BodyTooLarge(f"The limit is {self._limit} bytes.", headers={"Connection": "close"})


def announced_bytes(scope: Scope) -> int:
    """Bytes that the head announces: 0 where there is no body, 1 where its length is not told."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 1
        if name == b"transfer-encoding":
            return 1
    return 0


class EncodedSlash:
    """Keeps a slash written %2F inside its path segment, so that ids with slashes can be addressed.

    And refuses queries that are not UTF-8, which would be read as another text.

    Servers decode the path before routing. Here an encoded slash becomes a noncharacter, which the path parameters of
    ids turn back. Paths that hold this noncharacter themselves, or bytes that are not UTF-8, are refused: they would
    name another id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raises BadRequest."""
        if scope["type"] == "http":
            raw: bytes | None = scope.get("raw_path")
            if raw is not None and b"%" in raw:
                scope["path"] = _decoded(raw)
            query: bytes = scope["query_string"]
            if b"%" in query or not query.isascii():
                _check_query(query)
        await self.app(scope, receive, send)


def _check_query(query: bytes) -> None:
    for part in query.split(b"&"):
        try:
            unquote_to_bytes(part).decode()
            part.decode("ascii")
        except UnicodeDecodeError:
            name = part.partition(b"=")[0]
            pointer = f"query/{name.decode()}" if _PARAMETER.fullmatch(name) else "query"
            detail = "It is not UTF-8, percent-encoded."
            raise BadRequest("The query is not UTF-8.", errors=[FieldError(pointer, detail)]) from None


def _decoded(raw: bytes) -> str:
    pieces: list[Any] = [unquote_to_bytes(piece) for piece in _ENCODED_SLASH.split(raw)]
    if any(_SLASH_BYTES in piece for piece in pieces):
        msg = "The path holds a Unicode noncharacter."
        raise BadRequest(msg)
    try:
        return _SLASH_BYTES.join(pieces).decode()
    except UnicodeDecodeError:
        msg = "The path is not UTF-8."
        raise BadRequest(msg) from None
