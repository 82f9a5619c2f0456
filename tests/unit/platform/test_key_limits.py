import asyncio
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
import structlog

from service.platform import metrics
from service.platform.embedded import EmbeddedValkey
from service.platform.key_limits import KeyLimits, LimitState, RateLimited, TargetQuotaExceeded
from service.platform.problem import TooManyRequests


@pytest.fixture
def owner() -> str:
    """Of nobody else on the shared server."""
    return str(uuid4())


@pytest.fixture(params=["memory", "redis"])
def place(request: pytest.FixtureRequest) -> str | None:
    """Where is counted: None in memory, else the URL of a server."""
    return None if request.param == "memory" else request.getfixturevalue("redis_url")


@pytest.fixture
def deaf() -> Iterator[tuple[str, list[socket.socket]]]:
    """A server that takes connections and never answers: its URL, and the connections that it took."""
    taken = list[socket.socket]()
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def take() -> None:
            with suppress(OSError):
                while True:
                    taken.append(listener.accept()[0])

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0", taken
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    for each in taken:
        each.close()


def told(scope: dict[str, Any], name: str = "default") -> LimitState:
    state: LimitState = scope["state"]["key_limits"][name]
    return state


async def request(limits: KeyLimits, owner: str) -> LimitState:
    scope = dict[str, Any]()
    await limits.count_request(scope, owner)
    return told(scope)


async def refusal(call: Coroutine[Any, Any, Any]) -> TooManyRequests:
    with pytest.raises(TooManyRequests) as refused:
        await call
    return refused.value


def test_requests_within_a_minute_are_counted_and_bounded(place: str | None, owner: str):
    """What is left goes down, then comes a refusal that says when to come back; others have their own."""

    async def run() -> None:
        limits = KeyLimits(requests_per_minute=3, redis_url=place)
        assert [(await request(limits, owner)).remaining for _ in range(3)] == [2, 1, 0]
        refused = await refusal(request(limits, owner))
        assert isinstance(refused, RateLimited)
        assert refused.status == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert (await request(limits, f"{owner}-other")).remaining == 2
        await limits.stop()

    asyncio.run(run())


def test_a_request_counts_once_however_often_its_key_is_checked(owner: str):
    """Guards are asked before the body is read, and again for the key's id."""

    async def run() -> None:
        limits, scope = KeyLimits(requests_per_minute=1), dict[str, Any]()
        for _ in range(3):
            await limits.count_request(scope, owner)
        assert told(scope).remaining == 0

    asyncio.run(run())


def test_targets_within_a_day_are_taken_all_or_none(place: str | None, owner: str):
    """What was refused is not counted; a single erasure may not name more than a whole day's; many are no burden."""

    async def run() -> None:
        limits = KeyLimits(targets_per_day=100_000, redis_url=place)
        scope = dict[str, Any]()
        await limits.count_targets(scope, owner, 99_998)
        assert told(scope, "erasure-targets").remaining == 2
        refused = await refusal(limits.count_targets({}, owner, 3))
        assert isinstance(refused, TargetQuotaExceeded)
        assert "It names 3; 2 of 100,000 a day are left" in refused.detail
        assert 1 <= int(refused.headers["Retry-After"]) <= 86_400
        await limits.count_targets({}, owner, 2)
        await refusal(limits.count_targets({}, f"{owner}-other", 100_001))
        await limits.stop()

    asyncio.run(run())


def test_the_headers_are_those_of_the_draft():
    """RateLimit-Policy and RateLimit, structured fields."""
    state = LimitState("default", 100, 60, 50, 30)

    assert (state.policy, state.standing) == (b'"default";q=100;w=60', b'"default";r=50;t=30')


def test_replicas_count_together_on_one_server_and_tell_it_of_nobody(redis_url: str, owner: str):
    """Its keys hold the id of an API key, and they end by themselves."""

    async def run() -> None:
        one, other = (KeyLimits(requests_per_minute=2, targets_per_day=9, redis_url=redis_url) for _ in range(2))
        await request(one, owner)
        assert (await request(other, owner)).remaining == 0
        await refusal(request(one, owner))
        await other.count_targets({}, owner, 9)
        await refusal(one.count_targets({}, owner, 1))
        for each in (one, other):
            await each.stop()

    asyncio.run(run())
    with closing(redis.Redis.from_url(redis_url)) as server:
        keys = [key.decode() for key in server.scan_iter(f"*{owner}*")]
        assert len(keys) == 2
        named = re.compile(rf"expunge:limits:[^ ]*(default|erasure-targets)/{owner}[/}}0-9a-z]+")
        assert all(named.fullmatch(key) for key in keys)
        assert all(server.ttl(key) > 0 for key in keys)


def test_a_server_that_does_not_answer_is_asked_once(deaf: tuple[str, list[socket.socket]], owner: str):
    """Then each process counts by itself, and says so, once; after some seconds one request looks again."""
    url, taken = deaf
    now = 1000.0

    async def run() -> None:
        nonlocal now
        limits = KeyLimits(requests_per_minute=4, redis_url=url, patience_s=0.05, monotonic=lambda: now)
        for left in (3, 2):
            assert (await request(limits, owner)).remaining == left
        asked = len(taken)
        assert asked >= 1
        assert metrics.limits_counted_alone._value.get() == 1
        assert (await request(limits, owner)).remaining == 1
        assert len(taken) == asked
        now += 5
        assert (await request(limits, owner)).remaining == 0
        assert len(taken) > asked
        await refusal(request(limits, owner))
        await limits.stop()

    with structlog.testing.capture_logs() as lines:
        asyncio.run(run())
    assert [line["event"] for line in lines] == ["limits.redis_away"]


def test_a_server_that_comes_back_is_used_again(valkey_binary: Path, owner: str):
    """From the next look on, and that is said."""
    now = 1000.0

    async def run(server: EmbeddedValkey, step: Callable[[], None]) -> list[int]:
        limits = KeyLimits(requests_per_minute=9, redis_url=server.url, monotonic=lambda: now)
        left = [(await request(limits, owner)).remaining for _ in range(2)]
        await asyncio.to_thread(server.stop)
        left += [(await request(limits, owner)).remaining for _ in range(3)]
        await asyncio.to_thread(server.start)
        step()
        left += [(await request(limits, owner)).remaining for _ in range(2)]
        await limits.stop()
        return left

    def step() -> None:
        nonlocal now
        now += 5

    with tempfile.TemporaryDirectory(prefix="expunge-vk-") as folder, structlog.testing.capture_logs() as lines:
        server = EmbeddedValkey(Path(folder), valkey_binary)
        server.start()
        try:
            left = asyncio.run(run(server, step))
        finally:
            server.stop()
    assert left[:5] == [8, 7, 8, 7, 6]
    assert left[5] - left[6] == 1
    assert [line["event"] for line in lines if line["event"].startswith("limits.")] == [
        "limits.redis_away",
        "limits.redis_back",
    ]
    assert metrics.limits_counted_alone._value.get() == 0
