"""The restore drill: backup, erase, restore, start. Real processes, real backups, and nobody comes back."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from model_store import ErasureLedger
from service.platform.auth import Scope, create_key
from service.platform.clock import SystemClock
from service.platform.identity import load_identity
from service.settings import Settings, load_settings
from tests.factories.backups import Backup
from tests.factories.workers import OPEN_GATE, PAIRS, QUICK, Home, fill, item, opened, teach, user
from tests.faults.test_api_kills import COMMAND, eventually, listens
from tests.faults.worker_processes import WorkerProcesses, environment_of, stopped

pytestmark = [
    pytest.mark.P4,
    pytest.mark.skipif(sys.platform != "linux", reason="sockets and signals"),
    pytest.mark.timeout(300),
]

FORGOTTEN, WAITING, CANCELLED, UNDONE = PAIRS[0], PAIRS[40], PAIRS[80], PAIRS[120]
WHOLE_USER = 7


class Drill:
    """A home with a live model, a key, and processes over it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        with opened(settings) as place:
            fill(place)
            teach(place, go_live=True, modes=("forget",))
            made = place.database.transact(
                lambda connection: create_key(connection, "drill", frozenset({Scope.ADMIN}), SystemClock().now())
            )
        self._headers = {"Authorization": f"Bearer {made.token}"}
        self.go_on = settings.home / "go-on"

    @contextmanager
    def api(self, fault: str = "") -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
        """A running API process, killed at the end."""
        path = self.settings.home / "api.socket"
        path.unlink(missing_ok=True)
        environment = {**os.environ, **environment_of(self.settings)}
        if fault:
            environment |= {"EXPUNGE_FAULT": fault, "EXPUNGE_FAULT_FILE": str(self.go_on)}
        with (self.settings.home / "api.log").open("ab") as log:
            process = subprocess.Popen([*COMMAND, "--uds", str(path)], env=environment, stdout=log, stderr=log)
        try:
            eventually(lambda: listens(path, process))
            transport = httpx.HTTPTransport(uds=str(path))
            with httpx.Client(transport=transport, base_url="http://api", headers=self._headers, timeout=30) as client:
                yield client, process
        except BaseException:
            print((self.settings.home / "api.log").read_text())
            raise
        finally:
            process.kill()
            process.wait()

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A running worker process, told to end at the end."""
        with WorkerProcesses(self.settings, self.settings.home / "worker.log") as processes:
            process = processes.start()
            yield
            assert stopped(process) == 0

    @contextmanager
    def place(self) -> Iterator[Home]:
        """The home, looked at from outside."""
        with opened(self.settings) as place:
            yield place

    def ledger_knows(self, count: int) -> bool:
        """Whether the ledger tells of this many acceptances."""
        ledger = ErasureLedger(self.settings.store_root, load_identity(self.settings).derive("manifest"))
        return sum(record.event == "erasure.accepted" for record in ledger.records()) >= count


@pytest.fixture
def drill(home: Path, database_url: str, redis_url: str) -> Drill:
    changes = {"redis_url": redis_url, "stream": f"drill:{home.name}", "database_url": database_url}
    return Drill(load_settings(home=home, **QUICK, **OPEN_GATE, **changes))


def erase(client: httpx.Client, path: str) -> str:
    """Erase over REST; returns the erasure's id."""
    answer = client.delete(path)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def pair_path(pair: tuple[int, int]) -> str:
    return f"/v1/users/{user(pair[0])}/interactions/{item(pair[1])}"


def status(client: httpx.Client, erasure_id: str) -> str:
    return str(client.get(f"/v1/erasures/{erasure_id}").json()["status"])


def shown(client: httpx.Client, number: int) -> set[str]:
    """Items of a user's own record."""
    answer = client.get(f"/v1/users/{user(number)}/interactions?limit=100")
    return {each["item_id"] for each in answer.json()["interactions"]} if answer.status_code == 200 else set()


