"""A batch of erasures from claim to settlement: apply, gate, publish, settle; each step journalled before it begins.

Whatever dies, dies before or after the one transaction of `settlement.settle`. Before it, nothing has happened that
anyone could see, and the erasures are accepted still; after it, all of it has happened.
"""

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection

from model_store import Manifest, ManifestFacts, ModelStore, RequestFacts, StoreError
from service.audit.service import AuditEvent
from service.erasures.problems import GateRefused, UnlearningCrashed, UnlearningFailed
from service.evaluation.gate import GateReport
from service.platform import metrics
from service.platform.clock import Clock
from service.platform.database import Database
from service.platform.faults import fault_point
from service.platform.gauges import package_version
from service.platform.logging import error_facts
from service.platform.problem import Problem
from service.settings import Settings
from service.unlearning.protocol import ForgetResult
from service.worker.engine import EMBEDDINGS, EncoderMissing, Engine, ResolvedBatch
from service.worker.escalation import Escalation
from service.worker.lease import Fenced, Lease
from service.worker.repository import journal, lineage, queue
from service.worker.repository.lineage import LineageState
from service.worker.repository.queue import QueuedErasure
from service.worker.settlement import BatchChanged, Settlement, hold, settle
from service.worker.stages import StageTimer
from service.worker.targets import ForgetSet, TargetsByMode
from service.worker.unlearnable import Unlearnable

GATE_REFUSED, UNLEARNING_FAILED, UNLEARNING_CRASHED = GateRefused.code, UnlearningFailed.code, UnlearningCrashed.code

_FIRST_PAUSE_S = 0.05

T = TypeVar("T")
Batch = tuple[QueuedErasure, ...]
log = structlog.get_logger()


class BaseChanged(Exception):
    """Versions come from another base now."""


@dataclass(frozen=True)
class PipelineDependencies:
    """What the pipeline stands on."""

    database: Database
    store: ModelStore
    lease: Lease
    clock: Clock
    settings: Settings


@dataclass(frozen=True)
class Candidate:
    """A model that passed the gate."""

    result: ForgetResult
    report: GateReport

    @property
    def gate(self) -> dict[str, Any]:
        """The gate's figures as plain values."""
        return asdict(self.report) | {"fine_tune_epochs": self.result.fine_tune_epochs}


@dataclass
class BatchRun:
    """One batch under way; `version` is the number reserved for it, once it is."""

    id: int
    erasures: Batch
    lineage_state: LineageState
    stages: StageTimer
    version: int | None = None

    @property
    def ids(self) -> list[str]:
        """The erasures' ids, in the order of accepting."""
        return [erasure.id for erasure in self.erasures]


