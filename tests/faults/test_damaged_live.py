"""The live version's file is damaged and the API starts anew: real processes, with a worker and without one."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.platform.auth import Scope, create_key
from service.platform.clock import SystemClock
from tests.factories.versions import file_of
from tests.factories.workers import Home, user
from tests.faults.checker import all_forgotten
from tests.faults.worker_processes import WorkerProcesses, environment_of, stopped
from tests.unit.worker.waiting import eventually

COMMAND = [sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app", "--log-level", "critical"]
START_S = 60.0
PATH = f"/v1/users/{user(1)}/recommendations?n=3"


@contextmanager
def api(place: Home) -> Iterator[httpx.Client]:
    """A new API process of the place, and a client of it that may ask."""
    key = place.database.transact(
        lambda connection: create_key(connection, "test", frozenset({Scope.ADMIN}), SystemClock().now())
    )
    path = place.settings.home / "api.socket"
    path.unlink(missing_ok=True)
    environment = {**os.environ, **environment_of(place.settings)}
    with (place.settings.home / "api.log").open("ab") as log:
        process = subprocess.Popen([*COMMAND, "--uds", str(path)], env=environment, stdout=log, stderr=log)
    headers = {"Authorization": f"Bearer {key.token}"}
    try:
        eventually(lambda: listens(path, process), START_S)
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://api", headers=headers, timeout=30) as client:
            yield client
    finally:
        process.kill()
        process.wait()


def listens(path: Path, process: subprocess.Popen[bytes]) -> bool:
    """Whether somebody listens at a socket; fails where the process has ended."""
    assert process.poll() is None, "The API ended before it answered."
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def answered_by(client: httpx.Client) -> int | None:
    """The version that answers, None where there is none."""
    answer = client.get(PATH)
    return int(answer.json()["model_version"]) if answer.is_success else None


def damage(place: Home, version: int) -> None:
    """Flip one bit of a version's vectors."""
    file = file_of(place.store, version)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.P5
def test_a_worker_that_is_told_makes_it_again_at_once(place: Home, processes: WorkerProcesses) -> None:
    """The version before still knows what was forgotten, so it may not answer: the worker is told and remakes it."""
    accepted = [place.accept(place.learnt[0])]
    processes.start()
    eventually(all_forgotten(place, accepted))
    damage(place, 2)

    with api(place) as client:
        eventually(lambda: answered_by(client) == 3)

    assert place.events().count("version.damaged") == 1
    assert place.events().count("erasure.forgotten") == 1


@pytest.mark.P3
@pytest.mark.P5
def test_without_a_worker_only_a_version_that_covers_what_is_forgotten_answers(
    place: Home, processes: WorkerProcesses
) -> None:
    """First the live one is damaged whose forerunner holds a forgotten pair: nobody answers. Then that is made again,
    under another number: the older of the two has forgotten as much, and answers while the newer one is damaged."""
    accepted = [place.accept(place.learnt[0])]
    worker = processes.start()
    eventually(all_forgotten(place, accepted))
    assert stopped(worker) == 0
    sound = file_of(place.store, 2).read_bytes()
    damage(place, 2)

    with api(place) as client:
        assert answered_by(client) is None
        assert client.get("/readyz").status_code == 503

    worker = processes.start()
    eventually(lambda: place.alias() == 3)
    assert stopped(worker) == 0
    file_of(place.store, 2).write_bytes(sound)
    damage(place, 3)

    with api(place) as client:
        assert answered_by(client) == 2
        ready = client.get("/readyz?verbose=1")
        assert (ready.status_code, ready.json()["checks"]["model"]["status"]) == (200, "degraded")
