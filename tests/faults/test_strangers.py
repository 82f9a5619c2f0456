"""The API as a process of its own: what strangers and a stop may do to it."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

import migrations
from service.platform.auth import Scope, create_key
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.settings import load_settings
from tests.unit.worker.waiting import eventually

CONNECTIONS = 8
LINES = b"X-Filler: " + b"a" * 1000 + b"\r\n"
MEBIBYTES_EACH = 12
GROWTH_MAX = 1.1


@dataclass(frozen=True)
class Api:
    """A running `expunge api`."""

    process: subprocess.Popen[bytes]
    address: tuple[str, int]
    headers: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    def memory(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)


@pytest.fixture
def api(home: Path, redis_url: str) -> Iterator[Api]:
    """On SQLite; no worker, so that what is accepted stays accepted."""
    settings = load_settings(home=home)
    migrations.upgrade(settings.sql_url)
    database = Database(settings.sql_url)
    key = database.transact(lambda write: create_key(write, "test", frozenset({Scope.ADMIN}), SystemClock().now()))
    database.close()
    added = {"EXPUNGE_HOME": str(home), "EXPUNGE_REDIS_URL": redis_url, "EXPUNGE_STREAM": f"edge:{home.name}"}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "api", "--fd", str(listening.fileno())],
            env={**os.environ, **added},
            pass_fds=(listening.fileno(),),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        address = listening.getsockname()
    made = Api(process, address, {"Authorization": f"Bearer {key.token}"})
    try:
        eventually(lambda: httpx.get(f"{made.url}/livez", timeout=60).status_code == 200)
        yield made
    finally:
        process.kill()
        process.wait()


@pytest.mark.P10
def test_endless_headers_do_not_fill_the_memory(api: Api):
    """Eight connections send header lines for as long as they are let."""
    for _ in range(20):
        httpx.get(f"{api.url}/v1/erasures", headers=api.headers, timeout=20)
    before = api.memory()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        answers = list(pool.map(_send_endlessly, [api.address] * CONNECTIONS))

    assert all(b" 431 " in answer and b"head_too_large" in answer for answer in answers)
    assert api.memory() <= GROWTH_MAX * before
    assert httpx.get(f"{api.url}/livez", timeout=20).status_code == 200


def _send_endlessly(address: tuple[str, int]) -> bytes:
    answer = b""
    with socket.create_connection(address, timeout=20) as connection, suppress(ConnectionError):
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n")
        for _ in range(MEBIBYTES_EACH):
            connection.sendall(LINES * 1000)
            connection.setblocking(False)
            with suppress(BlockingIOError):
                answer += connection.recv(65536)
            connection.settimeout(20)
    return answer


@pytest.mark.P1
@pytest.mark.P9
def test_who_waits_while_the_service_stops_is_told_of_the_acceptance(api: Api):
    """202 with the id and the salt, at once, as when the time to wait runs out."""
    waiting = threading.Barrier(CONNECTIONS + 1)

    def erase(place: int) -> httpx.Response:
        headers = {**api.headers, "Prefer": "wait=30"}
        waiting.wait(20)
        return httpx.delete(f"{api.url}/v1/users/u{place}", headers=headers, timeout=60)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        answers = [pool.submit(erase, place) for place in range(CONNECTIONS)]
        waiting.wait(20)
        eventually(lambda: _accepted(api) == CONNECTIONS)
        api.process.send_signal(signal.SIGTERM)
        got = [answer.result() for answer in answers]

    assert {(one.status_code, one.headers["content-type"]) for one in got} == {(202, "application/json")}
    assert all(one.json()["status"] == "accepted" and len(one.json()["salt"]) == 64 for one in got)
    assert all(one.headers["location"].endswith(one.json()["id"]) for one in got)
    assert api.process.wait(30) == 0


def _accepted(api: Api) -> int:
    page = httpx.get(f"{api.url}/v1/erasures", headers=api.headers, timeout=20).json()
    return len(page["erasures"])
