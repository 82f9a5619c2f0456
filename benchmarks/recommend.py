"""How fast one API process recommends, beside an endpoint of the same application that returns a fixed list.

Makes a home of ML-1M's shape (6,040 users, 3,706 items, d = 128, a long tail of interactions; the vectors are random:
their values do not matter to the clock), serves it in one process, and loads it from another over 16 connections.

    python -m benchmarks.recommend [--seconds 5] [--json FILE]
"""

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import uvloop
from sqlalchemy import insert

import migrations
from model_store import ManifestFacts, ModelStore
from service.models import service as models
from service.platform.auth import Scope, create_key
from service.platform.database import Database
from service.platform.identity import load_identity
from service.platform.tables import interactions, items, users
from service.settings import Settings, load_settings

N_USERS, N_ITEMS, D = 6040, 3706, 128
CONNECTIONS = 16
ROUNDS = 5
AT = datetime(2026, 1, 1, tzinfo=UTC)


def make_home(home: Path) -> str:
    """Fill a home with data and a live version of ML-1M's shape; returns an API key."""
    settings = load_settings(home=home)
    migrations.upgrade(settings.sql_url)
    database = Database(settings.sql_url)
    user_degrees, item_degrees = _interactions(settings, database)
    random_ = np.random.default_rng(0)
    tensors = {
        "users": random_.standard_normal((N_USERS, D), dtype=np.float32),
        "items": random_.standard_normal((N_ITEMS, D), dtype=np.float32),
        "user_keys": np.arange(1, N_USERS + 1, dtype=np.int64),
        "item_keys": np.arange(1, N_ITEMS + 1, dtype=np.int64),
        "user_degrees": user_degrees,
        "item_degrees": item_degrees,
    }
    facts = ManifestFacts(kind="base", dataset_hash="0" * 64, code_version="benchmark", seed=0, created_at=AT)
    store = ModelStore(settings.store_root, key=load_identity(settings).derive("manifest"))
    manifest = store.publish("versions", 1, {"embeddings.safetensors": tensors}, facts)
    with database.write() as connection:
        models.register(connection, manifest, erasure_seq=0, at=AT)
        models.move_alias(connection, "live", 1, AT)
        token = create_key(connection, "benchmark", frozenset({Scope.ADMIN}), AT).token
    database.close()
    return token


def _interactions(settings: Settings, database: Database) -> tuple[Any, Any]:
    identity, random_ = load_identity(settings), np.random.default_rng(0)
    weight = 1 / np.arange(1, N_ITEMS + 1) ** 0.7
    user_degrees, item_degrees = np.zeros(N_USERS, np.int32), np.ones(N_ITEMS, np.int32)
    with database.write() as connection:
        rows = [{"id": str(u), "digest": identity.user(str(u))} for u in range(1, N_USERS + 1)]
        connection.execute(insert(users), rows)
        rows = [
            {"id": str(i), "digest": identity.item(str(i)), "title": f"A Film Whose Title Is {i} (1997)"}
            for i in range(1, N_ITEMS + 1)
        ]
        connection.execute(insert(items), rows)
        for user in range(N_USERS):
            degree = int(np.clip(random_.lognormal(4.4, 1), 16, 1800))
            chosen = random_.choice(N_ITEMS, degree, replace=False, p=weight / weight.sum())
            user_degrees[user] = degree
            item_degrees[chosen] += 1
            pairs = [{"user_key": user + 1, "item_key": int(i) + 1, "recorded_at": AT} for i in chosen]
            connection.execute(insert(interactions), pairs)
    return user_degrees, item_degrees


def application() -> Any:
    """The application with fixed lists beside it: behind the same key, and bare."""
    from service.app import create_app
    from service.platform.dependencies import Recommender

    fixed = [{"item_id": str(i), "score": 1 / i, "rank": i, "title": f"A Film {i} (1997)"} for i in range(1, 21)]
    body = {"user_id": "1", "model_version": 1, "personalised": True, "items": fixed}
    app = create_app()

    @app.get("/fixed")
    async def fixed_list(_key: Recommender) -> Any:
        from fastapi import Response

        return Response(orjson.dumps(body), media_type="application/json")

    @app.get("/fixed-bare")
    async def fixed_bare() -> Any:
        return body

    return app


@dataclass(frozen=True)
class Server:
    """Where the API runs."""

    host: str
    port: int
    process_id: int


