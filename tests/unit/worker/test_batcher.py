"""How deliveries wake the worker, and what becomes of those that need nothing."""

import os
import threading
import time

import pytest

from service.platform.clock import SystemClock
from service.platform.redis import ErasureStream, Message
from service.worker.batcher import Batcher
from tests.factories.workers import Home, pipeline_of, waiting

GO_ON = threading.Event()


def batcher_of(stream: ErasureStream | None, batch_max: int = 100, window_ms: int = 50) -> Batcher:
    """A batcher of this stream."""
    return Batcher(stream, SystemClock(), batch_max=batch_max, window_ms=window_ms)


def test_without_a_window_nobody_waits_for_company(stream: ErasureStream, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is taken at once, in one look at the stream."""
    batcher, looks = batcher_of(stream, window_ms=0), list[int]()
    stream.publish(["a", "b"])
    read = stream.read

    def reading(*, count: int, block_ms: int) -> list[Message]:
        looks.append(block_ms)
        return read(count=count, block_ms=block_ms)

    monkeypatch.setattr(stream, "read", reading)

    assert batcher.gather(GO_ON) == 2
    assert len(looks) == 1


def test_deliveries_within_the_window_are_gathered(stream: ErasureStream) -> None:
    """What comes shortly after the first delivery joins its batch."""
    batcher = batcher_of(stream, window_ms=2_000)
    stream.publish(["a"])
    later = threading.Timer(0.05, stream.publish, (["b", "c"],))
    later.start()

    started = time.monotonic()
    count = batcher.gather(GO_ON)
    took = time.monotonic() - started
    later.join()

    assert count == 3
    assert took < 4


def test_a_full_batch_does_not_wait_for_its_window(stream: ErasureStream) -> None:
    """The count closes a batch as well as the time."""
    batcher = batcher_of(stream, batch_max=2, window_ms=60_000)
    stream.publish(["a", "b", "c"])

    started = time.monotonic()
    count = batcher.gather(GO_ON)

    assert count == 2
    assert time.monotonic() - started < 30


def test_an_idle_stream_lets_the_worker_look_around(stream: ErasureStream) -> None:
    """Without deliveries the worker is back within a second."""
    started = time.monotonic()

    assert batcher_of(stream).gather(GO_ON) == 0
    assert time.monotonic() - started < 1.5


@pytest.mark.P2
def test_a_hundred_duplicates_of_a_forgotten_erasure_are_no_ops(place: Home, stream: ErasureStream) -> None:
    """They are acknowledged; there is one audit entry and one version."""
    erasure_id = place.accept(place.learnt[0])
    with pipeline_of(place) as pipeline:
        pipeline.run(waiting(place))
    batcher = batcher_of(stream, batch_max=1000)
    stream.publish([erasure_id] * 100)

    gathered = batcher.gather(GO_ON)
    acknowledged = batcher.acknowledge(place.database)

    assert (gathered, acknowledged) == (100, 100)
    assert stream.pending().length == 0
    assert place.events(erasure_id).count("erasure.forgotten") == 1
    assert place.alias() == 2


@pytest.mark.P2
def test_deliveries_of_unknown_and_cancelled_erasures_are_no_ops(place: Home, stream: ErasureStream) -> None:
    """A stream that outlived its database, or a cancelled request, leaves nothing pending."""
    cancelled = place.accept(place.learnt[0])
    place.cancel(cancelled)
    stream.publish(["0198-unknown", cancelled])
    batcher = batcher_of(stream)

    batcher.gather(GO_ON)

    assert batcher.acknowledge(place.database) == 2
    assert stream.pending().length == 0


@pytest.mark.P1
def test_a_delivery_of_an_accepted_erasure_is_not_acknowledged(place: Home, stream: ErasureStream) -> None:
    """The acknowledgement comes last of all."""
    stream.publish([place.accept(place.learnt[0])])
    batcher = batcher_of(stream)

    batcher.gather(GO_ON)

    assert batcher.acknowledge(place.database) == 0
    assert stream.pending().pending == 1


@pytest.mark.P1
def test_deliveries_of_a_dead_consumer_are_taken_over(place: Home, stream: ErasureStream, redis_url: str) -> None:
    """What another process was given and never acknowledged is this one's after a while."""
    stream.publish([place.accept(place.learnt[0])])
    batcher_of(stream).gather(GO_ON)

    successor = batcher_of(stream)

    assert successor.reclaim(min_idle_s=0) == 1
    assert successor.reclaim(min_idle_s=3600) == 0


def test_deliveries_that_are_worked_on_for_long_are_not_taken_over(stream: ErasureStream) -> None:
    """The heartbeat resets their idle time."""
    stream.publish(["a"])
    holder = batcher_of(stream)
    holder.gather(GO_ON)
    threading.Event().wait(0.3)

    holder.keep()

    assert stream.pending().oldest_seconds < 0.25
    assert batcher_of(stream).reclaim(min_idle_s=0.25) == 0


def test_an_erasure_that_is_set_aside_goes_to_the_dead_letters(place: Home, stream: ErasureStream) -> None:
    """Operators find it there with the code of its problem, delivered or not."""
    delivered, not_delivered = place.accept(place.learnt[0]), place.accept(place.learnt[1])
    stream.publish([delivered])
    batcher = batcher_of(stream)
    batcher.gather(GO_ON)

    batcher.dead_letter([(delivered, "gate_refused"), (not_delivered, "gate_refused")])

    assert stream.dead_letters() == 2
    assert stream.pending().length == 0


@pytest.mark.P1
@pytest.mark.parametrize("url", [None, "redis://127.0.0.1:1/0"])
def test_without_redis_the_worker_is_let_look_into_sql(url: str | None) -> None:
    """Redis being away, or not wanted, ends in a short pause and no error."""
    name = f"test:{os.urandom(4).hex()}"
    stream = None if url is None else ErasureStream(url, stream=name, group="g", consumer="c", timeout_s=0.2)
    batcher = batcher_of(stream)

    assert batcher.gather(GO_ON) == 0
    batcher.keep()
