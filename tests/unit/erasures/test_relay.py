"""The relay and its sweep, on both databases and a real stream."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from service.erasures import outbox
from service.erasures import relay as module
from service.erasures.relay import OutboxRelay
from service.platform import faults, tables
from service.platform.database import Database
from service.platform.faults import Fault, FaultInjected
from service.platform.redis import ErasureStream, RedisUnavailable
from tests.factories.domains import Domains


class Away:
    """A stream that does not answer for some calls, then works."""

    def __init__(self, stream: ErasureStream, failures: int) -> None:
        self.stream, self.failures, self.asked = stream, failures, 0

    def publish(self, erasure_ids: Sequence[str]) -> None:
        """Fail so often, then publish."""
        self.asked += 1
        if self.asked <= self.failures:
            raise RedisUnavailable
        self.stream.publish(erasure_ids)


def delivered(stream: ErasureStream) -> list[str]:
    """The erasures that the stream has to tell of, in order."""
    return [message.erasure_id for message in stream.read(count=10_000, block_ms=1)]


def unpublished(database: Database) -> int:
    """How many outbox rows are not published."""
    query = select(func.count()).select_from(tables.outbox).where(tables.outbox.c.published_at.is_(None))
    return database.query(lambda connection: connection.scalar(query)) or 0


def set_status(database: Database, erasure_id: str, status: str) -> None:
    """Move an erasure on, as the worker does."""
    change = update(tables.erasures).where(tables.erasures.c.id == erasure_id).values(status=status)
    database.transact(lambda connection: connection.execute(change))


def accept(domains: Domains, count: int) -> list[str]:
    """Accept so many erasures; returns their ids in order."""
    return [domains.accept((f"u{number}", "a")).id for number in range(count)]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so; the test's own time limit ends it."""
    while not condition():
        await asyncio.sleep(0.005)


