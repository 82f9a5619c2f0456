"""The stream lost, emptied, repeated, late: it only wakes the worker, so nothing depends on it."""

import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from service.platform.problem import Problem
from service.platform.redis import ErasureStream
from tests.factories.workers import Home, copy_template, opened
from tests.faults.checker import accept_some, all_forgotten, check_at_rest
from tests.faults.conftest import stream_of
from tests.faults.server import Server
from tests.faults.worker_processes import WorkerProcesses, died, stopped
from tests.unit.worker.waiting import eventually


@pytest.fixture
def beside(template: Path, home: Path, server: Server) -> Iterator[Home]:
    """An open home whose stream is on that server."""
    with opened(copy_template(template, home, redis_url=server.url, redis_timeout_s=0.5)) as place:
        yield place


def commands(place: Home) -> redis.Redis:
    """A plain client of a place's server."""
    return redis.Redis.from_url(place.settings.redis_url)


@pytest.mark.P1
@pytest.mark.parametrize("loss", ["FLUSHALL", "XGROUP DESTROY", "XTRIM"])
def test_losing_the_stream_while_a_worker_waits_loses_nothing(loss: str, beside: Home) -> None:
    """The group is made again at 0, and SQL says what waits."""
    with WorkerProcesses(beside.settings, beside.settings.home / "worker.log") as processes:
        worker = processes.start()
        first = accept_some(beside)
        eventually(all_forgotten(beside, first))

        stream, group, client = beside.settings.stream, beside.settings.group, commands(beside)
        if loss == "FLUSHALL":
            client.flushall()
        elif loss == "XGROUP DESTROY":
            client.xgroup_destroy(stream, group)
        second = {beside.accept(beside.learnt[60])}
        if loss == "XTRIM":
            client.xtrim(stream, maxlen=0)

        eventually(all_forgotten(beside, second))
        eventually(lambda: stream_of(beside).pending().length == 0)
        assert stopped(worker) == 0
    check_at_rest(beside, first | second)


@pytest.mark.P1
def test_a_server_that_dies_and_comes_back_empty_loses_nothing(beside: Home, server: Server) -> None:
    """Forgetting goes on while it is away, and waking works again when it is back."""
    with WorkerProcesses(beside.settings, beside.settings.home / "worker.log") as processes:
        worker = processes.start()
        before = {beside.accept(beside.learnt[0])}
        eventually(all_forgotten(beside, before))

        server.kill()
        away = {beside.accept(beside.learnt[40])}
        eventually(all_forgotten(beside, away))
        server.start()
        after = {beside.accept(beside.learnt[60])}

        eventually(all_forgotten(beside, after))
        eventually(lambda: drained(beside))
        assert stopped(worker) == 0
    check_at_rest(beside, before | away | after)


@pytest.mark.P1
def test_a_worker_starts_and_works_while_the_server_is_away(beside: Home, server: Server) -> None:
    """Redis is no condition for starting."""
    server.kill()
    accepted = accept_some(beside)

    with WorkerProcesses(beside.settings, beside.settings.home / "worker.log") as processes:
        worker = processes.start()
        eventually(all_forgotten(beside, accepted))
        assert stopped(worker) == 0
    check_at_rest(beside, accepted)


@pytest.mark.P2
def test_deliveries_repeated_out_of_order_and_late_change_nothing(place: Home, processes: WorkerProcesses) -> None:
    """A hundred copies of each, shuffled, before and long after the work: one effect each."""
    stream, worker = stream_of(place), processes.start()
    accepted = accept_some(place)
    copies = sorted(accepted) * 100
    random.Random(7).shuffle(copies)

    stream.publish(copies)
    eventually(all_forgotten(place, accepted))
    live = place.alias()
    stream.publish(copies)
    eventually(lambda: stream.pending().length == 0)

    assert place.alias() == live
    assert stopped(worker) == 0
    stream.close()
    check_at_rest(place, accepted)


@pytest.mark.P1
def test_deliveries_that_a_killed_worker_left_are_acknowledged_by_the_next(
    place: Home, processes: WorkerProcesses
) -> None:
    """Nothing stays pending for ever."""
    stream = stream_of(place)
    accepted = accept_some(place)
    stream.publish(sorted(accepted))

    assert died(processes.start("worker.before_ack:kill"))
    assert stream.pending().pending >= len(accepted)

    successor = processes.start()
    eventually(lambda: stream.pending().length == 0)
    assert stopped(successor) == 0
    stream.close()
    check_at_rest(place, accepted)


def drained(place: Home) -> bool:
    """Whether the stream answers and holds nothing."""
    with suppress(Problem):
        return stream_of(place).pending().length == 0
    return False


def test_a_stream_of_foreign_entries_does_not_stop_the_worker(place: Home, processes: WorkerProcesses) -> None:
    """Entries without an id, or with the id of nothing, go away."""
    client, worker = commands(place), processes.start()
    for _ in range(50):
        client.xadd(place.settings.stream, {os.urandom(4): os.urandom(4)})
        client.xadd(place.settings.stream, {b"id": os.urandom(4).hex()})
    accepted = accept_some(place)

    eventually(all_forgotten(place, accepted))
    stream: ErasureStream = stream_of(place)
    eventually(lambda: stream.pending().length == 0)
    assert stopped(worker) == 0
    stream.close()
    check_at_rest(place, accepted)
