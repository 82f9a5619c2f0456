"""A small HTTP/1.1 client that is never the bottleneck: keep-alive connections, prepared requests, raw bytes.

It runs in a process of its own, beside the server's. Latencies are taken from the moment at which a request was due,
so a slow answer does not hide the requests that waited behind it; timers of the event loop are up to 1 ms late, and
that counts as latency too.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import psutil

ANSWER_WITHIN_S = 30.0


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the process whose time it costs."""

    port: int
    pid: int
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class Plan:
    """What to send.

    Args:
        requests: complete requests, sent once each and in order; the load ends with the last one.
        connections: keep-alive connections that share them.
        rate: requests a second, evenly spaced (open loop); None: each connection sends when it has its answer.
        seconds: no request is sent later than so many seconds after the first.
        accept: first digit of the status codes that count as an answer.
    """

    requests: Sequence[bytes]
    connections: int = 16
    rate: float | None = None
    seconds: float = 60.0
    accept: str = "2"


@dataclass(frozen=True)
class Load:
    """What one run of load measured; `cpu_us` is the server's processor time for each request."""

    rate: float
    n: int
    p50_ms: float
    p99_ms: float
    cpu_us: float


class LoadFailed(Exception):
    """The server refused a request or went silent."""


def request(method: str, path: str, token: str, body: bytes = b"") -> bytes:
    """One HTTP/1.1 request as it goes over the wire."""
    length = f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{length}\r\n".encode() + body


def run(address: Address, plan: Plan) -> Load:
    """Send all of a plan, wait for the answers and measure.

    Raises:
        LoadFailed: an answer had another status, or none came within 30 seconds.
    """
    return asyncio.run(_run(address, plan))


def ask(address: Address, message: bytes) -> bytes:
    """Send one request over a connection of its own; returns the body of the answer."""
    session = _Session(Plan([message]))
    asyncio.run(_converse(address, session, 1))
    return session.last_body


async def _run(address: Address, plan: Plan) -> Load:
    server = psutil.Process(address.pid)
    session, cpu = _Session(plan), _cpu_seconds(server)
    await _converse(address, session, plan.connections)
    elapsed, cpu = session.ended - session.started, _cpu_seconds(server) - cpu
    latencies = session.latencies
    n = len(latencies)
    quantiles = statistics.quantiles(latencies, n=100, method="inclusive")
    return Load(n / elapsed, n, quantiles[49] * 1e3, quantiles[98] * 1e3, cpu / n * 1e6)


async def _converse(address: Address, session: _Session, connections: int) -> None:
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda: _Connection(session), address.host, address.port)
        for _ in range(connections)
    ]
    session.started = time.perf_counter()
    for _, connection in opened:
        connection.go_on()
    try:
        within = session.plan.seconds + ANSWER_WITHIN_S
        await asyncio.wait_for(asyncio.gather(*(connection.done for _, connection in opened)), within)
    except TimeoutError:
        msg = f"No answer within {within:g} s."
        raise LoadFailed(msg) from None
    finally:
        session.ended = time.perf_counter()
        for transport, _ in opened:
            transport.close()


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@dataclass
class _Session:
    """What the connections share: the requests that are left, when each is due, and what was measured."""

    plan: Plan
    started: float = 0.0
    ended: float = 0.0
    last_body: bytes = b""
    latencies: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._slots: Iterator[tuple[int, bytes]] = zip(count(), self.plan.requests, strict=False)

    def take(self) -> tuple[float, bytes] | None:
        """When the next request is due, and the request; None at the end."""
        slot = next(self._slots, None)
        if slot is None:
            return None
        place, message = slot
        now = time.perf_counter()
        due = now if self.plan.rate is None else self.started + place / self.plan.rate
        return None if max(due, now) - self.started > self.plan.seconds else (due, message)


class _Connection(asyncio.Protocol):
    """One keep-alive connection; whichever is free takes the next request."""

    def __init__(self, session: _Session) -> None:
        self._session, self._loop = session, asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.WriteTransport
        self._due, self._buffer, self._length = 0.0, b"", -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def go_on(self) -> None:
        """Send the next request when it is due."""
        taken = self._session.take()
        if taken is None:
            if not self.done.done():
                self.done.set_result(None)
            return
        self._due, message = taken
        wait = self._due - time.perf_counter()
        if wait > 0:
            self._loop.call_later(wait, self._transport.write, message)
        else:
            self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._length < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._read_head(self._buffer[:end])
            self._buffer = self._buffer[end + 4 :]
        if len(self._buffer) < self._length:
            return
        self._session.latencies.append(time.perf_counter() - self._due)
        self._session.last_body, self._buffer, self._length = self._buffer, b"", -1
        if not self.done.done():
            self.go_on()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail("The server closed the connection.")

    def _read_head(self, head: bytes) -> None:
        status = head[9:12].decode()
        if not status.startswith(self._session.plan.accept):
            self._fail(f"The server answered {status}.")
        _, _, rest = head.lower().partition(b"content-length: ")
        self._length = int(rest.partition(b"\r\n")[0] or 0)

    def _fail(self, message: str) -> None:
        if not self.done.done():
            self.done.set_exception(LoadFailed(message))
