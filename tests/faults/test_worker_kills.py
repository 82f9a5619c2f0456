"""A worker that is killed at any step: whoever comes next leaves every promise true."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from service.platform import tables
from service.platform.redis import ErasureStream
from service.settings import load_settings
from tests.factories.workers import OPEN_GATE, QUICK, Home, fill, opened, teach
from tests.faults.checker import accept_some, all_forgotten, check_at_rest, check_never_ahead
from tests.faults.worker_processes import WorkerProcesses, died, environment_of, frozen, stopped
from tests.unit.worker.waiting import eventually

POINTS = (
    "worker.after_claim",
    "worker.during_apply",
    "worker.after_apply",
    "worker.after_gate",
    "worker.after_file",
    "worker.before_rename",
    "worker.after_publish",
    "worker.before_settle",
    "worker.after_settle",
    "worker.after_alias",
    "worker.before_ack",
    "relay.after_xadd",
)
SETTLED_BEFORE = {"worker.after_settle", "worker.after_alias", "worker.before_ack"}


@pytest.mark.P1
@pytest.mark.P2
@pytest.mark.P5
@pytest.mark.P9
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_step_loses_nothing_and_repeats_nothing(
    point: str, place: Home, processes: WorkerProcesses, watched: ErasureStream
) -> None:
    """Killed with SIGKILL at a step; the next worker brings every accepted erasure to its end, once."""
    accepted = accept_some(place)

    assert died(processes.start(f"{point}:kill"))

    check_never_ahead(place)
    assert ({place.status(each) for each in accepted} == {"forgotten"}) == (point in SETTLED_BEFORE)

    successor = processes.start()
    eventually(all_forgotten(place, accepted))
    eventually(lambda: watched.pending().length == 0)
    assert stopped(successor) == 0
    check_at_rest(place, accepted)


@pytest.mark.P1
@pytest.mark.P2
@pytest.mark.parametrize("point", ["worker.after_claim", "worker.after_publish", "worker.after_settle"])
def test_the_same_holds_on_postgresql(point: str, postgres_url: str, home: Path, redis_url: str) -> None:
    """A kill before, during and after publishing, with PostgreSQL as the truth."""
    settings = load_settings(
        home=home, database_url=postgres_url, redis_url=redis_url, stream=f"test:{home.name}", **QUICK, **OPEN_GATE
    )
    with opened(settings) as place, WorkerProcesses(settings, home / "worker.log") as processes:
        fill(place)
        teach(place)
        accepted = accept_some(place)

        assert died(processes.start(f"{point}:kill"))
        check_never_ahead(place)

        successor = processes.start()
        eventually(all_forgotten(place, accepted))
        eventually(lambda: place.store.alias("live") == place.alias())
        assert stopped(successor) == 0
        check_at_rest(place, accepted)


@pytest.mark.P1
def test_a_worker_killed_twice_in_the_same_batch_still_finishes_it(place: Home, processes: WorkerProcesses) -> None:
    """Recovery itself is interrupted, too."""
    accepted = accept_some(place)

    assert died(processes.start("worker.after_publish:kill"))
    assert died(processes.start("worker.before_rename:kill"))
    assert died(processes.start("worker.during_apply:kill"))

    successor = processes.start()
    eventually(all_forgotten(place, accepted))
    assert stopped(successor) == 0
    check_at_rest(place, accepted)


@pytest.mark.P2
@pytest.mark.parametrize("point", ["worker.after_apply", "worker.before_settle"])
def test_a_worker_that_slept_through_its_lease_is_fenced(
    point: str, place: Home, processes: WorkerProcesses, tmp_path: Path
) -> None:
    """Stopped in the middle of a batch for longer than its term; when it wakes, another has done the work."""
    accepted = accept_some(place)
    gate = tmp_path / "go"
    sleeper = processes.start(f"{point}:pause", gate)
    eventually(lambda: Path(f"{gate}.reached").exists())

    with frozen(sleeper):
        successor = processes.start()
        eventually(all_forgotten(place, accepted))
        gate.touch()

    epochs = place.rows(select(tables.leases.c.epoch))
    fenced = tables.batches.c.outcome == "abandoned"
    eventually(lambda: "worker.fenced" in (place.settings.home / "worker.log").read_text())
    assert epochs[0].epoch == 2
    assert len(place.rows(select(tables.batches.c.id).where(fenced))) == 1
    assert stopped(successor) == 0
    assert stopped(sleeper) == 0
    check_at_rest(place, accepted)


@pytest.mark.P9
def test_an_erasure_cancelled_at_the_last_moment_is_not_in_the_version(
    place: Home, processes: WorkerProcesses, tmp_path: Path
) -> None:
    """Cancelled after the version is in the store and before it is settled: the batch is done anew."""
    kept, cancelled = place.accept(place.learnt[0]), place.accept(place.learnt[40])
    gate = tmp_path / "go"
    worker = processes.start("worker.before_settle:pause", gate)
    eventually(lambda: Path(f"{gate}.reached").exists())

    place.cancel(cancelled)
    gate.touch()

    eventually(all_forgotten(place, {kept}))
    assert stopped(worker) == 0
    check_at_rest(place, {kept}, {cancelled})


def test_the_command_drains_and_ends_with_status_zero(place: Home) -> None:
    """`python -m service.worker` works until SIGTERM, then gives its lease back and ends."""
    erasure_id = place.accept(place.learnt[0])
    environment = {**os.environ, **environment_of(place.settings), "EXPUNGE_METRICS_PORT": "0"}

    with subprocess.Popen(
        [sys.executable, "-m", "service.worker"], env=environment, stderr=subprocess.DEVNULL
    ) as worker:
        eventually(all_forgotten(place, {erasure_id}), 60)
        worker.send_signal(signal.SIGTERM)
        status = worker.wait(10)

    assert status == 0
    assert place.one(select(tables.leases.c.holder)).holder == ""
    check_at_rest(place, {erasure_id})
