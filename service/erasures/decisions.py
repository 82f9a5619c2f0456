"""What people decide about an erasure: more time, a refusal, a legal hold. Each is one transaction and one log entry.

The log gets codes and instants, never words. Decision 0015 says why each is as it is.
"""

import calendar
from collections.abc import Callable
from datetime import datetime

import structlog
from sqlalchemy import Connection

from service.audit import service as audit
from service.audit.service import AuditEvent
from service.erasures import decision_repository, repository
from service.erasures.grounds import DecisionOutcome, ExtensionGround, RefusalGround
from service.erasures.problems import (
    BeingErased,
    DecisionNotPossible,
    ErasureNotFound,
    ErasureOver,
    ExtensionTooLate,
    ExtensionUsed,
    UnderLegalHold,
)
from service.erasures.repository import Erasure
from service.platform.clock import rfc3339
from service.platform.dependencies import Services
from service.platform.problem import FieldError, InvalidRequest

WINDOW_MONTHS = 1
"""Within which an extension is to be told, from receipt (Art. 12(3))."""
LATEST_MONTHS = 3
"""The window and two further months: the latest deadline, from receipt."""

Unit = Callable[[Connection, Erasure, datetime], list[AuditEvent]]

log = structlog.get_logger()


def months_after(instant: datetime, months: int) -> datetime:
    """The same day and time some calendar months on; the month's last day where it has no such day."""
    year, month = divmod(instant.year * 12 + instant.month - 1 + months, 12)
    day = min(instant.day, calendar.monthrange(year, month + 1)[1])
    return instant.replace(year=year, month=month + 1, day=day)


async def extend(
    services: Services, erasure_id: str, until: datetime, ground: ExtensionGround | None, reason: str
) -> Erasure:
    """Move the deadline of an erasure that is not over, once.

    Raises:
        ErasureNotFound, ErasureOver, ExtensionUsed.
        ExtensionTooLate: a month has gone by since it was received.
        InvalidRequest: `until` is no later than the deadline, or more than two months beyond that month.
    """

    def unit(connection: Connection, erasure: Erasure, at: datetime) -> list[AuditEvent]:
        _refuse_over(erasure)
        if erasure.extended_at is not None:
            raise ExtensionUsed(f"It was extended to {rfc3339(erasure.due_at)}.")
        end = months_after(erasure.received_at, WINDOW_MONTHS)
        if at > end:
            raise ExtensionTooLate(f"It had to be extended by {rfc3339(end)}.")
        latest = months_after(erasure.received_at, LATEST_MONTHS)
        if not erasure.due_at < until <= latest:
            detail = f"It must be later than {rfc3339(erasure.due_at)}, and {rfc3339(latest)} at the latest."
            raise InvalidRequest(detail, errors=[FieldError("#/extension/until", detail)])
        decision_repository.extend(connection, erasure.id, until, ground, reason, at)
        code = None if ground is None else ground.value
        body = {"due_before": rfc3339(erasure.due_at), "ground": code, "until": rfc3339(until)}
        return [AuditEvent("erasure.extended", body, erasure.id)]

    return await _change(services, erasure_id, unit)


async def decide(services: Services, erasure_id: str, outcome: DecisionOutcome, ground: RefusalGround) -> Erasure:
    """End an erasure otherwise than by erasing all of it; what it hides stays hidden.

    `refused`: nothing of it was forgotten, and nothing will be. `partial`: it is forgotten; the rest may be kept.

    Raises:
        ErasureNotFound.
        ErasureOver: also where it was decided before.
        BeingErased: its rows are purged.
        DecisionNotPossible: it is forgotten, so that it cannot be refused whole; or not yet, so that there is no rest.
    """

    def unit(connection: Connection, erasure: Erasure, at: datetime) -> list[AuditEvent]:
        _refuse_over(erasure)
        _refuse_purged(erasure)
        forgotten = erasure.status == "forgotten"
        if forgotten is not (outcome is DecisionOutcome.PARTIAL):
            raise DecisionNotPossible(f"It is {erasure.status}.")
        if forgotten:
            decision_repository.refuse_rest(connection, erasure.id, ground, at)
        else:
            decision_repository.refuse(connection, erasure.id, ground, at)
        event = "erasure.refused_in_part" if forgotten else "erasure.refused"
        return [AuditEvent(event, {"ground": ground.value}, erasure.id)]

    return await _change(services, erasure_id, unit)


