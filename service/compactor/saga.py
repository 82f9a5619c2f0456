"""The saga of one compaction: step after step, each journalled before it begins, taken up where an earlier one died."""

import math
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final

import structlog
from sqlalchemy import Connection

from service.compaction import repository
from service.compaction.problems import CompactionCrashed, CompactionRefused
from service.compaction.repository import Compaction
from service.compaction.steps import BEFORE_MOVING, CompactionStatus, CompactionStep
from service.compactor import moving
from service.compactor.cleaning import clean_after
from service.compactor.erasing import ErasingSteps, version_before
from service.compactor.files import CompactionFiles
from service.compactor.jobs import (
    AttemptRefused,
    HopelessTraining,
    Trainer,
    TrainingDied,
    TrainingJob,
    TrainingTrouble,
)
from service.compactor.journal import RUNNING, CompactionJournal, CompactionOver
from service.interactions.service import Snapshot, dataset_hash, snapshot
from service.models import service as models
from service.models.problems import NoBase
from service.platform.faults import fault_point
from service.platform.logging import error_facts
from service.platform.problem import Problem
from service.worker.lease import Fenced, Lease
from service.worker.opening import WorkerDependencies
from service.worker.repository import lineage

ATTEMPTS = 2
"""With one more seed; after that a person is asked."""
PAUSE_FIRST_S, PAUSE_MOST_S = 1.0, 300.0

_AFTER: Final[dict[str, Callable[[], None]]] = {
    CompactionStep.SNAPSHOT: lambda: fault_point("compactor.after_snapshot"),
    CompactionStep.TRAINING: lambda: fault_point("compactor.after_training"),
    CompactionStep.GATING: lambda: fault_point("compactor.after_gating"),
    CompactionStep.PRETRAINING: lambda: fault_point("compactor.after_pretraining"),
    CompactionStep.MOVING: lambda: fault_point("compactor.after_moving"),
    CompactionStep.PURGING: lambda: fault_point("compactor.after_purging"),
    CompactionStep.SCANNING: lambda: fault_point("compactor.after_scanning"),
    CompactionStep.FINISHING: lambda: fault_point("compactor.after_finishing"),
}

log = structlog.get_logger()


ERRORS_ALLOWED = 2.0
"""Standard errors of the difference by which a new base may miss the least quality: each is measured on other pairs."""


def judge_quality(
    before: Mapping[str, Any], after: Mapping[str, Any], least: float
) -> tuple[bool, dict[str, float | None]]:
    """Whether a new base is good enough beside the old one, and by which figures.

    Args:
        before, after: metrics of their manifests: `ndcg_at_20`, and its standard error over people where it is known.
        least: share of the old NDCG@20 that the new one must reach, in (0, 1].
    """
    (old, old_error), (new, new_error) = (
        (float(each.get("ndcg_at_20") or 0.0), float(each.get("ndcg_at_20_error") or 0.0)) for each in (before, after)
    )
    allowed = ERRORS_ALLOWED * math.hypot(new_error, least * old_error)
    figures = {
        "limit": least,
        "ndcg_at_20_before": old,
        "ndcg_at_20_after": new,
        "ratio": new / old if old else None,
        "allowed_for_chance": allowed,
    }
    return new >= least * old - allowed, figures


class MovedAfterAll(Exception):
    """What was to be refused serves by now."""


class CompactorStopping(Exception):
    """The process is told to stop; the next one goes on."""


