"""Asking for compactions, reading and cancelling them. What runs them is `service.compactor`."""

from datetime import datetime

import structlog
from sqlalchemy import Connection

from service.audit import service as audit
from service.audit.service import AuditEvent
from service.compaction import repository
from service.compaction.problems import CompactionNotCancellable, CompactionNotFound
from service.compaction.repository import Compaction
from service.compaction.steps import BEFORE_MOVING, CompactionStatus, CompactionStep, CompactionTrigger
from service.compaction.triggers import due_trigger
from service.models.problems import NoBase
from service.platform.cursor import read_cursor, write_cursor
from service.platform.dependencies import Services
from service.platform.ids import uuid7
from service.platform.obstacles import Obstacle, obstacle_to, read_forgetting_state
from service.platform.problem import known_problems
from service.settings import Settings

LISTING = "compactions"

log = structlog.get_logger()


async def request(services: Services, key_id: str | None) -> tuple[Compaction, bool]:
    """Have a compaction run as soon as the compactor can; one that waits or runs already is the answer.

    Returns:
        It, and whether it is new.

    Raises:
        NoBase: there is nothing to begin from.
    """
    at = services.clock.now()
    return await services.database.run_write(
        lambda connection: request_one(connection, CompactionTrigger.OPERATOR, at, key_id)
    )


def request_one(
    connection: Connection, trigger: CompactionTrigger, at: datetime, key_id: str | None = None
) -> tuple[Compaction, bool]:
    """The unit of work of `request`, whoever asks."""
    audit.reserve(connection, 0)  # one after another: there is never a second
    found = repository.find_open(connection)
    if found is not None:
        return found, False
    made_id = uuid7()
    if repository.base_in_use(connection) is None:
        raise NoBase
    row = {
        "id": made_id,
        "trigger": trigger.value,
        "status": CompactionStatus.WAITING.value,
        "step": CompactionStep.SNAPSHOT.value,
        "key_id": key_id,
        "requested_at": at,
    }
    repository.add(connection, row)
    made = repository.find(connection, made_id)
    assert made is not None
    return made, True


def request_if_due(connection: Connection, settings: Settings, at: datetime) -> Compaction | None:
    """Ask for a compaction where a trigger does; None where none does, or one is open. Run it as a write transaction
    only where `is_due` says so.
    """
    audit.reserve(connection, 0)
    trigger = due_trigger(repository.trigger_facts(connection), settings, at)
    return None if trigger is None else request_one(connection, trigger, at)[0]


def is_due(connection: Connection, settings: Settings, at: datetime) -> bool:
    """Whether a trigger asks for a compaction."""
    return due_trigger(repository.trigger_facts(connection), settings, at) is not None


async def page(services: Services, cursor: str | None, limit: int) -> tuple[list[Compaction], str | None]:
    """A page of compactions, the newest first, and the cursor of the next one, None at the end."""
    before = None if cursor is None else _id_of(read_cursor(services.identity, LISTING, cursor))
    found = await services.database.run_read(lambda connection: repository.page(connection, before, limit + 1))
    more = len(found) > limit
    following = write_cursor(services.identity, LISTING, _place_of(found[limit - 1].id)) if more else None
    return found[:limit], following


async def get(services: Services, compaction_id: str) -> Compaction:
    """One compaction; raises CompactionNotFound."""
    found = await services.database.run_read(lambda connection: repository.find(connection, compaction_id))
    if found is None:
        raise CompactionNotFound
    return found


async def obstacle(services: Services, compaction: Compaction) -> Obstacle | None:
    """What stopped a compaction, or keeps it waiting."""
    if compaction.problem is None:
        return None
    now = services.clock.now()
    return await services.database.run_read(lambda connection: explain(connection, compaction, now))


def explain(connection: Connection, compaction: Compaction, now: datetime) -> Obstacle | None:
    """The unit of work of `obstacle`."""
    code = compaction.problem
    if code is None:
        return None
    found = obstacle_to(read_forgetting_state(connection, now))
    if found is not None and found.code == code:
        return found
    kind = known_problems().get(code)
    if kind is not None:
        return Obstacle(code, f"{kind.title}.", kind.next_step)
    return Obstacle(code, "It is tried again by itself, after a pause that grows.", "See the compactor's log.")


async def cancel(services: Services, compaction_id: str) -> Compaction:
    """Cancel a compaction before anything that serves has changed: what it made is taken away.

    Raises:
        CompactionNotFound, CompactionNotCancellable.
    """
    at = services.clock.now()
    cancelled = await services.database.run_write(lambda connection: _cancel(connection, compaction_id, at))
    log.info("compaction.cancelled", compaction=compaction_id)
    return cancelled


def _cancel(connection: Connection, compaction_id: str, at: datetime) -> Compaction:
    audit.reserve(connection, 0)
    before = repository.find(connection, compaction_id)
    if before is None:
        raise CompactionNotFound
    runs = before.status == CompactionStatus.RUNNING and before.step in BEFORE_MOVING
    if not runs and before.status != CompactionStatus.WAITING:
        at_step = f" at the step {before.step}" if before.status == CompactionStatus.RUNNING else ""
        raise CompactionNotCancellable(f"It is {before.status}{at_step}.")
    values = {"status": CompactionStatus.CANCELLED.value, "finished_at": at, "problem": None, "progress": {}}
    repository.change(connection, compaction_id, (before.status,), **values)
    entry = AuditEvent("compaction.cancelled", {"compaction": compaction_id, "step": before.step})
    audit.write(connection, audit.reserve(connection), [entry], at)
    after = repository.find(connection, compaction_id)
    assert after is not None
    return after


def _place_of(compaction_id: str) -> int:
    """The first 64 bits of the id, by which it sorts; the first of them is 0 until the year 6429."""
    return int(compaction_id.replace("-", "")[:16], 16)


def _id_of(place: int) -> str:
    digits = f"{place:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:]}"