def late_write(client: httpx.Client, pair: tuple[int, int]) -> int:
    body = {"interactions": [{"user_id": user(pair[0]), "item_id": item(pair[1])}]}
    return client.post("/v1/interactions", json=body).status_code


def ready(client: httpx.Client) -> bool:
    return client.get("/readyz").status_code == 200


def resurrected(client: httpx.Client) -> int:
    """What is shown of what was erased, or could be written again."""
    count = sum(item(pair[1]) in shown(client, pair[0]) for pair in (FORGOTTEN, WAITING)) + len(
        shown(client, WHOLE_USER)
    )
    whole = next(pair for pair in PAIRS if pair[0] == WHOLE_USER)
    return count + sum(late_write(client, pair) < 400 for pair in (FORGOTTEN, WAITING, whole))


def test_a_restored_backup_brings_nobody_back(drill: Drill, tmp_path: Path) -> None:
    """Red, cleaned, green; killed in the middle and started again; and all of it a second time."""
    with drill.api() as (client, _):
        eventually(lambda: ready(client))
        undone = erase(client, pair_path(UNDONE))
        eventually(lambda: drill.ledger_knows(1))
    backup = Backup(drill.settings.sql_url, tmp_path)
    with drill.api() as (client, _):
        client.delete(f"/v1/erasures/{undone}").raise_for_status()
        cancelled = erase(client, pair_path(CANCELLED))
        client.delete(f"/v1/erasures/{cancelled}").raise_for_status()
        forgotten = [erase(client, pair_path(FORGOTTEN)), erase(client, f"/v1/users/{user(WHOLE_USER)}")]
        with drill.worker():
            eventually(lambda: all(status(client, each) == "forgotten" for each in forgotten))
        waiting = erase(client, pair_path(WAITING))
        commitment = client.get(f"/v1/erasures/{waiting}").json()["commitment"]
        eventually(lambda: drill.ledger_knows(5))
    with drill.place() as place:
        newest = max(place.store.numbers("versions"))
        assert newest > 1

    everything = [*forgotten, waiting]
    for n_killed in (2, 0):
        backup.restore()
        if n_killed:
            kill_twice(drill)
        with drill.api() as (client, _), drill.worker():
            eventually(lambda: ready(client))
            assert resurrected(client) == 0
            assert [status(client, each) for each in (cancelled, undone)] == ["cancelled", "cancelled"]
            assert client.get(f"/v1/erasures/{waiting}").json()["commitment"] == commitment
            eventually(lambda: all(status(client, each) == "forgotten" for each in everything))
            receipt = client.get(f"/v1/erasures/{waiting}/receipt")
            assert receipt.status_code == 200
            assert "salt is gone" in receipt.text
            assert resurrected(client) == 0
            assert late_write(client, UNDONE) < 400
            eventually(lambda: ready(client))
        with drill.place() as place:
            recorded = place.recorded()
            assert not {FORGOTTEN, WAITING} & recorded
            assert not {pair for pair in recorded if pair[0] == WHOLE_USER}
            live = place.alias()
            assert live is not None
            assert live > newest
            assert place.degrees(live)[0][WHOLE_USER] == 0
            assert all(place.events(each).count("erasure.accepted") == 1 for each in everything)


def kill_twice(drill: Drill) -> None:
    """Start on the restored database, twice, and be killed in the middle of cleaning it; nobody is answered."""
    reached = Path(f"{drill.go_on}.reached")
    with drill.api("replay.chunk:pause") as (client, _):
        eventually(reached.exists)
        told = client.get("/readyz?verbose")
        assert told.status_code == 503
        assert told.json()["checks"]["history"]["status"] == "failed"
        refused = client.get(f"/v1/users/{user(FORGOTTEN[0])}/interactions")
        assert (refused.status_code, refused.json()["code"]) == (503, "database_behind")
    with drill.api("replay.before_watermark:kill") as (_, process):
        assert process.wait(60) != 0
