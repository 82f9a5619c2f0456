"""kill -9 of the API at every named point of the accept path: nothing accepted is lost, nothing happens twice."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

import migrations
from service.platform import tables
from service.platform.auth import Scope, create_key
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.platform.redis import ErasureStream
from service.settings import Settings, load_settings

START_S = 60.0
COMMAND = [sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app", "--log-level", "critical"]
PATH = "/v1/users/u1/interactions/a"


class Place:
    """A home, a stream of its own, and API processes over them, one after the other."""

    def __init__(self, home: Path, redis_url: str) -> None:
        self.settings: Settings = load_settings(home=home, redis_url=redis_url, stream=f"kill:{home.name}")
        migrations.upgrade(self.settings.sql_url)
        self.database = Database(self.settings.sql_url)
        made = self.database.transact(
            lambda connection: create_key(connection, "test", frozenset({Scope.ADMIN}), SystemClock().now())
        )
        self.headers = {"Authorization": f"Bearer {made.token}", "Idempotency-Key": "k"}
        self.stream = ErasureStream(redis_url, stream=self.settings.stream, group="unlearners", consumer="test")

    @contextmanager
    def api(self, fault: str = "") -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
        """A running API process, killed at the end where it still runs, and a client of it."""
        path = self.settings.home / "api.socket"
        path.unlink(missing_ok=True)
        process = subprocess.Popen(
            [*COMMAND, "--uds", str(path)], env=self._environment(fault), stdout=subprocess.DEVNULL
        )
        try:
            eventually(lambda: listens(path, process))
            with httpx.Client(
                transport=httpx.HTTPTransport(uds=str(path)), base_url="http://api", headers=self.headers, timeout=30
            ) as client:
                yield client, process
        finally:
            process.kill()
            process.wait()

    def erasures(self) -> list[str]:
        """The erasures that SQL knows."""
        query = select(tables.erasures.c.id).order_by(tables.erasures.c.seq)
        return self.database.query(lambda connection: list(connection.scalars(query)))

    def entries(self) -> int:
        """The number of entries in the log."""
        query = select(func.count()).select_from(tables.audit_entries)
        return self.database.query(lambda connection: connection.scalar(query)) or 0

    def unpublished(self) -> int:
        """The number of outbox rows that are not marked."""
        query = select(func.count()).select_from(tables.outbox).where(tables.outbox.c.published_at.is_(None))
        return self.database.query(lambda connection: connection.scalar(query)) or 0

    def delivered(self) -> list[str]:
        """What the stream has to tell."""
        return [message.erasure_id for message in self.stream.read(count=100, block_ms=1)]

    def _environment(self, fault: str) -> dict[str, str]:
        given = self.settings
        added = {"EXPUNGE_HOME": given.home, "EXPUNGE_REDIS_URL": given.redis_url, "EXPUNGE_STREAM": given.stream}
        return {**os.environ, **{name: str(value) for name, value in added.items()}} | (
            {"EXPUNGE_FAULT": fault} if fault else {}
        )


def listens(path: Path, process: subprocess.Popen[bytes]) -> bool:
    """Whether somebody listens at a socket; fails where the process has ended."""
    assert process.poll() is None, "The API ended before it answered."
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < end, "It did not come about in time."
        time.sleep(0.02)


@pytest.fixture
def place(home: Path, redis_url: str) -> Iterator[Place]:
    """A home of its own."""
    place = Place(home, redis_url)
    yield place
    place.stream.close()
    place.database.close()


@pytest.mark.P1
@pytest.mark.P2
def test_killed_before_the_commit_nothing_is_stored_and_the_retry_makes_it(place: Place) -> None:
    """A1: the caller sees an error, and tries again with the same key."""
    with place.api("api.before_commit:kill") as (client, process):
        with pytest.raises(httpx.TransportError):
            client.delete(PATH)
        process.wait(START_S)
    assert (place.erasures(), place.entries()) == ([], 0)

    with place.api() as (client, _):
        accepted = client.delete(PATH).json()

    assert (place.erasures(), place.entries()) == ([accepted["id"]], 1)


@pytest.mark.P1
@pytest.mark.P2
def test_killed_after_the_commit_it_is_stored_and_the_retry_finds_it(place: Place) -> None:
    """A2: nobody was told, nothing was published; the next process publishes it, the retry gets the same id."""
    with place.api("api.after_commit:kill") as (client, process):
        with pytest.raises(httpx.TransportError):
            client.delete(PATH)
        process.wait(START_S)
    (stored,) = place.erasures()

    with place.api() as (client, _):
        again = client.delete(PATH).json()
        eventually(lambda: place.unpublished() == 0)

    assert again["id"] == stored
    assert (place.erasures(), place.entries()) == ([stored], 1)
    assert place.delivered() == [stored]


@pytest.mark.P1
def test_killed_between_publishing_and_marking_it_is_published_again(place: Place) -> None:
    """A3: twice in the stream, marked once; whoever reads it asks SQL."""
    with place.api("relay.after_xadd:kill") as (client, process):
        accepted = client.delete(PATH).json()
        process.wait(START_S)
    assert place.unpublished() == 1

    with place.api():
        eventually(lambda: place.unpublished() == 0)

    assert place.delivered() == [accepted["id"]] * 2
    assert place.erasures() == [accepted["id"]]
