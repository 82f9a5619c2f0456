"""How long each stage of a batch takes, for the erasures' own record and for the metrics."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from service.platform import metrics
from service.platform.clock import Clock, rfc3339
from service.worker.repository.queue import QueuedErasure

# The label of expunge_erasure_duration_seconds for each stage of an erasure's record.
LABELS = {"queued": "queue", "applied": "apply", "gated": "gate", "published": "publish", "settled": "settle"}


class StageTimer:
    """When each stage ended, and its duration in seconds by the monotonic clock.

    Only the time in the queue is a difference of two stored instants, since acceptance happened in another process,
    maybe on another machine; a clock that stepped back makes it 0, never negative.
    """

    def __init__(self, clock: Clock, erasures: tuple[QueuedErasure, ...]) -> None:
        self._clock, self._seconds = clock, dict[str, float]()
        self._ended = dict[str, str]()
        now = clock.now()
        self._queued_at = rfc3339(now)
        self._queued = {each.id: max(0.0, (now - each.received_at).total_seconds()) for each in erasures}
        self._known = {each.id: dict(each.stages) for each in erasures}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        started = self._clock.monotonic()
        try:
            yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + self._clock.monotonic() - started
            self._ended[stage] = rfc3339(self._clock.now())

    def lap(self, stage: str, seconds: float) -> None:
        """Set what a stage has taken up to now: the last one is written before it can have ended."""
        self._seconds[stage] = seconds
        self._ended[stage] = rfc3339(self._clock.now())

    def of(self, erasure_id: str) -> dict[str, Mapping[str, Any]]:
        """The record of one erasure: stage -> {at, seconds}, with what it held before."""
        queued = {"at": self._queued_at, "seconds": round(self._queued[erasure_id], 6)}
        own = {
            stage: {"at": self._ended[stage], "seconds": round(seconds, 6)} for stage, seconds in self._seconds.items()
        }
        return {**self._known[erasure_id], "queued": queued, **own}

    def observe(self) -> None:
        """Count the batch in the metrics, once for each erasure, so that sums count erasures."""
        for waited in self._queued.values():
            metrics.erasure_duration_seconds.labels(LABELS["queued"]).observe(waited)
            for stage, seconds in self._seconds.items():
                metrics.erasure_duration_seconds.labels(LABELS[stage]).observe(seconds)
