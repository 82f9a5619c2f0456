"""A database that went back in time, cleaned from the ledger: what was accepted since is stored again.

Each step may be repeated: a process that dies in the middle leaves what the next one goes on from, and the database
answers nobody before all of it is done.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection

from model_store import Damaged, LedgerRecord, ModelStore, StoreError
from model_store.erasure_ledger import FORK
from service.audit import service as audit
from service.audit.service import AuditEvent
from service.erasures import ledger_repository, repository
from service.erasures.ledger_keeping import append_missing
from service.erasures.ledger_repository import ACCEPTED, CANCELLED
from service.erasures.redoing import DecisionRecords, gather, redo, replayed
from service.erasures.targets import EVERY, Target, TargetKind
from service.models import service as models
from service.platform import metrics
from service.platform.clock import Clock, rfc3339
from service.platform.database import Database
from service.platform.faults import fault_point
from service.platform.integrity import CannotReplay, position, raise_watermark, unknown_versions

CHUNK_RECORDS, CHUNK_TARGETS = 100, 10_000
RESTORED = "log.restored"

log = structlog.get_logger()


@dataclass(frozen=True)
class _Survey:
    """What the whole ledger says: its last record, the last that the log has, too, what was cancelled and decided."""

    last: LedgerRecord
    common: LedgerRecord | None
    cancelled: frozenset[str]
    decided: Mapping[str, DecisionRecords]


class LedgerReplay:
    """Stores again, under their own ids, the erasures that the ledger knows and the database lacks.

    Args:
        database: the one that went back in time; it refuses its units meanwhile.
        store: holds the ledger and the watermark, which agree with the database afterwards.
        clock: says when.
    """

    def __init__(self, database: Database, store: ModelStore, clock: Clock) -> None:
        self._database, self._store, self._clock = database, store, clock

    def __call__(self, stopping: Callable[[], bool]) -> int | None:
        """Replay; returns how many erasures were stored again or cancelled.

        None where another process is at it, or where `stopping` says to end.

        Raises:
            CannotReplay: the ledger does not tell all that is missing.
            StoreError: it is damaged, or the store cannot be written.
            Problem: the database does not answer.
        """
        with self._store.ledger.writing() as held:
            if not held:
                return None
            survey = self._survey()
            count = 0
            for chunk in _chunks(self._store.ledger.records()):
                if stopping():
                    return None
                unit = partial(_replay, records=chunk, cancelled=survey.cancelled, at=self._clock.now())
                count += self._database.transact(unit)
                fault_point("replay.chunk")
            count += self._database.transact(partial(redo, records=survey.decided, at=self._clock.now()))
            self._retire_unknown()
            self._agree(survey)
        metrics.erasures_replayed_total.inc(count)
        log.warning("database.replayed", erasures=count)
        return count

    def trust(self) -> None:
        """Have ledger and watermark go on from the database as it stands, with nothing stored again.

        A ledger that cannot be read is set aside, and written anew from the database.

        Raises:
            CannotReplay: a process that runs is writing the ledger.
            StoreError: the store cannot be written.
        """
        with self._store.ledger.writing() as held:
            if not held:
                raise CannotReplay("The ledger is being written. Stop the service first.")
            try:
                survey, _ = self._read_through()
                if survey is not None:
                    self._store.ledger.append([_fork(survey.common, self._clock.now())])
            except Damaged:
                self._store.ledger.set_aside()
        raise_watermark(self._database, self._store, anew=True)

    def _survey(self) -> _Survey:
        mark = self._store.markers.watermark()
        if self._database.query(ledger_repository.log_size) is None:
            raise CannotReplay("The database has no schema.")
        if self._database.query(ledger_repository.is_empty):
            raise CannotReplay("The database is a new one, with nothing in it to clean.")
        survey, told = self._read_through("" if mark is None else mark.erasure)
        if survey is None:
            raise CannotReplay("There is no ledger in the model store.")
        if not told:
            raise CannotReplay("The ledger ends before the last erasure that the watermark tells of.")
        return survey

    def _read_through(self, wanted: str = "") -> tuple[_Survey | None, bool]:
        """What the ledger says, None where it is empty, and whether it has a record of the entry with this hash."""
        last: LedgerRecord | None = None
        common: LedgerRecord | None = None
        cancelled = set()
        decided: dict[str, DecisionRecords] = {}
        told = wanted == ""
        for part in _parts(self._store.ledger.records(), repository.IN_CHUNK):
            entries = [(record.seq, record.leaf) for record in part]
            place = self._database.query(partial(ledger_repository.common, entries=entries))
            last = part[-1]
            common = common if place is None else part[place]
            cancelled |= {str(record.facts["erasure_id"]) for record in part if record.event == CANCELLED}
            for record in part:
                gather(decided, record)
            told = told or any(record.leaf == wanted for record in part)
        return None if last is None else _Survey(last, common, frozenset(cancelled), decided), told

    def _retire_unknown(self) -> None:
        """Have versions that the database never knew serve nobody: their numbers are taken, their bytes go in time."""
        for number in unknown_versions(self._database, self._store):
            try:
                manifest = self._store.manifest("versions", number)
            except StoreError:  # nothing can be told of it
                self._store.withdraw("versions", [number])
                continue
            self._database.transact(partial(models.retire_unknown, manifest=manifest, at=self._clock.now()))
            log.warning("version.retired", version=number)

    def _agree(self, survey: _Survey) -> None:
        """Have ledger and watermark go on from the database as it is now."""
        seq = 0 if survey.common is None else survey.common.seq
        at = self._clock.now()
        body = {"common": seq, "record": survey.last.number}
        self._database.transact(partial(_tell_restored, body=body, at=at))
        fault_point("replay.before_ledger")
        head = self._database.query(position)
        self._store.ledger.append([_fork(survey.common, at) | {"head_leaf": head.leaf, "head_seq": head.entries}])
        fault_point("replay.after_fork")
        # From the last common entry on: what the log has since, what was stored again among it.
        append_missing(self._database, self._store.ledger)
        fault_point("replay.before_watermark")
        raise_watermark(self._database, self._store, anew=True)


def _replay(connection: Connection, records: Sequence[LedgerRecord], cancelled: frozenset[str], at: datetime) -> int:
    """The unit of work of some records; returns how many of them changed something."""
    audit.reserve(connection, 0)
    count = 0
    for record in records:
        erasure_id = str(record.facts["erasure_id"])
        known = repository.status_of(connection, erasure_id)
        if record.event == ACCEPTED and known is None and "commitment" in record.facts:
            _accept_again(connection, record, erasure_id in cancelled, at)
            count += 1
        elif record.event == CANCELLED and known == "accepted" and repository.cancel(connection, erasure_id, at):
            erasure = repository.find(connection, erasure_id)
            assert erasure is not None
            _write(connection, record, at, [_cancelled(erasure_id, erasure.commitment, erasure.mode)])
            count += 1
    return count


def _accept_again(connection: Connection, record: LedgerRecord, cancelled: bool, at: datetime) -> None:
    facts = record.facts
    erasure_id, commitment, mode = str(facts["erasure_id"]), str(facts["commitment"]), str(facts["mode"])
    targets = [_target(bytes.fromhex(user), bytes.fromhex(item)) for user, item in facts["targets"]]
    received_at = datetime.fromisoformat(facts["received_at"])
    found = repository.look_up(connection, targets)
    row = {
        "id": erasure_id,
        "seq": audit.reserve(connection, 0),  # of the entry that `_write` adds first
        "status": "accepted",
        "mode": mode,
        "reason": None,
        "requested": facts["requested"],
        "matched": found.matched or 0,
        "commitment": commitment,
        "salt": None,
        "received_at": received_at,
        "due_at": datetime.fromisoformat(facts["due_at"]),
        "attempts": 0,
        "stages": {"accepted": {"at": facts["received_at"], "seconds": 0.0}},
        "key_id": facts["key_id"],
        "owner": facts["owner"],
    }
    repository.insert_erasure(connection, row)
    if targets:
        repository.insert_targets(connection, erasure_id, found.rows)
        repository.suppress(connection, erasure_id, targets, received_at)
    matched = repository.count_matched(connection, erasure_id) if found.matched is None else found.matched
    counts = {f"{kind}s": sum(target.kind is kind for target in targets) for kind in TargetKind}
    body = {
        "commitment": commitment,
        "matched": matched,
        "mode": mode,
        "requested": facts["requested"],
        "targets": counts,
    }
    events = [AuditEvent(ACCEPTED, body, erasure_id)]
    if cancelled:
        repository.cancel(connection, erasure_id, at)
        events.append(_cancelled(erasure_id, commitment, mode))
    _write(connection, record, at, events)


def _write(connection: Connection, record: LedgerRecord, at: datetime, events: Sequence[AuditEvent]) -> None:
    """Write what happened to an erasure, and the ledger's record that it was taken from."""
    told = [*events, replayed(record)]
    audit.write(connection, audit.reserve(connection, len(told)), told, at)


