"""The relay: tells the stream which erasures wait, out of the outbox, in order, at least once each.

Losing the stream, or all of Redis, loses nothing: what is not marked is published, and the sweep publishes again what
was marked long ago and is accepted still. Whoever reads the stream asks SQL what an erasure's state is.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog
from sqlalchemy import Connection

from service.erasures import outbox
from service.platform import metrics
from service.platform.clock import Clock, SystemClock
from service.platform.database import Database
from service.platform.faults import fault_point
from service.platform.problem import Problem
from service.platform.redis import ErasureStream

BATCH_MAX = 500
PRUNE_MAX = 20_000
GATHER_S = 0.05  # least time from one send to the next: the first goes at once, what comes meanwhile goes together
BACKOFF_S = 0.1
BACKOFF_MAX_S = 5.0
PATIENCE = 10  # a full stream is slow rather than lost: it is swept after ten times the age

log = structlog.get_logger()


class OutboxRelay:
    """Publishes the outbox of one database to one stream.

    Started, it is a task of the event loop: its marks join the transactions of the acceptances, and only the call of
    Redis takes a thread. A process without an event loop calls `publish_pending` and `sweep` instead. Any number of
    relays may run; an erasure that two of them publish is no harm.
    """

    def __init__(
        self,
        database: Database,
        stream: ErasureStream | None,
        *,
        clock: Clock | None = None,
        interval_s: float = 5.0,
    ) -> None:
        """`interval_s`: how often it looks without being woken. Without a stream nothing is published."""
        self._database, self._stream = database, stream
        self._clock = clock or SystemClock()
        self._interval_s = interval_s
        self._awake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to publish, in the background; returns at once."""
        if self._stream is not None and self._task is None:
            self._task = asyncio.create_task(self._work(self._stream), name="relay")

    async def stop(self) -> None:
        """End. What is cut off in the middle is published again by whoever looks next."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def wake(self) -> None:
        """Say that an outbox row was committed; returns at once. To be called on the event loop."""
        self._awake.set()

    def publish_pending(self) -> int:
        """Publish everything that is not yet published, in batches of 500; returns how much that was.

        Raises:
            RedisUnavailable, StorageUnavailable: what was not marked stays and is published the next time.
        """
        if self._stream is None:
            return 0
        total = 0
        while rows := self._database.query(_unpublished):
            self._publish(self._stream, rows)
            self._database.transact(self._mark(rows))
            total += len(rows)
            if len(rows) < BATCH_MAX:
                break
        return total

    def sweep(self, older_than_s: float) -> int:
        """Publish again what was published longer ago than this and is accepted still; returns how many rows.

        A stream that holds as much as SQL expects is left alone for ten times as long: it is slow, not lost. Rows of
        erasures that are done go, so that the outbox stays as small as the backlog.
        """
        self._database.transact(lambda connection: outbox.prune(connection, PRUNE_MAX))
        if self._stream is None:
            return 0
        published = self._database.query(outbox.count_published)
        if not published:
            return 0
        lost = self._stream.pending().length < published
        now = self._clock.now()
        before = now - timedelta(seconds=older_than_s if lost else older_than_s * PATIENCE)
        count = self._database.transact(lambda connection: outbox.publish_again(connection, before, now))
        if count:
            log.warning("outbox.swept", count=count, lost=lost)
            self.wake()
        return count

    async def _work(self, stream: ErasureStream) -> None:
        failures, rested_at = 0, 0.0
        while True:
            self._awake.clear()
            began = self._clock.monotonic()
            sent = await self._round(stream)
            failures = min(failures + 1, 10) if sent is None else 0
            if failures:
                # Waking is no reason to try sooner: a server that is away is not asked once an erasure.
                await asyncio.sleep(min(BACKOFF_S * 2**failures, BACKOFF_MAX_S) * random.uniform(0.5, 1))
                continue
            if sent:
                rested_at = began + GATHER_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._awake.wait(), self._interval_s)
            await asyncio.sleep(max(0.0, rested_at - self._clock.monotonic()))

    async def _round(self, stream: ErasureStream) -> int | None:
        """Publish what waits; returns how many erasures that were, or None where it failed."""
        total = 0
        try:
            while rows := await self._database.run_read(_unpublished):
                await asyncio.to_thread(self._publish, stream, rows)
                await self._database.run_write(self._mark(rows))
                total += len(rows)
                if len(rows) < BATCH_MAX:
                    break
        except Problem as problem:
            log.warning("relay.failed", code=problem.code)
        except Exception:  # the relay outlives every failure: without it nothing is forgotten in time
            log.exception("relay.failed")
        else:
            return total
        metrics.relay_failures_total.inc()
        return None

    def _publish(self, stream: ErasureStream, rows: Sequence[outbox.Row]) -> None:
        stream.publish([erasure_id for _, erasure_id in rows])
        fault_point("relay.after_xadd")
        metrics.relay_published_total.inc(len(rows))

    def _mark(self, rows: Sequence[outbox.Row]) -> Callable[[Connection], None]:
        first, last, at = rows[0][0], rows[-1][0], self._clock.now()
        return lambda connection: outbox.mark_published(connection, first, last, at)


def _unpublished(connection: Connection) -> Sequence[outbox.Row]:
    return outbox.unpublished(connection, BATCH_MAX)