def test_everything_is_published_once_and_in_order(
    database: Database, stream: ErasureStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches, whatever their size."""
    monkeypatch.setattr(module, "BATCH_MAX", 3)
    ids = accept(Domains(database), 7)
    relay = OutboxRelay(database, stream)

    counts = relay.publish_pending(), relay.publish_pending()

    assert counts == (7, 0)
    assert delivered(stream) == ids
    assert unpublished(database) == 0


@pytest.mark.P1
def test_what_is_published_and_not_marked_is_published_again(database: Database, stream: ErasureStream) -> None:
    """Twice is no harm; never would be."""
    ids = accept(Domains(database), 2)
    relay = OutboxRelay(database, stream)
    faults.arm(Fault("relay.after_xadd", "raise"))

    try:
        with pytest.raises(FaultInjected):
            relay.publish_pending()
    finally:
        faults.arm(None)
    relay.publish_pending()

    assert delivered(stream) == ids + ids
    assert unpublished(database) == 0


@pytest.mark.P1
def test_while_the_stream_is_away_rows_wait(database: Database, stream: ErasureStream) -> None:
    """And erasures are accepted as ever."""
    domains = Domains(database)
    away = Away(stream, failures=1)
    relay = OutboxRelay(database, away)  # type: ignore[arg-type]
    first = accept(domains, 1)

    with pytest.raises(RedisUnavailable):
        relay.publish_pending()
    second = accept(domains, 1)
    relay.publish_pending()

    assert delivered(stream) == first + second


def test_the_first_erasure_is_told_at_once_and_the_next_ones_gather(
    database: Database, stream: ErasureStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle relay does not wait for company; after a send, what comes meanwhile goes together."""
    monkeypatch.setattr(module, "GATHER_S", 3600.0)
    domains = Domains(database)

    async def work() -> tuple[int, int]:
        relay = OutboxRelay(database, stream, interval_s=3600)
        await relay.start()
        await asyncio.to_thread(accept, domains, 1)
        relay.wake()
        await until(lambda: unpublished(database) == 0)
        at_once = len(delivered(stream))
        await asyncio.to_thread(accept, domains, 1)
        relay.wake()
        for _ in range(20):
            await asyncio.sleep(0)
        await relay.stop()
        return at_once, len(delivered(stream))

    assert asyncio.run(work()) == (1, 0)


def test_a_started_relay_publishes_when_it_is_woken(database: Database, stream: ErasureStream) -> None:
    """Without waiting for its interval."""
    domains = Domains(database)

    async def work() -> list[str]:
        relay = OutboxRelay(database, stream, interval_s=3600)
        await relay.start()
        ids = await asyncio.to_thread(accept, domains, 3)
        relay.wake()
        await until(lambda: unpublished(database) == 0)
        await relay.stop()
        return ids

    ids = asyncio.run(work())

    assert delivered(stream) == ids


def test_a_started_relay_publishes_what_it_finds(database: Database, stream: ErasureStream) -> None:
    """What was accepted before a crash needs nobody to wake it."""
    ids = accept(Domains(database), 2)

    async def work() -> None:
        relay = OutboxRelay(database, stream, interval_s=3600)
        await relay.start()
        await until(lambda: unpublished(database) == 0)
        await relay.stop()

    asyncio.run(work())

    assert delivered(stream) == ids


@pytest.mark.P1
def test_a_started_relay_tries_again_until_the_stream_is_back(
    database: Database, stream: ErasureStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pauses that grow."""
    monkeypatch.setattr(module, "BACKOFF_S", 0.001)
    ids = accept(Domains(database), 2)
    away = Away(stream, failures=3)

    async def work() -> None:
        relay = OutboxRelay(database, away, interval_s=3600)  # type: ignore[arg-type]
        await relay.start()
        await until(lambda: unpublished(database) == 0)
        await relay.stop()

    asyncio.run(work())

    assert away.asked == 4
    assert delivered(stream) == ids


def test_without_a_stream_nothing_happens(database: Database) -> None:
    """Rows wait for a process that has one."""
    accept(Domains(database), 1)
    relay = OutboxRelay(database, None)

    async def work() -> None:
        await relay.start()
        relay.wake()
        await relay.stop()

    asyncio.run(work())

    assert (relay.publish_pending(), relay.sweep(0)) == (0, 0)
    assert unpublished(database) == 1


@pytest.mark.P1
def test_a_lost_stream_is_filled_again_by_the_sweep(database: Database, stream: ErasureStream) -> None:
    """Only with what is accepted still, and only when it is old enough."""
    domains = Domains(database)
    ids = accept(domains, 4)
    relay = OutboxRelay(database, stream, clock=domains.clock)
    relay.publish_pending()
    stream.ack([message.entry_id for message in stream.read(count=10, block_ms=1)])
    set_status(database, ids[0], "forgotten")
    domains.cancel(ids[1])

    domains.clock.step(5)
    too_soon = relay.sweep(10)
    domains.clock.step(6)
    swept = relay.sweep(10)
    relay.publish_pending()

    assert (too_soon, swept) == (0, 2)
    assert delivered(stream) == ids[2:]


def test_a_stream_that_is_merely_slow_is_left_alone_for_longer(database: Database, stream: ErasureStream) -> None:
    """Publishing again what waits there would only make it longer."""
    domains = Domains(database)
    accept(domains, 3)
    relay = OutboxRelay(database, stream, clock=domains.clock)
    relay.publish_pending()

    domains.clock.step(50)
    soon = relay.sweep(10)
    domains.clock.step(60)
    late = relay.sweep(10)

    assert (soon, late) == (0, 3)


def test_a_clock_that_was_set_back_does_not_delay_the_sweep(database: Database, stream: ErasureStream) -> None:
    """A publication in the future counts as old."""
    domains = Domains(database)
    accept(domains, 1)
    relay = OutboxRelay(database, stream, clock=domains.clock)
    relay.publish_pending()
    stream.ack([message.entry_id for message in stream.read(count=10, block_ms=1)])

    domains.clock.step(-3600)

    assert relay.sweep(10) == 1


@pytest.mark.P10
def test_the_outbox_is_as_small_as_what_is_open(database: Database, stream: ErasureStream) -> None:
    """The sweep drops rows of what is done; held-back ones stay, they may be tried again."""
    domains = Domains(database)
    ids = accept(domains, 4)
    relay = OutboxRelay(database, stream, clock=domains.clock)
    relay.publish_pending()
    for erasure_id, status in zip(ids, ("forgotten", "erased", "needs_attention", "accepted"), strict=True):
        set_status(database, erasure_id, status)

    relay.sweep(3600)

    query = select(tables.outbox.c.erasure_id).order_by(tables.outbox.c.seq)
    left: Any = database.query(lambda connection: connection.scalars(query).all())
    assert list(left) == ids[2:]


class Counted:
    """A stream that notes how many erasures each call published."""

    def __init__(self, stream: ErasureStream) -> None:
        self.stream, self.sizes = stream, list[int]()

    def publish(self, erasure_ids: Sequence[str]) -> None:
        """Note, and publish."""
        self.sizes.append(len(erasure_ids))
        self.stream.publish(erasure_ids)


@pytest.mark.P10
def test_a_backlog_is_published_in_batches_without_being_woken(
    sqlite: Database, stream: ErasureStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of bounded size, one after the other, by the caller and by the task alike."""
    monkeypatch.setattr(module, "BATCH_MAX", 3)
    domains, counted = Domains(sqlite), Counted(stream)
    accept(domains, 7)
    assert OutboxRelay(sqlite, counted).publish_pending() == 7  # type: ignore[arg-type]
    accept(domains, 6)

    async def story() -> None:
        relay = OutboxRelay(sqlite, counted, interval_s=3600)  # type: ignore[arg-type]
        await relay.start()
        await until(lambda: unpublished(sqlite) == 0)
        await relay.stop()

    asyncio.run(story())

    assert counted.sizes == [3, 3, 1, 3, 3]


@pytest.mark.P10
def test_what_is_done_goes_a_bounded_number_at_a_time(sqlite: Database) -> None:
    """Rows of erasures that wait are not among them."""
    ids = accept(Domains(sqlite), 4)
    for id in ids[:3]:
        set_status(sqlite, id, "forgotten")

    pruned = [sqlite.transact(lambda connection: outbox.prune(connection, 2)) for _ in range(3)]

    assert pruned == [2, 1, 0]
    assert unpublished(sqlite) == 1


def test_only_what_is_accepted_and_older_than_that_is_told_again(sqlite: Database, stream: ErasureStream) -> None:
    """Not what was published at that very instant, nor what is done."""
    domains = Domains(sqlite)
    ids = accept(domains, 2)
    OutboxRelay(sqlite, stream, clock=domains.clock).publish_pending()
    set_status(sqlite, ids[0], "forgotten")
    at = domains.clock.now()

    def again(before: datetime) -> int:
        return sqlite.transact(lambda connection: outbox.publish_again(connection, before, at))

    assert (again(at), again(at + timedelta(seconds=1)), unpublished(sqlite)) == (0, 1, 1)


def test_what_is_swept_is_published_at_once(sqlite: Database, stream: ErasureStream) -> None:
    """The sweep wakes the task, which would look in an hour."""
    domains = Domains(sqlite)
    (erasure_id,) = accept(domains, 1)

    async def story() -> None:
        relay = OutboxRelay(sqlite, stream, clock=domains.clock, interval_s=3600)
        await relay.start()
        await until(lambda: unpublished(sqlite) == 0)
        stream.ack([message.entry_id for message in stream.read(count=10, block_ms=1)])
        domains.clock.step(60)
        assert relay.sweep(10) == 1
        await until(lambda: unpublished(sqlite) == 0)
        await relay.stop()

    asyncio.run(story())

    assert delivered(stream) == [erasure_id]