class Pipeline:
    """Forgets batches with one engine, in the order of accepting.

    Args:
        dependencies: database, store, lease, clock, settings.
        engine: of the base that versions come from now; None while there is no model at all.
        forget_set: what has been forgotten since that base.
        pause: waits some seconds before a try is repeated; True where the worker is to stop.
    """

    def __init__(
        self,
        dependencies: PipelineDependencies,
        engine: Engine | None,
        forget_set: ForgetSet,
        pause: Callable[[float], object],
    ) -> None:
        self.dependencies, self.engine, self.forget_set, self._pause = dependencies, engine, forget_set, pause
        self.remake = False
        """Whether the next batch makes a version even if it changes nothing: the live one is damaged."""
        self.escalation = Escalation(self)

    @property
    def base(self) -> int | None:
        """The base that versions come from."""
        return None if self.engine is None else self.engine.base

    def run(self, erasures: Batch) -> list[tuple[str, str]]:
        """Forget these erasures, the oldest accepted ones; none where only the base is to change.

        A batch in which the unlearning fails or the gate refuses what the encoder gave is halved until what is to
        blame stands alone. It is put off where fine-tuning may help (`Escalation`), else held back; the rest settles
        at once.

        Returns:
            (erasure id, problem code) of those held back.

        Raises:
            BaseChanged: another base was promoted; the erasures that are left need its engine.
            Fenced, EncoderMissing, StoreError, Problem: the part at hand was not settled and may be tried again.
        """
        parts, held = [erasures], list[tuple[str, str]]()
        # A refusal may be about the sum of all that was forgotten: halving is not to cost more than finding one.
        refusals_left = 2 * math.ceil(math.log2(max(len(erasures), 2))) + 1
        while parts:
            part = parts.pop()
            try:
                self.forget(part)
            except BatchChanged:
                parts.append(self._still_accepted(part))
            except Unlearnable as error:
                refusals_left -= error.code == GATE_REFUSED
                if len(part) == 1 or refusals_left < 0:
                    held += self.escalation.set_aside(part, error)
                else:
                    parts += [part[len(part) // 2 :], part[: len(part) // 2]]
            parts = [each for each in parts if each]
        if erasures:
            self.escalation.disturbed()
        return held

    @property
    def made_with(self) -> dict[str, Any]:
        """What a refusal holds for: with another base or other encoders it is another question."""
        engine = self.engine
        return {} if engine is None else {"base": engine.base, "encoders": dict(engine.encoders)}

    def hold(self, part: Batch, error: Unlearnable) -> list[tuple[str, str]]:
        """Hold erasures back: they need attention, stay suppressed, and the version at hand goes on serving."""
        reason = AuditEvent("erasure.needs_attention", {"code": error.code, **self.made_with, **error.facts})
        run = self._claim(part, lineage.LineageState(None, None), StageTimer(self.dependencies.clock, part))
        self.dependencies.database.transact(
            lambda connection: hold(
                connection, self.dependencies.lease, run.id, run.ids, reason, self.dependencies.clock.now()
            )
        )
        metrics.worker_batches_total.labels("held").inc()
        log.error("batch.held", batch=run.id, erasures=run.ids, code=error.code)
        return [(erasure.id, error.code) for erasure in part]

    def forget(self, part: Batch, epochs: int | None = None) -> None:
        """Make and settle a version without these erasures too, or raise.

        Args:
            part: the erasures; a lone one in which the unlearning fails is tried again a few times.
            epochs: of fine-tuning. Default none, or as many as it takes where the base changes or live is made again.

        Raises:
            Unlearnable, BatchChanged: it failed or was refused; one is accepted no more. Besides what `run` raises.
        """
        tries = self.dependencies.settings.max_attempts if len(part) == 1 else 1
        for attempt in range(1, tries + 1):
            try:
                return self._once(part, epochs)
            except Unlearnable as error:
                if attempt == tries or error.code == GATE_REFUSED:
                    raise
                self._pause(_FIRST_PAUSE_S * 2**attempt)
        return None

    def _once(self, part: Batch, epochs: int | None) -> None:
        ids = [erasure.id for erasure in part]
        lineage_state, targets = self.dependencies.database.query(
            lambda connection: (lineage.read_state(connection), TargetsByMode.of(queue.targets(connection, ids)))
        )
        if self.base != (None if lineage_state.base is None else lineage_state.base.version):
            raise BaseChanged
        stages = StageTimer(self.dependencies.clock, part)
        with stages.timed("applied"):
            resolved = self._resolve(lineage_state, targets)
        run = self._claim(part, lineage_state, stages, applies=resolved is not None)
        try:
            fault_point("worker.after_claim")
            tries = self._tries(lineage_state, epochs)
            candidate = None if resolved is None else self._candidate(run, resolved, tries)
            made = None if candidate is None else self._publish(run, candidate)
            self._settle(run, made)
        except BaseException as error:
            self._abandon(run, error)
            raise
        self.forget_set.extend(targets, run.ids, max((erasure.seq for erasure in part), default=0))
        self.remake = False
        run.stages.observe()
        metrics.unlearn_batch_size.observe(len(part))
        metrics.worker_batches_total.labels("settled").inc()
        log.info("batch.settled", batch=run.id, erasures=len(part), version=run.version)
        fault_point("worker.after_settle")

    def _resolve(self, lineage_state: LineageState, targets: TargetsByMode) -> ResolvedBatch | None:
        """What is to be applied; None where the model at hand never learnt any of it."""
        if self.engine is None:
            return None
        resolved = self.engine.resolve(self.forget_set.targets, targets)
        return resolved if resolved.changes or (self._moves(lineage_state) and resolved.request.n_edges) else None

    def _claim(
        self, part: Batch, lineage_state: LineageState, stages: StageTimer, *, applies: bool = False
    ) -> BatchRun:
        """Open the batch in the journal; where it `applies` something, the try is counted before it begins."""
        epoch = self.dependencies.lease.epoch
        if epoch is None:
            raise Fenced

        def unit(connection: Connection) -> int:
            self.dependencies.lease.confirm(connection)
            if applies:
                queue.begin_attempt(connection, [erasure.id for erasure in part])
            step, now = "apply" if applies else "settle", self.dependencies.clock.now()
            return journal.open_batch(connection, epoch=epoch, step=step, size=len(part), now=now)

        return BatchRun(self.dependencies.database.transact(unit), part, lineage_state, stages)

    def _moves(self, lineage_state: LineageState) -> bool:
        """Whether the live version comes from another base than the next ones, or is to be made again."""
        return self.remake or lineage_state.live is None or lineage_state.live.base != self.base

    def _tries(self, lineage_state: LineageState, epochs: int | None) -> range:
        """The numbers of epochs to try, one after the other."""
        if epochs is not None:
            return range(epochs, epochs + 1)
        return range(self.dependencies.settings.fine_tune_max_epochs + 1 if self._moves(lineage_state) else 1)

    def _candidate(self, run: BatchRun, resolved: ResolvedBatch, tries: range) -> Candidate:
        """The first model with which the gate is satisfied."""
        engine = self.engine
        assert engine is not None
        for epochs in tries:
            if not self.dependencies.lease.held:
                raise Fenced
            metrics.fine_tune_epochs_total.inc(epochs)
            with run.stages.timed("applied"):
                result = _apply(engine, resolved, epochs)
            with run.stages.timed("gated"):
                report = engine.gate(resolved, result)
            _observe_gate(report)
            if report.passed:
                fault_point("worker.after_gate")
                return Candidate(result, report)
            log.warning("gate.refused", batch=run.id, epochs=epochs, reasons=list(report.reasons))
        self._step(run, lambda connection: self._came_back(connection, run, "hold"))
        facts = {"epochs": tries[-1], "figures": report.figures, "reasons": list(report.reasons)}
        raise Unlearnable(GATE_REFUSED, facts)

    def _publish(self, run: BatchRun, candidate: Candidate) -> Manifest:
        assert self.engine is not None
        with run.stages.timed("published"):
            stored = max(self.dependencies.store.numbers("versions"), default=0)

            def unit(connection: Connection) -> int:
                self._came_back(connection, run, "publish")
                return journal.reserve(connection, run.id, stored)

            number = run.version = self._step(run, unit)
            files = {EMBEDDINGS: self.engine.embeddings(candidate.result)}
            self.dependencies.store.publish(
                "versions", number, files, self._facts(run, candidate), on_step=_fault_of_step
            )
            return self.dependencies.store.verify("versions", number)

    def _facts(self, run: BatchRun, candidate: Candidate) -> ManifestFacts:
        assert self.engine is not None
        facts, figures = self.engine.facts(), candidate.report.figures
        made = {"fine_tune_epochs": candidate.result.fine_tune_epochs, "device": facts["device"]}
        return ManifestFacts(
            kind="forgotten",
            dataset_hash=facts["dataset_hash"],
            code_version=package_version(),
            seed=facts["seed"],
            created_at=self.dependencies.clock.now(),
            parent=self.engine.base,
            encoders=self.engine.encoders,
            requests=RequestFacts.of([*self.forget_set.ids, *run.ids]),
            config={"backbone": facts["backbone"], **made},
            # What the version serves was judged by the gate, on held-out interactions that remain.
            metrics={name: figures[name] for name in ("recall_at_20", "ndcg_at_20") if name in figures},
            gate=candidate.gate,
        )

    def _settle(self, run: BatchRun, made: Manifest | None) -> None:
        if made is not None:
            version: int | None = made.number
        elif self._moves(run.lineage_state):
            version = self.base
        else:
            version = None if run.lineage_state.live is None else run.lineage_state.live.version
        started = self.dependencies.clock.monotonic()

        def stages(erasure_id: str) -> Mapping[str, Any]:
            run.stages.lap("settled", self.dependencies.clock.monotonic() - started)
            return run.stages.of(erasure_id)

        settlement = Settlement(run.id, run.erasures, run.lineage_state, version, made, stages, self._covered(run))
        fault_point("worker.before_settle")
        self.dependencies.database.transact(
            lambda connection: settle(connection, self.dependencies.lease, settlement, self.dependencies.clock.now())
        )

    def _covered(self, run: BatchRun) -> int:
        """Everything accepted up to this seq is forgotten, or set aside, once the batch is settled."""
        return max([self.forget_set.seq, *(erasure.seq for erasure in run.erasures)])

    def _came_back(self, connection: Connection, run: BatchRun, step: str) -> None:
        """Journal the step after the unlearning one, whose tries are counted anew from here."""
        if not journal.enter(connection, run.id, step):
            raise Fenced
        queue.end_attempt(connection, run.ids)

    def _step(self, run: BatchRun, unit: Callable[[Connection], T]) -> T:
        def confirmed(connection: Connection) -> T:
            self.dependencies.lease.confirm(connection)
            return unit(connection)

        return self.dependencies.database.transact(confirmed)

    def _abandon(self, run: BatchRun, error: BaseException) -> None:
        """Leave nothing of a batch that came to nothing; what cannot be cleaned now is the sweeper's."""
        outcome = _outcome(error)
        metrics.worker_batches_total.labels(outcome).inc()

        def unit(connection: Connection) -> bool:
            # Where the answer to a commit was lost the batch may have settled: SQL knows, and waits for it here.
            journal.finish(connection, run.id, outcome, self.dependencies.clock.now())
            return run.version is not None and lineage.version(connection, run.version) is None

        with contextlib.suppress(Problem, StoreError):
            if self.dependencies.database.transact(unit) and run.version is not None:
                self.dependencies.store.purge("versions", run.version)

    def _still_accepted(self, part: Batch) -> Batch:
        statuses = self.dependencies.database.query(
            lambda connection: queue.statuses(connection, [erasure.id for erasure in part])
        )
        return tuple(erasure for erasure in part if statuses.get(erasure.id) == "accepted")


def _apply(engine: Engine, resolved: ResolvedBatch, epochs: int) -> ForgetResult:
    """One try of the science: whatever it raises is about the batch, not about the service around it."""
    fault_point("worker.during_apply")
    try:
        result = engine.apply(resolved, epochs)
    except EncoderMissing:
        raise
    except Exception as error:
        log.error("apply.failed", epochs=epochs, **error_facts(error))
        raise Unlearnable(UNLEARNING_FAILED, {"error": type(error).__name__}) from error
    fault_point("worker.after_apply")
    return result


def _outcome(error: BaseException) -> str:
    match error:
        case Unlearnable():
            return "held" if error.code == GATE_REFUSED else "failed"
        case BatchChanged():
            return "changed"
        case Fenced():
            return "fenced"
    return "abandoned"


def _observe_gate(report: GateReport) -> None:
    metrics.unlearn_gate_total.labels("passed" if report.passed else "refused").inc()
    for name, figure in report.figures.items():
        metrics.unlearn_gate_figure.labels(name).set(figure)


def _fault_of_step(step: str) -> None:
    fault_point("worker.after_publish" if step == "after_rename" else f"worker.{step}")
