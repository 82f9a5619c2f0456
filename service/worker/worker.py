"""The worker's life: stand by, take the lease, put the store in order, then batch after batch until told to stop."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection

from model_store import ModelStore, StoreError
from service.erasures.relay import OutboxRelay
from service.models import service as models
from service.platform import metrics
from service.platform.faults import fault_point
from service.platform.logging import error_facts
from service.platform.obstacles import (
    BACKBONE_UNAVAILABLE,
    BASE_DAMAGED,
    ENCODER_OUTDATED,
    NO_ENCODER,
    WORKER_FAILING,
    obstacle_to,
    read_forgetting_state,
)
from service.platform.problem import Problem
from service.recommender.backbones.registry import BackboneUnavailable, UnknownBackbone
from service.settings import Settings
from service.worker import invariants
from service.worker.batcher import Batcher
from service.worker.engine import EncoderMissing, Engine, UnlearningEngine
from service.worker.lease import Fenced, Lease
from service.worker.opening import WorkerDependencies
from service.worker.pipeline import (
    GATE_REFUSED,
    UNLEARNING_CRASHED,
    UNLEARNING_FAILED,
    BaseChanged,
    Batch,
    Pipeline,
    PipelineDependencies,
)
from service.worker.repository import lineage, queue
from service.worker.repository.lineage import LineageState, LineageVersion
from service.worker.retention import Retention
from service.worker.settlement import accept_again
from service.worker.targets import ForgetSet, TargetsByMode
from service.worker.unlearnable import Unlearnable

RETRY_FIRST_S = 0.2
RETRY_MAX_S = 10.0
CHECK_SECONDS = 60.0  # the invariants look at every erasure: less often than the sweep
EXPIRE_SECONDS = 3600.0  # what is kept for days may stay an hour more
SHRINK_BITS = 2  # after each crash in the unlearning step a batch is a quarter of what it was

log = structlog.get_logger()
EngineOf = Callable[[ModelStore, int, dict[str, int], Settings], Engine]


@dataclass
class WorkerStatus:
    """How the worker is doing, for its health endpoints; written by the worker, read by others."""

    lease: bool = False
    base: int | None = None
    trouble: str | None = None
    trouble_code: str | None = None
    """The same as it is put beside the lease: see `platform.obstacles`."""
    waits_for: str | None = None
    """The code of what erasures wait for, once it was told."""
    rounds: int = 0


class Worker:
    """Turns accepted erasures into forgotten ones. One works at a time, however many run; the others stand by.

    Args:
        dependencies: settings, database, store, stream, clock.
        stop: ends the work when set, after the batch at hand.
        engine_of: makes the engine of a base; the real one but in tests.
    """

    def __init__(
        self, dependencies: WorkerDependencies, stop: threading.Event, engine_of: EngineOf = UnlearningEngine
    ) -> None:
        settings = dependencies.settings
        self.dependencies, self.stop, self.status = dependencies, stop, WorkerStatus()
        self.batcher = Batcher(
            dependencies.stream, dependencies.clock, batch_max=settings.batch_max, window_ms=settings.batch_window_ms
        )
        self.lease = Lease(
            dependencies.database, seconds=settings.lease_seconds, clock=dependencies.clock, on_beat=self.batcher.keep
        )
        self.retention = Retention(
            dependencies.database, dependencies.store, self.lease, dependencies.clock, settings.keep_versions
        )
        self.relay = OutboxRelay(dependencies.database, dependencies.stream, clock=dependencies.clock)
        self._engine_of = engine_of
        self._pipeline: Pipeline | None = None
        self._engine: Engine | None = None
        self._failures = 0
        self._swept_at: float | None = None
        self._checked_at: float | None = None
        self._expired_at: float | None = None
        self._damaged = False
        self._heard = 0

    def run(self) -> None:
        """Work until `stop` is set; the batch at hand is finished first."""
        try:
            while not self.stop.is_set() and self.lease.acquire(self.stop):
                self.status.lease = True
                self._hold_lease()
                self.status.lease = False
        finally:
            self.lease.release()

    def _hold_lease(self) -> None:
        """Rounds until the lease is lost or the worker is to stop."""
        self._pipeline = None
        if not self._guarded(self._recover):
            return
        while self.lease.held and not self.stop.is_set():
            self._guarded(self._round)
            self.status.rounds += 1

    def _recover(self) -> None:
        self._ensure_integrity()
        self.retention.recover()
        self._hear_of_damage()
        self._damaged = self.retention.live_is_damaged()
        with contextlib.suppress(Problem):
            # Only the holder of the lease reads: whatever was delivered and not acknowledged was an earlier one's.
            self.batcher.reclaim(0)

    def _ensure_integrity(self) -> None:
        """Touch nothing while the database is damaged, or older than what the store has seen of it."""
        if self.dependencies.integrity is not None:
            self.dependencies.integrity.ensure()

    def _round(self) -> None:
        self._ensure_integrity()
        if self._failures:
            # A full disk takes no note either of what came to nothing: that is made up for now.
            self.retention.recover()
        self._sweep_if_due()
        self.batcher.gather(self.stop)
        if self._hear_of_damage():
            self._damaged = self.retention.live_is_damaged()
        batch = self._next_batch()
        pipeline = self._prepared()
        if batch and batch[0].attempts >= self.dependencies.settings.max_attempts:
            crashed = Unlearnable(UNLEARNING_CRASHED, {"attempts": batch[0].attempts})
            self.batcher.dead_letter(pipeline.hold(batch[:1], crashed))
        elif batch or self._damaged or self._rebasing(pipeline):
            self._forget(pipeline, batch)
        if (held := pipeline.escalation.turn()) is not None:
            self.batcher.dead_letter(held)
            self.retention.align()
        self.batcher.acknowledge(self.dependencies.database)

    def _hear_of_damage(self) -> bool:
        """Whether a replica told, since the last time, that it cannot load the live version."""
        self._heard, told = self.dependencies.database.query(
            lambda connection: models.damage_since(connection, self._heard)
        )
        return told

    def _forget(self, pipeline: Pipeline, batch: Batch) -> None:
        rebasing = self._rebasing(pipeline)
        pipeline.remake = self._damaged
        self.batcher.dead_letter(pipeline.run(batch))
        self._damaged = False
        self.retention.align()
        fault_point("worker.after_alias")
        if self.dependencies.integrity is not None:
            # What is settled is marked in the store: a database that does not know it was restored.
            self.dependencies.integrity.look()
        if rebasing:
            # A base that was trained meanwhile never learnt what was held back: there is nothing left to forget.
            self.dependencies.database.transact(self._accept_held_again)

    def _accept_held_again(self, connection: Connection) -> None:
        queue.put_off_no_more(connection)
        held = queue.held(connection, (GATE_REFUSED, UNLEARNING_FAILED, UNLEARNING_CRASHED))
        accept_again(connection, held, self.dependencies.clock.now())

    def _next_batch(self) -> Batch:
        """The oldest accepted erasures. What died in the unlearning step comes back in ever smaller batches."""
        settings = self.dependencies.settings
        waiting = self.dependencies.database.query(lambda connection: queue.waiting(connection, settings.batch_max))
        if not waiting or not waiting[0].attempts:
            return tuple(waiting)
        alone = waiting[0].attempts >= settings.max_attempts - 1
        size = 1 if alone else max(1, settings.batch_max >> (SHRINK_BITS * waiting[0].attempts))
        return tuple(waiting[:size])

    def _prepared(self) -> Pipeline:
        """The pipeline of the base that versions come from now; made anew where that changed, or after a failure."""
        lineage_state = self.dependencies.database.query(lineage.read_state)
        wanted = None if lineage_state.base is None else (lineage_state.base.version, _encoders(lineage_state.base))
        at_hand = None if self._engine is None else (self._engine.base, dict(self._engine.encoders))
        if wanted != at_hand:
            self._pipeline, self._engine = None, None
            if wanted is not None and at_hand is not None and wanted[0] == at_hand[0]:
                # What the old encoder could not, the new one may.
                self.dependencies.database.transact(self._accept_held_again)
            if wanted is not None:
                log.info("engine.loading", base=wanted[0])
                self._engine = self._engine_of(self.dependencies.store, *wanted, self.dependencies.settings)
        if self._pipeline is None:
            dependencies = PipelineDependencies(
                self.dependencies.database,
                self.dependencies.store,
                self.lease,
                self.dependencies.clock,
                self.dependencies.settings,
            )
            self._pipeline = Pipeline(dependencies, self._engine, self._forget_set(lineage_state), self.stop.wait)
        self.status.base = None if self._engine is None else self._engine.base
        return self._pipeline

    def _forget_set(self, lineage_state: LineageState) -> ForgetSet:
        after = 0 if lineage_state.base is None else snapshot_seq(lineage_state.base)

        def unit(connection: Connection) -> ForgetSet:
            done = queue.forgotten(connection, after)
            targets = TargetsByMode.of(queue.forgotten_targets(connection, after))
            return ForgetSet(targets, [each for each, _ in done], max([after, *(seq for _, seq in done)]))

        return self.dependencies.database.query(unit)

    def _rebasing(self, pipeline: Pipeline) -> bool:
        lineage_state = self.dependencies.database.query(lineage.read_state)
        return lineage_state.base is not None and (
            lineage_state.live is None or lineage_state.live.base != pipeline.base
        )

    def _sweep_if_due(self) -> None:
        settings, now = self.dependencies.settings, self.dependencies.clock.monotonic()
        if self._swept_at is not None and now - self._swept_at < settings.sweep_seconds:
            return
        self._swept_at = now
        with contextlib.suppress(Problem):  # Redis is away: the rounds look into SQL by themselves
            self.relay.publish_pending()
            self.relay.sweep(2 * settings.sweep_seconds)
            self.batcher.reclaim(settings.lease_seconds)
        self.retention.clean()
        self.retention.align()
        if self._expired_at is None or now - self._expired_at >= EXPIRE_SECONDS:
            self._expired_at = now
            self.retention.expire(settings)
        if self._checked_at is None or now - self._checked_at >= CHECK_SECONDS:
            self._checked_at = now
            self._damaged = self.retention.live_is_damaged()
            invariants.check_all(self.dependencies.database, self.dependencies.store, self.dependencies.clock)

    def _guarded(self, step: Callable[[], None]) -> bool:
        """Run a step; what fails is tried again after a pause that grows, what was fenced waits for the lease."""
        try:
            step()
        except Fenced:
            self.lease.lost.set()
            log.warning("worker.fenced")
        except BaseChanged:
            self._pipeline = None
        except Exception as error:  # the worker outlives every failure: without it nothing is forgotten
            self._fail(error)
        else:
            self._failures = 0
            self._in_trouble(None)
            self.status.trouble = None
            return True
        return False

    def _fail(self, error: Exception) -> None:
        # Whatever was half done is in SQL or nowhere: the next round starts from there.
        self._pipeline, self._failures = None, self._failures + 1
        metrics.worker_batches_total.labels("retried").inc()
        trouble, self.status.trouble = trouble_of(error), type(error).__name__
        if not self._in_trouble(trouble) or trouble.startswith(WORKER_FAILING):
            log.error("worker.round_failed", failures=self._failures, **error_facts(error))
        self.stop.wait(min(RETRY_FIRST_S * 2**self._failures, RETRY_MAX_S))

    def _in_trouble(self, trouble: str | None) -> bool:
        """Tell a trouble, or its end, once: in the log, beside the lease, in the health of this process.

        Returns whether what erasures wait for could be told in a sentence.
        """
        known, self.status.trouble_code = self.status.trouble_code, trouble
        if known is None and trouble is None:
            return False
        with contextlib.suppress(Problem):
            if known != trouble:
                self.lease.note_trouble(trouble)
            state = self.dependencies.database.query(
                lambda connection: read_forgetting_state(connection, self.dependencies.clock.now())
            )
            found = obstacle_to(state)
            before, self.status.waits_for = self.status.waits_for, None if found is None else found.code
            if found is not None and found.code != before:
                log.warning("erasures.wait", waiting=state.waiting, **found.body())
            elif found is None and before is not None:
                log.info("erasures.go_on", waiting=state.waiting)
            return found is not None
        return False


def trouble_of(error: Exception) -> str:
    """The code of what failed, as it is put beside the lease."""
    match error:
        case EncoderMissing():
            return f"{ENCODER_OUTDATED if error.outdated else NO_ENCODER}:{error.mode}"
        case UnknownBackbone() | BackboneUnavailable():
            return BACKBONE_UNAVAILABLE
        case StoreError():
            return BASE_DAMAGED
    return f"{WORKER_FAILING}:{type(error).__name__}"


def snapshot_seq(base: LineageVersion) -> int:
    """The seq of the last erasure that the base's training data took account of."""
    config = base.manifest.get("config") or {}
    return int(config.get("snapshot_seq", base.erasure_seq))


def _encoders(base: LineageVersion) -> dict[str, int]:
    return {mode: int(number) for mode, number in (base.manifest.get("encoders") or {}).items()}
