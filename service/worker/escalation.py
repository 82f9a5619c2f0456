"""Escalation: what the gate refuses after the encoder alone is fine-tuned, in a bounded share of the worker's time.

Erasures that need it are put off, and everybody else's settle first. They are tried together: 1, 2, ... epochs, one try
a turn. What the gate refuses to the end is halved, until what is to blame stands alone and is held back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Connection

from service.erasures.problems import GateRefused, UnlearningCrashed
from service.platform import metrics
from service.worker.repository import queue
from service.worker.repository.queue import QueuedErasure
from service.worker.settlement import BatchChanged
from service.worker.unlearnable import Unlearnable

if TYPE_CHECKING:
    from service.worker.pipeline import Pipeline

REST = 3.0  # after a try, others have the worker for three times as long: a quarter of its time at most
PATIENCE = 10.0  # while others wait without a break, for ten times as long
FIRST_TRY_S = 1.0  # what a try is taken to last before the first one
SPLITS_MAX = 16  # bounds the tries for one group: a refusal may be about the sum of all that was forgotten


log = structlog.get_logger()


@dataclass
class _Group:
    """Erasures that are tried together next, with so many epochs."""

    ids: list[str]
    epochs: int = 1


class Escalation:
    """The erasures of one pipeline that wait for fine-tuning; which they are stands in SQL, how far they are here."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline, self._clock = pipeline, pipeline.dependencies.clock
        self._groups: list[_Group] = []
        self._splits = 0
        self._disturbed = False
        self._ended, self._seconds = self._clock.monotonic(), FIRST_TRY_S

    def disturbed(self) -> None:
        """Say that other erasures came since the last try: the next one is to leave them their time."""
        self._disturbed = True

    def set_aside(self, part: tuple[QueuedErasure, ...], error: Unlearnable) -> list[tuple[str, str]]:
        """Put off what fine-tuning may help; hold back what it cannot, or did not when it was asked for before.

        Returns:
            (erasure id, problem code) of those held back.
        """
        pipeline = self._pipeline
        most = pipeline.dependencies.settings.fine_tune_max_epochs
        if error.code != GateRefused.code or error.facts["epochs"] >= most:
            return pipeline.hold(part, error)
        facts, ids = pipeline.made_with, [erasure.id for erasure in part]
        known = pipeline.dependencies.database.query(
            lambda connection: {each for each in ids if queue.refused_before(connection, each, facts)}
        )
        rest = [each for each in ids if each not in known]

        def unit(connection: Connection) -> None:
            pipeline.dependencies.lease.confirm(connection)
            queue.mark_put_off(connection, rest)

        if rest:
            pipeline.dependencies.database.transact(unit)
            metrics.worker_batches_total.labels("put_off").inc()
            log.info("batch.put_off", erasures=rest)
        return pipeline.hold(tuple(each for each in part if each.id in known), error) if known else []

    def turn(self) -> list[tuple[str, str]] | None:
        """One try, where there is something to try and it is time for it.

        Returns:
            (erasure id, problem code) of those held back; None where nothing was tried.

        Raises:
            As `Pipeline.run`.
        """
        limit = self._pipeline.dependencies.settings.batch_max
        waiting, others = self._pipeline.dependencies.database.query(
            lambda connection: (queue.put_off(connection, limit), bool(queue.waiting(connection, 1)))
        )
        metrics.erasures_fine_tuning.set(len(waiting))
        if not waiting or not self._is_due(others=others):
            return None
        group, batch = self._next(waiting)
        started = self._clock.monotonic()
        try:
            return self._try(group, batch)
        finally:
            self._ended = self._clock.monotonic()
            self._seconds, self._disturbed = self._ended - started, False

    def _is_due(self, *, others: bool) -> bool:
        rest = PATIENCE if others else REST if self._disturbed else 0.0
        return self._clock.monotonic() - self._ended >= rest * self._seconds

    def _next(self, waiting: Sequence[QueuedErasure]) -> tuple[_Group, tuple[QueuedErasure, ...]]:
        by_id = {erasure.id: erasure for erasure in waiting}
        for group in self._groups:
            group.ids = [each for each in group.ids if each in by_id]
        self._groups = [group for group in self._groups if group.ids]
        if not self._groups:
            self._splits = 0
        known = {each for group in self._groups for each in group.ids}
        if new := [each for each in by_id if each not in known]:
            self._groups.append(_Group(new))
        group = self._groups[0]
        if len(group.ids) > 1 and by_id[group.ids[0]].attempts:  # the process died in one of them
            alone = _Group([group.ids.pop(0)])
            self._groups.insert(0, alone)
            group = alone
        return group, tuple(by_id[each] for each in group.ids)

    def _try(self, group: _Group, batch: tuple[QueuedErasure, ...]) -> list[tuple[str, str]]:
        settings, attempts = self._pipeline.dependencies.settings, batch[0].attempts
        try:
            if attempts >= settings.max_attempts:
                raise Unlearnable(UnlearningCrashed.code, {"attempts": attempts})
            self._pipeline.forget(batch, epochs=group.epochs)
        except BatchChanged:
            return []  # one of them was cancelled: the next turn is without it
        except Unlearnable as error:
            return self._refused(group, batch, error)
        self._groups.remove(group)
        return []

    def _refused(self, group: _Group, batch: tuple[QueuedErasure, ...], error: Unlearnable) -> list[tuple[str, str]]:
        if error.code == GateRefused.code and group.epochs < self._pipeline.dependencies.settings.fine_tune_max_epochs:
            group.epochs += 1
            return []
        self._groups.remove(group)
        if len(batch) == 1 or self._splits >= SPLITS_MAX:
            return self._pipeline.hold(batch, error)
        self._splits += 1
        half = len(group.ids) // 2
        self._groups[:0] = [_Group(group.ids[:half]), _Group(group.ids[half:])]
        return []
