"""What people decided about an erasure, done again in a restored database: extensions, refusals, legal holds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from model_store import LedgerRecord
from service.audit import service as audit
from service.audit.service import AuditEvent
from service.erasures import approval, decision_repository, repository
from service.erasures.grounds import ExtensionGround, RefusalGround
from service.erasures.problems import UnderLegalHold
from service.erasures.repository import Erasure

EXTENDED, REFUSED, PARTIAL = "erasure.extended", "erasure.refused", "erasure.refused_in_part"
HOLD_SET, HOLD_LIFTED = "erasure.hold_set", "erasure.hold_lifted"
REPLAYED = "erasure.replayed"


@dataclass(frozen=True)
class DecisionRecords:
    """The latest record of each kind about one erasure.

    `approval` is of its being awaited or given, `hold` of its setting or of its lifting.
    """

    approval: LedgerRecord | None = None
    extension: LedgerRecord | None = None
    decision: LedgerRecord | None = None
    hold: LedgerRecord | None = None


def gather(found: dict[str, DecisionRecords], record: LedgerRecord) -> None:
    """Add a record to what is known; one about something else changes nothing."""
    name = {
        approval.AWAITED: "approval",
        approval.APPROVED: "approval",
        EXTENDED: "extension",
        REFUSED: "decision",
        PARTIAL: "decision",
        HOLD_SET: "hold",
        HOLD_LIFTED: "hold",
    }.get(record.event)
    if name is not None:
        erasure_id = str(record.facts["erasure_id"])
        found[erasure_id] = replace(found.get(erasure_id, DecisionRecords()), **{name: record})


def redo(connection: Connection, records: Mapping[str, DecisionRecords], at: datetime) -> int:
    """Bring erasures to where the ledger says that people had brought them; returns how many that changed."""
    audit.reserve(connection, 0)
    count = 0
    for erasure_id, wanted in records.items():
        erasure = repository.find(connection, erasure_id)
        if erasure is None or erasure.status in ("cancelled", "erased"):
            continue
        # Approval first: a hold on what awaits it is another one.
        steps = (
            (wanted.approval, _approve),
            (wanted.extension, _extend),
            (wanted.decision, _decide),
            (wanted.hold, _hold),
        )
        done = [
            step(connection, repository.find(connection, erasure_id) or erasure, record, at)
            for record, step in steps
            if record is not None
        ]
        count += any(done)
    return count


def replayed(record: LedgerRecord) -> AuditEvent:
    """The entry that names the record which something was done again by."""
    body = {"record": record.number, "recorded_at": record.facts["at"], "seal": record.seal}
    return AuditEvent(REPLAYED, body, str(record.facts["erasure_id"]))


def _approve(connection: Connection, erasure: Erasure, record: LedgerRecord, at: datetime) -> bool:
    if record.event == approval.AWAITED and erasure.status == "accepted":
        repository.await_approval(connection, erasure.id)
        entries = approval.awaited(erasure.id, erasure.matched, repository.count_recorded(connection))
        return _write(connection, record, at, entries)
    if record.event == approval.APPROVED and erasure.awaits_approval:
        repository.approve(connection, erasure.id, audit.size(connection) + 1, at)
        return _write(connection, record, at, approval.approved(erasure.id, erasure.key_id, None))
    return False


def _extend(connection: Connection, erasure: Erasure, record: LedgerRecord, at: datetime) -> bool:
    if erasure.extended_at is not None:
        return False
    body = record.facts["body"]
    ground = None if body["ground"] is None else ExtensionGround(body["ground"])
    until = datetime.fromisoformat(body["until"])
    decision_repository.extend(connection, erasure.id, until, ground, "", _when(record))
    return _write(connection, record, at, [AuditEvent(EXTENDED, body, erasure.id)])


def _decide(connection: Connection, erasure: Erasure, record: LedgerRecord, at: datetime) -> bool:
    if erasure.decision is not None:
        return False
    ground = RefusalGround(record.facts["body"]["ground"])
    if record.event == PARTIAL:
        # The worker forgets it once more; what was to be kept of it afterwards is kept.
        decision_repository.refuse_rest(connection, erasure.id, ground, _when(record))
    elif erasure.status in ("accepted", "needs_attention"):
        decision_repository.refuse(connection, erasure.id, ground, _when(record))
    else:
        return False
    return _write(connection, record, at, [AuditEvent(record.event, {"ground": ground.value}, erasure.id)])


def _hold(connection: Connection, erasure: Erasure, record: LedgerRecord, at: datetime) -> bool:
    status = repository.status_of(connection, erasure.id)  # a refusal may have moved it since
    if (record.event == HOLD_SET) is (erasure.held_since is not None):
        return False
    entries = [AuditEvent(record.event, {}, erasure.id)]
    if record.event == HOLD_SET:
        aside = status in ("accepted", "needs_attention") and not erasure.awaits_approval
        decision_repository.hold(connection, erasure.id, _when(record), set_aside=aside)
        if aside:
            entries.append(AuditEvent("erasure.needs_attention", {"code": UnderLegalHold.code}, erasure.id))
    else:
        assert erasure.held_since is not None
        decision_repository.lift(connection, erasure.id)
        late = decision_repository.forgotten_since(connection, erasure.held_since)
        decision_repository.forget_interactions(connection, late)
        if status == "needs_attention" and not erasure.awaits_approval:
            decision_repository.accept_again(connection, erasure.id, audit.size(connection) + 2, at)
            entries.append(AuditEvent("erasure.accepted_again", {}, erasure.id))
    return _write(connection, record, at, entries)


def _write(connection: Connection, record: LedgerRecord, at: datetime, entries: list[AuditEvent]) -> bool:
    told = [*entries, replayed(record)]
    audit.write(connection, audit.reserve(connection, len(told)), told, at)
    return True


def _when(record: LedgerRecord) -> datetime:
    return datetime.fromisoformat(record.facts["at"])