def _cancelled(erasure_id: str, commitment: str, mode: str) -> AuditEvent:
    return AuditEvent(CANCELLED, {"commitment": commitment, "mode": mode}, erasure_id)


def _fork(common: LedgerRecord | None, at: datetime) -> dict[str, Any]:
    """The record that says from which entry the database's log goes on, the last one that both have."""
    seq, leaf = (0, "") if common is None else (common.seq, common.leaf)
    return {"at": rfc3339(at), "event": FORK, "leaf": leaf, "seq": seq}


def _tell_restored(connection: Connection, body: dict[str, Any], at: datetime) -> None:
    audit.write(connection, audit.reserve(connection), [AuditEvent(RESTORED, body)], at)


def _target(user: bytes, item: bytes) -> Target:
    kind = TargetKind.USER if item == EVERY else TargetKind.ITEM if user == EVERY else TargetKind.INTERACTION
    return Target(kind, user, item)


def _chunks(records: Iterable[LedgerRecord]) -> Iterator[list[LedgerRecord]]:
    """Records that may have to be replayed, as many together as one transaction takes."""
    chunk: list[LedgerRecord] = []
    targets = 0
    for record in records:
        if record.event not in (ACCEPTED, CANCELLED):
            continue
        chunk.append(record)
        targets += len(record.facts.get("targets", ()))
        if len(chunk) >= CHUNK_RECORDS or targets >= CHUNK_TARGETS:
            yield chunk
            chunk, targets = [], 0
    if chunk:
        yield chunk


def _parts(records: Iterable[LedgerRecord], size: int) -> Iterator[list[LedgerRecord]]:
    part: list[LedgerRecord] = []
    for record in records:
        part.append(record)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
