"""`expunge compact`, against a real API; a compactor is played by the test."""

import json
import threading
from pathlib import Path

import pytest

from service.compaction import repository
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.settings import load_settings
from service.worker.lease import COMPACTOR, Lease
from tests.api.conftest import Api, api  # noqa: F401 - the fixture
from tests.cli.conftest import Run
from tests.factories.worlds import World


@pytest.fixture
def where(api: Api) -> tuple[str, ...]:  # noqa: F811
    """Address and key of an admin, of a service with a base."""
    world = World(api.settings, api.database, ["u1", "u2"], ["i1", "i2"])
    world.record([("u1", "i1"), ("u2", "i2")])
    world.serve(1, [[2.0, 1.0], [1.0, 2.0]])
    return ("--url", api.url, "--key", api.client.headers["Authorization"].removeprefix("Bearer "))


def ended_as(api: Api, status: str, problem: str | None = None) -> threading.Thread:  # noqa: F811
    """Ends the compaction that waits, as soon as there is one."""

    def work() -> None:
        while (found := api.database.query(repository.find_open)) is None:
            threading.Event().wait(0.02)
        values = {"status": status, "finished_at": SystemClock().now(), "problem": problem, "base_before": 1}
        compaction = found.id
        api.database.transact(lambda write: repository.change(write, compaction, ("waiting",), **values))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_it_waits_for_the_end(api: Api, where: tuple[str, ...], run: Run) -> None:  # noqa: F811
    """The document is that of REST; the exit status says that it is done."""
    thread = ended_as(api, "done")

    ran = run("compact", "--json", "-", *where)

    thread.join()
    assert ran.status == 0, ran.err
    assert json.loads(ran.out)["status"] == "done"


def test_one_that_is_refused_is_told_with_what_to_do(
    api: Api,  # noqa: F811
    where: tuple[str, ...],
    run: Run,
) -> None:
    """Exit status 1, and a sentence."""
    thread = ended_as(api, "refused", "compaction_refused")

    ran = run("compact", *where)

    thread.join()
    assert ran.status == 1
    assert "The compaction is refused" in ran.err
    assert "facts.attempts" in ran.err.replace("\n", " ")


def test_without_waiting_it_is_started_once(api: Api, where: tuple[str, ...], run: Run) -> None:  # noqa: F811
    """The second one finds the first; `expunge status` shows it."""
    ids = [json.loads(run("compact", "--no-wait", "--json", "-", *where).out)["id"] for _ in range(2)]
    status = json.loads(run("--home", str(api.settings.home), "status", "--json", "-").out)

    assert ids[0] == ids[1] == status["compaction"]["id"]
    assert status["compaction"]["status"] == "waiting"


def test_nobody_trains_while_another_does(own_home: Path, run: Run) -> None:
    """A compaction, or another training, holds the lease: a sentence says so, and nothing is trained."""
    settings = load_settings(home=own_home)
    database = Database(settings.sql_url)
    lease = Lease(database, seconds=0.3, clock=SystemClock(), name=COMPACTOR)
    assert lease.acquire(threading.Event())
    try:
        ran = run("--home", str(own_home), "pretrain")
    finally:
        lease.release()
        database.close()

    assert ran.status == 1
    assert "is under way already" in ran.err.replace("\n", " ")
