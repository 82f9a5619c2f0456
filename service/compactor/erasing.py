"""The steps after live has moved: purge what was erased, search for what is left, and only then call it erased."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import structlog
from sqlalchemy import Connection

from model_store import ModelStore
from service.audit import service as audit
from service.audit.service import AuditEvent
from service.compaction import repository
from service.compaction.problems import ResiduePresent
from service.compaction.repository import Compaction
from service.compaction.steps import CompactionStatus, CompactionStep
from service.compactor.files import CompactionFiles, evidence_file, needles_file
from service.compactor.journal import RUNNING, CompactionJournal
from service.evidence import repository as evidence_repository
from service.evidence.document import CompactionFacts, ErasureEvidence, evidence
from service.evidence.preparing import PreparedEvidence, prepare
from service.interactions.service import Snapshot
from service.models import service as models
from service.platform.faults import fault_point
from service.platform.identity import Identity
from service.purge.purge import STEPS as PURGE_STEPS
from service.purge.purge import Purge, PurgeScope, scope
from service.purge.report import PurgeReport
from service.residue.needles import Needles
from service.residue.report import ResidueReport, ResidueStore
from service.residue.scan import ResidueScan
from service.worker.lease import Lease
from service.worker.opening import WorkerDependencies
from service.worker.repository import lineage

PAUSE_FIRST_S, PAUSE_MOST_S = 2.0, 600.0
HARD_FROM = 2
"""The purge that writes pages anew, which locks out others meanwhile, comes where the gentle one was not enough."""
TOGETHER = 200
"""Erasures that end in one transaction: acceptances wait for each."""

log = structlog.get_logger()


class ErasingSteps:
    """Purging, scanning and finishing of one compaction, each of which may be done again from its beginning.

    Args:
        dependencies: settings, database, store, stream, clock, identity.
        lease: held.
        journal: of the compaction.
        check: raises where it is to be left.
        stop: ends pauses when set.
    """

    def __init__(
        self,
        dependencies: WorkerDependencies,
        lease: Lease,
        journal: CompactionJournal,
        check: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self._dependencies, self._lease, self._journal = dependencies, lease, journal
        self._check, self._stop = check, stop
        home = dependencies.settings.home
        self._needles, self._evidence = needles_file(home, journal.id), evidence_file(home, journal.id)

    def purge(self, row: Compaction) -> None:
        """Take away what was erased, and all that was made from it."""
        self._journal.transact(
            lambda connection, _row, _now: repository.leave_unforgotten(connection, self._journal.id)
        )
        wanted = self._scope(row)
        self._gather(wanted)
        fault_point("compactor.after_gather")
        self._purge(wanted, hard=False)

    def scan(self, row: Compaction) -> None:
        """Search for what is left, and purge again until nothing is."""
        wanted, rounds = self._purged(row), 0
        if not wanted.erasures or self._is_clean(row):
            Needles.destroy(self._needles)
            return
        while True:
            self._check()
            self._gather(wanted)
            report = self._search(Needles.load(self._needles))
            left = _left_of(report, wanted.erasures)
            self._journal.note_facts(residue=report.as_dict() | {"left_of": len(left)})
            if not left:
                self._journal.note_problem(None)
                Needles.destroy(self._needles)
                return
            self._journal.note_problem(ResiduePresent.code)
            log.error("compaction.residue", compaction=self._journal.id, erasures=len(left))
            self._pause(min(PAUSE_FIRST_S * 2**rounds, PAUSE_MOST_S))
            rounds += 1
            self._purge(wanted, hard=rounds >= HARD_FROM)

    def finish(self, row: Compaction) -> None:
        """Make its erasures erased, with their evidence, then end it."""
        wanted = self._purged(row)
        prepared = self._prepare(wanted) if wanted.erasures else None
        facts = self._facts(row)
        for start in range(0, len(wanted.erasures), TOGETHER):
            assert prepared is not None
            part = wanted.erasures[start : start + TOGETHER]
            proven = {erasure: evidence(erasure, facts, prepared) for erasure in part}
            self._journal.transact(partial(self._end_erasures, proven, facts.version_after))
            fault_point("compactor.after_part_erased")
        self._journal.end(CompactionStatus.DONE, unit=self._done)
        self._evidence.unlink(missing_ok=True)
        if self._dependencies.integrity is not None:
            # What has ended is marked in the store: a database that does not know it was restored.
            self._dependencies.integrity.look()

    def _end_erasures(
        self,
        proven: dict[str, ErasureEvidence],
        version: int | None,
        connection: Connection,
        row: Compaction,
        now: datetime,
    ) -> None:
        # What was put under hold or decided meanwhile is passed over: it is not erased, and said to be nothing else.
        ids = repository.mark_erased(connection, self._journal.id, list(proven), now)
        evidence_repository.store(connection, {each: proven[each].text for each in ids})
        if ids:
            entries = [AuditEvent("erasure.erased", proven[each].entry, each, version) for each in ids]
            audit.write(connection, audit.reserve(connection, len(ids)), entries, now)

    def _done(self, connection: Connection, row: Compaction, _now: datetime) -> dict[str, Any]:
        count = repository.count_erased(connection, self._journal.id)
        repository.change(connection, self._journal.id, RUNNING, erasures=count)
        facts = {"base_before": row.base_before, "base_after": row.base_after, "erasures": count}
        return facts | {"dataset_hash": row.facts.get("dataset_hash")}

    def _scope(self, row: Compaction) -> PurgeScope:
        assert row.base_after is not None
        base = row.base_after
        return self._dependencies.database.query(lambda connection: scope(connection, self._journal.id, base))

    def _purged(self, row: Compaction) -> PurgeScope:
        """Those that were purged: what was put under hold before stays as it is, whenever the hold is lifted."""
        assert row.base_after is not None
        ids = self._dependencies.database.query(
            lambda connection: repository.purged_erasures(connection, self._journal.id)
        )
        return PurgeScope(self._journal.id, row.base_after, tuple(ids))

    def _gather(self, wanted: PurgeScope) -> None:
        """Keep what is to be searched for, and the proofs of absence, before it is purged; once is enough."""
        if not wanted.erasures:
            return
        self._prepare(wanted)
        if self._needles.exists():
            return
        with self._dependencies.database.read() as connection:
            found = Needles.gather(connection, self._dependencies.store, self._identity, wanted.erasures)
        found.save(self._needles)

    def _prepare(self, wanted: PurgeScope) -> PreparedEvidence:
        store = self._dependencies.store
        manifest = store.manifest("versions", wanted.base)
        data = CompactionFiles(self._dependencies.settings.home, self._journal.id).load()
        with self._dependencies.database.read() as connection:
            return prepare(
                connection,
                self._identity,
                self._evidence,
                base=wanted.base,
                dataset_hash=manifest.facts.dataset_hash,
                data=data or training_data(store, wanted.base),
                erasure_ids=wanted.erasures,
            )

    def _purge(self, wanted: PurgeScope, *, hard: bool) -> PurgeReport:
        dependencies = self._dependencies

        def confirm(connection: Connection) -> None:
            audit.reserve(connection, 0)
            self._lease.confirm(connection)

        def on_step(name: str) -> None:
            self._check()
            place = PURGE_STEPS.index(name) if name in PURGE_STEPS else 0
            self._journal.note_progress(CompactionStep.PURGING, place / len(PURGE_STEPS), name)

        report = Purge(
            dependencies.database,
            dependencies.store,
            dependencies.stream,
            dependencies.settings,
            dependencies.clock,
            confirm,
            on_step,
        ).run(wanted, hard=hard)
        self._journal.note_facts(purge=report.as_dict())
        return report

    def _search(self, needles: Needles) -> ResidueReport:
        dependencies = self._dependencies
        scan = ResidueScan(
            dependencies.database, dependencies.store, dependencies.stream, dependencies.settings, dependencies.clock
        )
        stores = list(ResidueStore)

        def progress(store: ResidueStore, _bytes: int) -> None:
            self._journal.note_progress(CompactionStep.SCANNING, stores.index(store) / len(stores), store.value)

        return scan.run(needles, progress)

    def _facts(self, row: Compaction) -> CompactionFacts:
        assert row.base_after is not None
        live = self._dependencies.database.query(models.live)
        return CompactionFacts(
            compaction=self._journal.id,
            base_before=row.base_before,
            base_after=row.base_after,
            version_before=row.facts.get("version_before"),
            version_after=live,
            purge=row.facts.get("purge") or {},
            search=row.facts.get("residue") or {},
            steps=row.steps,
            gate=row.facts.get("gate"),
        )

    def _is_clean(self, row: Compaction) -> bool:
        """Whether the search found nothing before this process took over: the needles may be gone by then."""
        return (row.facts.get("residue") or {}).get("left_of") == 0 and not self._needles.exists()

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds)
        self._check()

    @property
    def _identity(self) -> Identity:
        assert self._dependencies.identity is not None
        return self._dependencies.identity


def training_data(store: ModelStore, base: int) -> Snapshot:
    """What a base was trained on, from its files: its edges and those it held out."""
    tensors, embeddings = (
        store.open("versions", base, "base.safetensors"),
        store.open("versions", base, "embeddings.safetensors"),
    )
    user_keys, item_keys = (np.array(embeddings[name]) for name in ("user_keys", "item_keys"))
    edges = np.concatenate([np.asarray(tensors[name]).reshape(2, -1) for name in ("edges", "validation")], axis=1)
    order = np.argsort(edges[0].astype(np.int64) * max(len(item_keys), 1) + edges[1])
    return Snapshot(user_keys, item_keys, edges[:, order].astype(np.int32), -1)


def version_before(connection: Connection) -> int | None:
    """The version that answers when a compaction begins."""
    return lineage.alias(connection, lineage.LIVE)


def _left_of(report: ResidueReport, erasures: Sequence[str]) -> set[str]:
    """The erasures of which something is left in any store."""
    return {each for store in report.stores for place in store.places for each in place.erasures} & {*erasures}
