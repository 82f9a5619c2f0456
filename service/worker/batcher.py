"""The stream as an alarm clock: deliveries wake the worker and gather into batches; what is to be done, SQL says.

A delivery is acknowledged once its erasure is accepted no more, whoever settled it and however often it comes. So
duplicates, late and unknown deliveries are no-ops, and losing the stream loses nothing.
"""

import threading
from collections.abc import Callable

import structlog

from service.platform.clock import Clock
from service.platform.database import Database
from service.platform.faults import fault_point
from service.platform.redis import ErasureStream, Message, RedisUnavailable
from service.worker.repository import queue

BLOCK_MS = 500  # bounds how long a worker that is told to stop waits for a message
HELD_MAX = 20_000  # deliveries remembered; more are left to the stream until these are settled
BACKOFF_S = 0.1
BACKOFF_MAX_S = 2.0
FINAL = {"forgotten", "erased", "cancelled", "refused"}

log = structlog.get_logger()


class Batcher:
    """Gathers deliveries: up to `batch_max`, those that are there or come within the window after the first.

    An idle worker that waited for company would make everybody wait; under load the next ones gather while a batch
    runs.

    Args:
        stream: where they come from; None where there is no Redis.
        clock: measures the window.
        batch_max: most deliveries gathered at once, >= 1.
        window_ms: longest wait after the first delivery, >= 0.
    """

    def __init__(self, stream: ErasureStream | None, clock: Clock, *, batch_max: int, window_ms: int) -> None:
        self._stream, self._clock = stream, clock
        self._batch_max, self._window_ms = batch_max, window_ms
        self._held: dict[str, str] = {}  # entry id -> erasure id
        self._lock = threading.Lock()
        self._failures = 0

    def gather(self, stop: threading.Event) -> int:
        """Wait for deliveries and hold them; returns how many came.

        Returns without any after half a second, or, while Redis is away, after a pause that grows to two seconds: the
        caller looks into SQL each time.
        """
        try:
            count = self._gather(stop)
        except RedisUnavailable as problem:
            self._failures += 1
            log.warning("stream.away", code=problem.code, failures=self._failures)
            stop.wait(min(BACKOFF_S * 2**self._failures, BACKOFF_MAX_S))
            return 0
        self._failures = 0
        return count

    def reclaim(self, min_idle_s: float) -> int:
        """Take over deliveries that a dead consumer left, so that they are acknowledged; returns how many."""
        if self._stream is None or len(self._held) >= HELD_MAX:
            return 0
        messages = self._stream.claim(min_idle_ms=round(min_idle_s * 1000), count=self._batch_max)
        self._hold(messages)
        return len(messages)

    def keep(self) -> None:
        """Tell the stream that the deliveries held are still worked on; Redis being away is no error."""
        if self._stream is None:
            return
        with self._lock:
            entries = list(self._held)
        self._unless_away(self._stream.keep, entries)

    def acknowledge(self, database: Database) -> int:
        """Acknowledge, last of all, each delivery whose erasure is done with; returns how many.

        Done with: forgotten, cancelled, unknown. One that needs attention went to the dead letters.
        """
        with self._lock:
            held = dict(self._held)
        if self._stream is None or not held:
            return 0
        ids = sorted(set(held.values()))
        statuses = database.query(lambda connection: queue.statuses(connection, ids))
        done = [entry for entry, erasure_id in held.items() if statuses.get(erasure_id, "cancelled") in FINAL]
        stuck = [entry for entry, erasure_id in held.items() if statuses.get(erasure_id) == "needs_attention"]
        fault_point("worker.before_ack")
        if self._unless_away(self._stream.ack, [*done, *stuck]):
            self._forget([*done, *stuck])
        return len(done)

    def dead_letter(self, held_back: list[tuple[str, str]]) -> None:
        """Move the deliveries of erasures that were held back to the dead letters, with the code of the problem."""
        codes = dict(held_back)
        with self._lock:
            entries = [Message(entry, erasure_id) for entry, erasure_id in self._held.items() if erasure_id in codes]
        known = {message.erasure_id for message in entries}
        # One that SQL told of before the stream did gets a dead letter too: operators look there.
        entries += [Message("0-1", erasure_id) for erasure_id in codes if erasure_id not in known]
        for message in entries:
            self._dead_letter(message, codes[message.erasure_id])

    def _dead_letter(self, message: Message, code: str) -> None:
        stream = self._stream
        if stream is not None and self._unless_away(
            lambda entries: stream.dead_letter(message, code), [message.entry_id]
        ):
            self._forget([message.entry_id])

    def _gather(self, stop: threading.Event) -> int:
        if self._stream is None or len(self._held) >= HELD_MAX:
            stop.wait(BLOCK_MS / 1000)
            return 0
        messages = self._stream.read(count=self._batch_max, block_ms=BLOCK_MS)
        self._hold(messages)
        count = len(messages)
        deadline = self._clock.monotonic() + self._window_ms / 1000
        while 0 < count < self._batch_max and not stop.is_set():
            left_ms = round((deadline - self._clock.monotonic()) * 1000)
            if left_ms <= 0:
                break
            more = self._stream.read(count=self._batch_max - count, block_ms=left_ms)
            self._hold(more)
            count += len(more)
        return count

    def _hold(self, messages: list[Message]) -> None:
        with self._lock:
            self._held.update((message.entry_id, message.erasure_id) for message in messages)

    def _forget(self, entries: list[str]) -> None:
        with self._lock:
            for entry in entries:
                self._held.pop(entry, None)

    def _unless_away(self, command: Callable[[list[str]], None], entries: list[str]) -> bool:
        try:
            command(entries)
        except RedisUnavailable as problem:
            log.warning("stream.away", code=problem.code)
            return False
        return True
