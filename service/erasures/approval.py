"""Four eyes: an erasure of a large share of all pairs is hidden at once, and forgotten once a second key says so.

Mass deletion is an attack on the model, and whoever holds one key should not be able to do it alone.
"""

from sqlalchemy import Connection

from service.audit import service as audit
from service.audit.service import AuditEvent
from service.erasures import repository
from service.erasures.problems import (
    ApprovalAwaited,
    ApprovalNotAwaited,
    ApprovedByAsker,
    ErasureNotFound,
    UnderLegalHold,
)
from service.erasures.repository import Erasure
from service.platform.auth import Principal
from service.platform.dependencies import Services

AWAITED, APPROVED = "erasure.approval_awaited", "erasure.approved"
"""Entries beside those that change the status: by them the ledger knows what awaits whom."""


def awaited(erasure_id: str, matched: int, recorded: int) -> list[AuditEvent]:
    """The entries of an erasure that is held back for its size: interactions that it covers, and that are recorded."""
    facts = {"code": ApprovalAwaited.code, "matched": matched, "recorded": recorded}
    return [AuditEvent("erasure.needs_attention", facts, erasure_id), AuditEvent(AWAITED, {}, erasure_id)]


def approved(erasure_id: str, asked_by: str, approved_by: str | None) -> list[AuditEvent]:
    """The entries of an approval: ids of the API keys that asked and approved."""
    facts = {"asked_by": asked_by, "approved_by": approved_by}
    return [AuditEvent("erasure.accepted_again", {}, erasure_id), AuditEvent(APPROVED, facts, erasure_id)]


async def approve(services: Services, erasure_id: str, approver: Principal) -> Erasure:
    """Have an erasure that waits for it go to the queue's end.

    Raises:
        ErasureNotFound, ApprovalNotAwaited, UnderLegalHold.
        ApprovedByAsker: the approver's label is the one that asked.
    """
    at = services.clock.now()

    def unit(connection: Connection) -> Erasure:
        # A new seq: versions cover prefixes of the seqs, and those made meanwhile have not forgotten it.
        seq = audit.reserve(connection, 2)
        erasure = _waiting(connection, erasure_id)
        if erasure.owner == approver.owner:
            raise ApprovedByAsker
        repository.approve(connection, erasure_id, seq, at)
        audit.write(connection, seq, approved(erasure_id, erasure.key_id, approver.key_id), at)
        return _found(connection, erasure_id)

    erasure = await services.database.run_write(unit)
    services.relay.wake()
    return erasure


async def refuse(services: Services, erasure_id: str, approver: Principal) -> Erasure:
    """Cancel an erasure that waits for approval: what it alone had hidden is shown again.

    Raises:
        ErasureNotFound, ApprovalNotAwaited, UnderLegalHold.
    """
    at = services.clock.now()

    def unit(connection: Connection) -> Erasure:
        seq = audit.reserve(connection)
        erasure = _waiting(connection, erasure_id)
        repository.cancel(connection, erasure_id, at)
        facts = {"commitment": erasure.commitment, "mode": erasure.mode, "refused_by": approver.key_id}
        audit.write(connection, seq, [AuditEvent("erasure.cancelled", facts, erasure_id)], at)
        return _found(connection, erasure_id)

    return await services.database.run_write(unit)


def _waiting(connection: Connection, erasure_id: str) -> Erasure:
    erasure = _found(connection, erasure_id)
    if not erasure.awaits_approval:
        msg = f"It is {erasure.status}."
        raise ApprovalNotAwaited(msg)
    if erasure.held_since is not None:
        raise UnderLegalHold
    return erasure


def _found(connection: Connection, erasure_id: str) -> Erasure:
    erasure = repository.find(connection, erasure_id)
    if erasure is None:
        raise ErasureNotFound
    return erasure