class CompactionSaga:
    """Runs compactions under the lease.

    Args:
        dependencies: settings, database, store, stream, clock.
        lease: held.
        stop: ends the work when set.
        trainer: does the trainings.
    """

    def __init__(self, dependencies: WorkerDependencies, lease: Lease, stop: threading.Event, trainer: Trainer) -> None:
        self.dependencies, self.lease, self.stop, self.trainer = dependencies, lease, stop, trainer

    def run(self, compaction_id: str) -> None:
        """Bring a compaction that waits or runs to its end, or as far as it goes until the stop."""
        try:
            self._run(CompactionJournal(self.dependencies, self.lease, compaction_id))
        finally:
            self.trainer.close()

    def _run(self, journal: CompactionJournal) -> None:
        begun, failures = False, 0
        while not self.stop.is_set() and self.lease.held:
            try:
                if not begun:
                    journal.begin()
                    begun = True
                self._go_on(journal)
            except (Fenced, CompactorStopping):
                return
            except MovedAfterAll:
                continue
            except CompactionOver:
                clean_after(self.dependencies, self.lease)
                return
            except Exception as error:  # the compactor outlives every failure: without it nothing is erased
                failures += 1
                self._note_failure(journal, error, failures)
                self.stop.wait(min(PAUSE_FIRST_S * 2 ** min(failures, 16), PAUSE_MOST_S))
            else:
                return

    def _go_on(self, journal: CompactionJournal) -> None:
        """Do what is left of it, from the step on that the journal names."""
        steps: dict[str, Callable[[CompactionJournal, Compaction], CompactionStep | None]] = {
            CompactionStep.SNAPSHOT: self._snapshot,
            CompactionStep.TRAINING: self._training,
            CompactionStep.GATING: self._gating,
            CompactionStep.PRETRAINING: self._pretraining,
            CompactionStep.MOVING: self._moving,
            CompactionStep.PURGING: self._purging,
            CompactionStep.SCANNING: self._scanning,
            CompactionStep.FINISHING: self._finishing,
        }
        while True:
            self._check()
            row = journal.read()
            try:
                following = steps[row.step](journal, row)
            except AttemptRefused as refusal:
                self._refuse(journal, row, refusal.facts)
                if row.attempt >= ATTEMPTS:
                    return
                continue
            except HopelessTraining as error:
                self._end_without_base(journal, CompactionStatus.FAILED, error.code)
                return
            _AFTER[row.step]()
            if following is None:
                return
            journal.enter(following)

    def _snapshot(self, journal: CompactionJournal, row: Compaction) -> CompactionStep:
        data = self._data(journal, row)
        unchanged = self.dependencies.database.query(lambda connection: _unchanged(connection, journal.id, data))
        if not unchanged:
            return CompactionStep.TRAINING
        # Nothing that serves was made from what is to be erased: what is left to do is to take away the rest.
        journal.transact(
            lambda connection, row, _now: repository.change(connection, journal.id, RUNNING, base_after=row.base_before)
        )
        return CompactionStep.PURGING

    def _training(self, journal: CompactionJournal, row: Compaction) -> CompactionStep:
        if row.base_after is None:
            self._data(journal, row)
            base = self._base(row.base_before)
            job = self._job("training", journal, row, recipe=base.manifest.get("config") or {})
            self._train(journal, CompactionStep.TRAINING, job, 0.0, 1.0)
        return CompactionStep.GATING

    def _gating(self, journal: CompactionJournal, row: Compaction) -> CompactionStep:
        before, after = self._base(row.base_before), self._base(row.base_after)
        passed, figures = judge_quality(
            before.manifest.get("metrics") or {},
            after.manifest.get("metrics") or {},
            self.dependencies.settings.compaction_min_quality,
        )
        if not passed:
            raise AttemptRefused({"reasons": ["quality"], **figures})
        journal.note_facts(gate=figures)
        return CompactionStep.PRETRAINING

    def _pretraining(self, journal: CompactionJournal, row: Compaction) -> CompactionStep:
        before, after = self._base(row.base_before), self._base(row.base_after)
        known: dict[str, int] = dict(before.manifest.get("encoders") or {})
        modes = sorted({"forget", *known})
        for place, mode in enumerate(modes):
            if mode in (after.manifest.get("encoders") or {}):
                continue
            recipe = self._encoder_recipe(known.get(mode))
            job = self._job("pretraining", journal, row, recipe=recipe, base=row.base_after, mode=mode)
            self._train(journal, CompactionStep.PRETRAINING, job, place / len(modes), 1 / len(modes))
        return CompactionStep.MOVING

    def _moving(self, journal: CompactionJournal, row: Compaction) -> CompactionStep:
        self.trainer.close()
        moving.point(journal)
        moving.wait(journal, self.dependencies, self._check, self.stop)
        return CompactionStep.PURGING

    def _purging(self, journal: CompactionJournal, row: Compaction) -> CompactionStep:
        self._erasing(journal).purge(row)
        return CompactionStep.SCANNING

    def _scanning(self, journal: CompactionJournal, row: Compaction) -> CompactionStep:
        self._erasing(journal).scan(row)
        return CompactionStep.FINISHING

    def _finishing(self, journal: CompactionJournal, row: Compaction) -> None:
        self._erasing(journal).finish(row)

    def _erasing(self, journal: CompactionJournal) -> ErasingSteps:
        return ErasingSteps(self.dependencies, self.lease, journal, self._check, self.stop)

    def _data(self, journal: CompactionJournal, row: Compaction) -> Snapshot:
        """The training data: those that were read, or read now where this machine has them not."""
        files = CompactionFiles(self.dependencies.settings.home, journal.id)
        data = files.load()
        if data is not None and data.seq == row.snapshot_seq:
            return data
        with self.dependencies.database.read() as connection:
            data = snapshot(connection)
        files.save(data)
        journal.transact(partial(self._mark, journal, data))
        fault_point("compactor.after_mark")
        return data

    def _mark(
        self, journal: CompactionJournal, data: Snapshot, connection: Connection, row: Compaction, now: datetime
    ) -> None:
        """Note which erasures it is to complete: those accepted by then, of which nothing is in the data."""
        base = repository.base_in_use(connection)
        if base is None:
            raise HopelessTraining(NoBase.code)
        count = repository.mark_erasures(connection, journal.id, data.seq)
        facts = {**row.facts, "dataset_hash": dataset_hash(data), "interactions": int(data.edges.size // 2)}
        facts["version_before"] = version_before(connection)
        values = {"snapshot_seq": data.seq, "base_before": base.version, "erasures": count, "facts": facts}
        repository.change(connection, journal.id, RUNNING, **values)
        body = {"base": base.version, "dataset_hash": facts["dataset_hash"], "erasures": count, "trigger": row.trigger}
        journal.tell(connection, "compaction.started", body, now)

    def _train(
        self, journal: CompactionJournal, step: CompactionStep, job: TrainingJob, done: float, part: float
    ) -> None:
        """Do a job, in as many tries as a batch of erasures has; one that came further begins to count anew."""
        tries, furthest = 0, -1.0
        while True:
            tries += 1
            reached = furthest

            def report(share: float, note: str) -> None:
                nonlocal reached
                reached = max(reached, share)
                journal.note_progress(step, done + part * share, note)

            try:
                self.trainer.run(job, report, partial(self._look, journal))
                return
            except TrainingDied:
                if reached > furthest:
                    tries, furthest = 1, reached
                if tries >= self.dependencies.settings.max_attempts:
                    raise HopelessTraining(CompactionCrashed.code) from None
                self.stop.wait(PAUSE_FIRST_S)

    def _job(self, kind: Any, journal: CompactionJournal, row: Compaction, **given: Any) -> TrainingJob:
        epoch = self.lease.epoch
        if epoch is None:
            raise Fenced
        return TrainingJob(kind, journal.id, epoch, row.attempt, **given)

    def _refuse(self, journal: CompactionJournal, row: Compaction, facts: dict[str, Any]) -> None:
        """Take the attempt's base away, and try once more with another seed, or ask for a person."""
        told = {"attempt": row.attempt, **facts}
        log.error("compaction.refused", compaction=journal.id, attempt=row.attempt, reasons=facts.get("reasons"))
        if row.attempt >= ATTEMPTS:
            self._end_without_base(journal, CompactionStatus.REFUSED, CompactionRefused.code, told)
            return

        def unit(connection: Connection, row: Compaction) -> None:
            self._drop_base(connection, row)
            facts = {**row.facts, "attempts": [*row.facts.get("attempts", ()), told]}
            values = {"attempt": row.attempt + 1, "base_after": None, "facts": facts}
            repository.change(connection, journal.id, RUNNING, **values)
            journal.tell(connection, "compaction.attempt_refused", told, self.dependencies.clock.now())

        journal.enter(CompactionStep.TRAINING, unit)
        clean_after(self.dependencies, self.lease)

    def _end_without_base(
        self, journal: CompactionJournal, status: CompactionStatus, code: str, told: dict[str, Any] | None = None
    ) -> None:
        def unit(connection: Connection, row: Compaction, _now: datetime) -> dict[str, Any]:
            self._drop_base(connection, row)
            if told is not None:
                facts = {**row.facts, "attempts": [*row.facts.get("attempts", ()), told]}
                repository.change(connection, journal.id, RUNNING, facts=facts)
            return told or {}

        journal.end(status, code, unit)
        clean_after(self.dependencies, self.lease)

    def _drop_base(self, connection: Connection, row: Compaction) -> None:
        """Have versions come from the old base again, where they did from the new one, which may not serve any more."""
        if row.base_after is None or row.base_after == row.base_before:
            return
        live = lineage.read_state(connection).live
        if live is not None and live.base == row.base_after:
            raise MovedAfterAll
        if lineage.alias(connection, lineage.BASE) == row.base_after and row.base_before is not None:
            lineage.point_base(connection, row.base_before, self.dependencies.clock.now())
        models.mark_purged(connection, row.base_after)

    def _base(self, number: int | None) -> lineage.LineageVersion:
        row = (
            None
            if number is None
            else self.dependencies.database.query(lambda connection: lineage.version(connection, number))
        )
        if row is None:
            raise HopelessTraining(NoBase.code)
        return row

    def _encoder_recipe(self, number: int | None) -> dict[str, Any]:
        if number is None:
            return {}
        facts = self.dependencies.store.manifest("encoders", number).facts
        return dict(facts.config.get("pretraining") or {})

    def _look(self, journal: CompactionJournal) -> None:
        self._check()
        journal.read()

    def _check(self) -> None:
        if self.stop.is_set():
            raise CompactorStopping
        if not self.lease.held:
            raise Fenced
        if self.dependencies.integrity is not None:
            self.dependencies.integrity.ensure()

    def _note_failure(self, journal: CompactionJournal, error: Exception, failures: int) -> None:
        match error:
            case Problem() | TrainingTrouble():
                code = error.code
            case _:
                code = f"compactor_failing:{type(error).__name__}"[:64]
        log.error("compaction.step_failed", compaction=journal.id, failures=failures, **error_facts(error))
        try:
            row = journal.read()
            # Before anything has moved, giving up costs nothing but time; after it, it goes on until it is done.
            defect = not isinstance(error, Problem | TrainingTrouble | OSError)
            if defect and row.step in BEFORE_MOVING and failures >= self.dependencies.settings.max_attempts:
                self._end_without_base(journal, CompactionStatus.FAILED, CompactionCrashed.code)
            else:
                journal.note_problem(code)
        except (CompactionOver, Fenced, Problem):
            return


def _unchanged(connection: Connection, compaction_id: str, data: Snapshot) -> bool:
    """Whether live comes from a base that was trained on exactly these data, and never learnt what is to be erased."""
    state = lineage.read_state(connection)
    base, wanted = state.base, lineage.wanted_base(connection)
    if base is None or state.live is None or wanted != base.version or state.live.base != base.version:
        return False
    if base.manifest.get("dataset_hash") != dataset_hash(data):
        return False
    config = base.manifest.get("config") or {}
    seq = int(config.get("snapshot_seq", base.erasure_seq))
    # The same pairs again after a consent: they were in the base that was erased from, and are in this one.
    return repository.count_learnt(connection, compaction_id, seq) == 0
