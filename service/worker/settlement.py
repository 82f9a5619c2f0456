"""The one transaction in which a batch of erasures becomes forgotten, or is held back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from model_store import Manifest
from service.audit import service as audit
from service.audit.service import AuditEvent
from service.erasures.decision_repository import forget_interactions
from service.erasures.modes import Mode
from service.models import service as models
from service.worker.lease import Lease
from service.worker.repository import journal, lineage, queue
from service.worker.repository.lineage import LineageState
from service.worker.repository.queue import QueuedErasure


class BatchChanged(Exception):
    """While the batch ran, one of its erasures was cancelled or the models were moved: it is done anew."""


@dataclass(frozen=True)
class Settlement:
    """What a batch comes to.

    `lineage_state`: where the models stood when the batch was claimed. `version`: the one that has forgotten all of it,
    None where no model exists. `made`: its manifest where the batch made it. `stages`: gives an erasure's stages by its
    id. `seq`: everything accepted up to it is forgotten, or set aside, once the batch is settled.
    """

    batch_id: int
    erasures: Sequence[QueuedErasure]
    lineage_state: LineageState
    version: int | None
    made: Manifest | None
    stages: Callable[[str], Mapping[str, Any]]
    seq: int

    @property
    def before(self) -> int | None:
        """The version that answered when the batch was claimed."""
        return None if self.lineage_state.live is None else self.lineage_state.live.version


def settle(connection: Connection, lease: Lease, settlement: Settlement, now: datetime) -> None:
    """Make the batch's erasures forgotten and its version live, both or neither.

    Raises:
        Fenced: another worker has taken over.
        Changed: an erasure is accepted no more, or the models stand elsewhere.
    """
    audit.reserve(connection, 0)  # locked first by every transition, so that none waits for another in a circle
    lease.confirm(connection)
    if _numbers(lineage.read_state(connection)) != _numbers(settlement.lineage_state):
        raise BatchChanged
    if not journal.finish(connection, settlement.batch_id, "settled", now):
        raise BatchChanged
    if settlement.made is not None:
        models.register(connection, settlement.made, erasure_seq=settlement.seq, at=now)
    rows = [_row(settlement, erasure, now) for erasure in settlement.erasures]
    if queue.mark_forgotten(connection, rows) != len(rows):
        raise BatchChanged
    forget_interactions(connection, [erasure.id for erasure in settlement.erasures])
    if settlement.version is not None:
        lineage.cover(connection, settlement.version, settlement.seq)
        models.move_alias(connection, models.LIVE, settlement.version, now, fenced=False)
    if settlement.erasures:
        first = audit.reserve(connection, len(settlement.erasures))
        audit.write(connection, first, [_entry(settlement, erasure) for erasure in settlement.erasures], now)


def hold(
    connection: Connection, lease: Lease, batch_id: int, ids: Sequence[str], reason: AuditEvent, now: datetime
) -> None:
    """Hold erasures back: they stay suppressed, the old version serves, an operator must look.

    `reason` is the audit entry without its erasure id; its body has `code`.
    """
    audit.reserve(connection, 0)
    lease.confirm(connection)
    code = str(reason.body["code"])
    held = [each for each in ids if queue.mark_needs_attention(connection, each, code, batch_id)]
    journal.finish(connection, batch_id, "held", now)
    if held:
        first = audit.reserve(connection, len(held))
        audit.write(connection, first, [AuditEvent(reason.event, reason.body, each) for each in held], now)


def accept_again(connection: Connection, ids: Sequence[str], now: datetime) -> list[str]:
    """Put erasures that need attention back into the queue; returns those that did.

    Each goes to the queue's end under a new seq: versions cover prefixes of the seqs, and those that went by without it
    must not count as having forgotten it.
    """
    again = []
    for erasure_id in ids:
        seq = audit.reserve(connection, 0)
        if queue.accept_again(connection, erasure_id, seq):
            audit.write(
                connection, audit.reserve(connection), [AuditEvent("erasure.accepted_again", {}, erasure_id)], now
            )
            again.append(erasure_id)
    return again


def _numbers(lineage_state: LineageState) -> tuple[int | None, int | None]:
    live, base = lineage_state
    return None if live is None else live.version, None if base is None else base.version


def _concerned(settlement: Settlement, erasure: QueuedErasure) -> bool:
    """Whether the settled version has anything to do with an erasure: one that matched nothing changed no model.

    But for a dislike of what was forgotten before, which alone can have a version made without matching anything.
    """
    if erasure.matched:
        return True
    alone = settlement.made is not None and not any(other.matched for other in settlement.erasures)
    return alone and erasure.mode == Mode.DISLIKE


def _row(settlement: Settlement, erasure: QueuedErasure, now: datetime) -> dict[str, Any]:
    concerned = _concerned(settlement, erasure)
    return {
        "erasure": erasure.id,
        "at": now,
        "before": settlement.before if concerned else None,
        "after": settlement.version if concerned else None,
        "batch": settlement.batch_id,
        "stages": settlement.stages(erasure.id),
    }


def _entry(settlement: Settlement, erasure: QueuedErasure) -> AuditEvent:
    concerned = _concerned(settlement, erasure)
    made = settlement.made if concerned else None
    body = {
        "mode": erasure.mode,
        "version_before": settlement.before if concerned else None,
        "gate": None if made is None else made.facts.gate,
        "model_changed": made is not None,
    }
    return AuditEvent("erasure.forgotten", body, erasure.id, settlement.version if concerned else None)