@contextmanager
def server(home: Path) -> Iterator[Server]:
    """Serve a home in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "benchmarks.recommend:application", "--factory"]
    command += ["--port", str(port), "--no-access-log", "--log-level", "warning", "--loop", "uvloop"]
    process = subprocess.Popen(command, env={**os.environ, "EXPUNGE_HOME": str(home), "EXPUNGE_LOG_LEVEL": "error"})
    try:
        _wait(port)
        yield Server("127.0.0.1", port, process.pid)
    finally:
        process.terminate()
        process.wait(20)


def _wait(port: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as probe:
                probe.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
                if b" 200 " in probe.recv(64):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("The API did not become ready within 30 s.")


class Connection(asyncio.Protocol):
    """One keep-alive connection that sends a request when the last one was answered, or when it is due."""

    def __init__(self, make: Callable[[], bytes], interval: float, end: float) -> None:
        self.make, self.interval, self.end = make, interval, end
        self.latencies: list[float] = []
        self.done = asyncio.get_running_loop().create_future()
        self.buffer, self.due, self.failed = b"", time.perf_counter() + interval * random.random(), 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport
        self._later()

    def _later(self) -> None:
        now = time.perf_counter()
        if now >= self.end:
            self.done.set_result(None)
            self.transport.close()
        elif self.interval and self.due > now:
            asyncio.get_running_loop().call_later(self.due - now, self._send)
        else:
            self._send()

    def _send(self) -> None:
        # Measured from when it was due: a slow answer does not hide the requests that waited behind it.
        self.sent = self.due if self.interval else time.perf_counter()
        self.transport.write(self.make())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Count an answer once all of it is there."""
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]):
            return
        self.failed += b" 200 " not in head[:16]
        self.buffer = b""
        self.latencies.append(time.perf_counter() - self.sent)
        self.due += self.interval
        self._later()


@dataclass(frozen=True)
class Load:
    """What one run of load measured: requests a second, latencies in milliseconds, processor time a request."""

    rate: float
    p50_ms: float
    p99_ms: float
    n: int
    cpu_us: float


def cpu_seconds(process_id: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(at: Server, make: Callable[[], bytes], seconds: float, rate: float | None = None) -> Load:
    """Load an endpoint over 16 connections: as fast as it answers, or at a given rate."""
    loop, begun, cpu = asyncio.get_running_loop(), time.perf_counter(), cpu_seconds(at.process_id)
    interval = CONNECTIONS / rate if rate else 0.0
    pairs = [
        await loop.create_connection(lambda: Connection(make, interval, begun + seconds), at.host, at.port)
        for _ in range(CONNECTIONS)
    ]
    await asyncio.gather(*(connection.done for _, connection in pairs))
    elapsed, cpu = time.perf_counter() - begun, cpu_seconds(at.process_id) - cpu
    latencies = sorted(latency for _, connection in pairs for latency in connection.latencies)
    assert not sum(connection.failed for _, connection in pairs), "some answers were not 200"
    p50, p99 = (latencies[int(len(latencies) * share)] * 1000 for share in (0.5, 0.99))
    return Load(len(latencies) / elapsed, p50, p99, len(latencies), cpu / len(latencies) * 1e6)


async def measure(at: Server, token: str, seconds: float) -> dict[str, Any]:
    """Measure rounds of recommendation and fixed list in turn; ratios within one round, medians over rounds."""
    head = f"Host: x\r\nAuthorization: Bearer {token}\r\n\r\n"

    def recommend() -> bytes:
        user = random.randint(1, N_USERS)
        return f"GET /v1/users/{user}/recommendations?n=20 HTTP/1.1\r\n{head}".encode()

    def fixed() -> bytes:
        return f"GET /fixed HTTP/1.1\r\n{head}".encode()

    def bare() -> bytes:
        return f"GET /fixed-bare HTTP/1.1\r\n{head}".encode()

    await load(at, recommend, 1)
    rounds = [[await load(at, make, seconds) for make in (recommend, fixed, bare)] for _ in range(ROUNDS)]
    rates = [statistics.median(each[kind].rate for each in rounds) for kind in range(3)]
    cpu = [statistics.median(each[kind].cpu_us for each in rounds) for kind in range(3)]
    calm = await load(at, recommend, seconds * 2, rates[0] / 2)
    return {
        "recommend_per_s": rates[0],
        "fixed_per_s": rates[1],
        "fixed_bare_per_s": rates[2],
        "recommend_over_fixed_endpoint": statistics.median(a.rate / b.rate for a, b, _ in rounds),
        "recommend_over_bare_endpoint": statistics.median(a.rate / b.rate for a, _, b in rounds),
        "cpu_us": dict(zip(("recommend", "fixed", "bare"), cpu, strict=True)),
        "recommend_p99_ms": calm.p99_ms,
        "half_load": {"rate": calm.rate, "p50_ms": calm.p50_ms, "n": calm.n},
        "rounds": [[each.rate for each in kinds] for kinds in rounds],
    }


def main() -> None:
    """Run the benchmark and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        token = make_home(Path(folder))
        with server(Path(folder)) as at:
            figures = uvloop.run(measure(at, token, given.seconds))
            status = Path(f"/proc/{at.process_id}/status").read_text()
            figures["rss_api_bytes"] = int(status.split("VmRSS:")[1].split()[0]) * 1024
            figures["rss_api_peak_bytes"] = int(status.split("VmHWM:")[1].split()[0]) * 1024
    text = json.dumps(figures, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text)


if __name__ == "__main__":
    main()
