"""Homes for processes: one template a run, a copy per test, a stream of its own."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.platform.redis import ErasureStream
from tests.factories.workers import Home, copy_template, opened
from tests.faults.server import Server
from tests.faults.worker_processes import WorkerProcesses


@pytest.fixture
def place(template: Path, home: Path, redis_url: str) -> Iterator[Home]:
    """An open home on SQLite with a stream of its own on a real server."""
    changes = {"redis_url": redis_url, "stream": f"test:{os.urandom(6).hex()}"}
    with opened(copy_template(template, home, **changes)) as place:
        yield place


@pytest.fixture
def processes(place: Home) -> Iterator[WorkerProcesses]:
    """Workers of the place; those that still run are killed at the end."""
    with WorkerProcesses(place.settings, place.settings.home / "worker.log") as processes:
        yield processes


@pytest.fixture
def watched(place: Home) -> Iterator[ErasureStream]:
    """The stream of the place, to look at."""
    stream = stream_of(place)
    yield stream
    stream.close()


def stream_of(place: Home) -> ErasureStream:
    """A client of a place's stream."""
    settings = place.settings
    assert settings.redis_url is not None
    return ErasureStream(settings.redis_url, stream=settings.stream, group=settings.group, consumer="test")


@pytest.fixture
def server(valkey_binary: Path) -> Iterator[Server]:
    """A server of its own that answers."""
    folder = Path(tempfile.mkdtemp(prefix="expunge-v-"))
    server = Server(valkey_binary, folder)
    server.start()
    yield server
    server.kill()
    shutil.rmtree(folder, ignore_errors=True)