async def set_hold(services: Services, erasure_id: str) -> Erasure:
    """Put an erasure under legal hold: nothing of it is erased until that is lifted. Done before: changes nothing.

    Raises:
        ErasureNotFound.
        ErasureOver: it is erased or cancelled.
        BeingErased: its rows are purged.
    """

    def unit(connection: Connection, erasure: Erasure, at: datetime) -> list[AuditEvent]:
        if erasure.status in ("erased", "cancelled"):
            raise ErasureOver(f"It is {erasure.status}.")
        if erasure.held_since is not None:
            return []
        _refuse_purged(erasure)
        # The worker would take it off the record; what is forgotten already goes no further by its column alone.
        # One that awaits approval is kept from it already, and awaits it still once the hold is lifted.
        set_aside = erasure.status in ("accepted", "needs_attention") and not erasure.awaits_approval
        decision_repository.hold(connection, erasure.id, at, set_aside=set_aside)
        entries = [AuditEvent("erasure.hold_set", {}, erasure.id)]
        if set_aside:
            entries.append(AuditEvent("erasure.needs_attention", {"code": UnderLegalHold.code}, erasure.id))
        return entries

    return await _change(services, erasure_id, unit)


async def lift_hold(services: Services, erasure_id: str) -> Erasure:
    """Lift a legal hold: the erasure goes on where it was. Without one, changes nothing.

    Raises:
        ErasureNotFound.
    """

    def unit(connection: Connection, erasure: Erasure, at: datetime) -> list[AuditEvent]:
        if erasure.held_since is None:
            return []
        decision_repository.lift(connection, erasure.id)
        # What others had forgotten meanwhile stayed on record only for this hold, or for another one.
        late = decision_repository.forgotten_since(connection, erasure.held_since)
        decision_repository.forget_interactions(connection, late)
        entries = [AuditEvent("erasure.hold_lifted", {}, erasure.id)]
        if erasure.status == "needs_attention" and not erasure.awaits_approval:
            # Under a new seq, that of its entry: versions that went by without it do not count as having forgotten it.
            decision_repository.accept_again(connection, erasure.id, audit.size(connection) + 2, at)
            entries.append(AuditEvent("erasure.accepted_again", {}, erasure.id))
        return entries

    erasure = await _change(services, erasure_id, unit)
    services.relay.wake()
    return erasure


async def _change(services: Services, erasure_id: str, unit: Unit) -> Erasure:
    def transaction(connection: Connection) -> Erasure:
        audit.reserve(connection, 0)  # locked first by every transition
        before = repository.find(connection, erasure_id)
        if before is None:
            raise ErasureNotFound
        at = services.clock.now()
        entries = unit(connection, before, at)
        if entries:
            audit.write(connection, audit.reserve(connection, len(entries)), entries, at)
            told.extend(entry.event for entry in entries)
        after = repository.find(connection, erasure_id)
        assert after is not None
        return after

    told = list[str]()
    erasure = await services.database.run_write(transaction)
    if told:
        log.info(told[0], erasure_id=erasure_id)
    return erasure


def _refuse_over(erasure: Erasure) -> None:
    if erasure.decision is not None:
        raise ErasureOver(f"It was decided: {erasure.decision}.")
    if erasure.status in ("erased", "cancelled"):
        raise ErasureOver(f"It is {erasure.status}.")


def _refuse_purged(erasure: Erasure) -> None:
    if erasure.purged_at is not None:
        raise BeingErased
