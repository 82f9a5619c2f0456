"""Accepting, reading and cancelling erasures. What the worker does with them is in `settling`."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection

from service.audit import service as audit
from service.audit.service import AuditEvent
from service.erasures import approval, repository
from service.erasures.modes import Mode
from service.erasures.problems import (
    ApprovalAwaited,
    BacklogFull,
    ErasureNotFound,
    IdempotencyKeyReused,
    ModeUnavailable,
    NoTargets,
    NotCancellable,
    TooManyTargets,
)
from service.erasures.reach import Reach, measure
from service.erasures.repository import Erasure, ErasureFilter
from service.erasures.targets import EVERY, Subjects, Target, TargetKind, fingerprint, new_salt
from service.platform import metrics
from service.platform.clock import rfc3339
from service.platform.cursor import read_cursor, write_cursor
from service.platform.dependencies import Services
from service.platform.faults import fault_point
from service.platform.ids import uuid7
from service.platform.obstacles import ForgettingState, Obstacle, read_forgetting_state, waiting_for
from service.platform.problem import FieldError

LISTING = "erasures"
BACKLOG_RETRY_S = 5
WAIT_STEP_S = 0.01
WAIT_STEP_MAX_S = 0.2

log = structlog.get_logger()


@dataclass(frozen=True)
class NewErasure:
    """One erasure as a caller asks for it."""

    subjects: Subjects
    mode: Mode
    reason: str | None
    key_id: str
    idempotency_key: str | None = None
    mode_from: str = "#/mode"
    """Where the mode was given, for an error to point at."""
    owner: str | None = None
    """Whose it is: the keys of one label are one owner. None: of this key alone."""


@dataclass(frozen=True)
class _PreparedErasure:
    """A request made ready: everything that does not need the database. Running it twice stores the same."""

    row: Mapping[str, Any]
    targets: list[Target]
    idempotency: Mapping[str, Any] | None
    entry: Mapping[str, Any]
    backlog_max: int
    approval_min_pairs: int
    approval_share: float


Charge = Callable[[int], Awaitable[None]]
"""Counts the targets of an erasure against what its owner may ask for, and raises where they are too many."""


class _AcceptedBefore(Exception):
    """Leaves the unit without storing anything: the same request is stored already."""

    def __init__(self, erasure: Erasure) -> None:
        super().__init__()
        self.erasure = erasure


class Acceptance(NamedTuple):
    """An erasure that is stored; `replayed` where the same Idempotency-Key had stored it before."""

    erasure: Erasure
    replayed: bool = False


async def accept(services: Services, request: NewErasure, charge: Charge | None = None) -> Acceptance:
    """Store an erasure, durably, in one transaction: its targets are hidden from every read when this returns.

    The same request with the same Idempotency-Key finds the erasure that is stored, in its present state. `charge` is
    called before anything is stored, but not where it is stored already, and may refuse.

    Raises:
        NoTargets, TooManyTargets, ModeUnavailable, IdempotencyKeyReused, BacklogFull: nothing was stored.
    """
    started = services.clock.monotonic()
    await _check(services, request)
    order = _order(services, request, started)
    if charge is not None and not await services.database.run_read(lambda read: _is_stored(read, order)):
        await charge(len(request.subjects))
    try:
        erasure = await services.database.run_write(lambda connection: _accept(connection, order))
    except _AcceptedBefore as before:
        _count(request, "replayed")
        return Acceptance(before.erasure, replayed=True)
    except BacklogFull:
        _count(request, "refused")
        raise
    fault_point("api.after_commit")
    services.relay.wake()
    _count(request, "accepted")
    metrics.erasure_duration_seconds.labels("accept").observe(services.clock.monotonic() - started)
    return Acceptance(erasure)


async def preview(services: Services, request: NewErasure) -> Reach:
    """How far an erasure would reach if it were accepted now; stores nothing.

    Raises:
        NoTargets, TooManyTargets, ModeUnavailable: as accepting it would.
    """
    await _check(services, request)
    targets = request.subjects.targets(services.identity)
    return await services.database.run_read(lambda connection: measure(connection, targets))


async def get(services: Services, erasure_id: str, owner: str | None = None) -> Erasure:
    """The erasure with this id; raises ErasureNotFound, also for one that is not of `owner`."""
    found = await services.database.run_read(lambda connection: repository.find(connection, erasure_id))
    if found is None or owner not in (None, found.owner):
        raise ErasureNotFound
    return found


async def waits(services: Services, erasures: Sequence[Erasure]) -> dict[str, Obstacle | None]:
    """What each of these erasures waits for, by its id; of a single one also how many were accepted before it."""
    waiting = [erasure for erasure in erasures if erasure.status in ("accepted", "needs_attention")]
    if not waiting:
        return {}
    now = services.clock.now()

    def unit(connection: Connection) -> tuple[ForgettingState, int | None]:
        ahead = repository.count_ahead(connection, waiting[0].seq) if len(erasures) == 1 else None
        return read_forgetting_state(connection, now), ahead

    state, ahead = await services.database.run_read(unit)
    return {erasure.id: waiting_for(state, erasure.status, erasure.mode, erasure.needs, ahead) for erasure in waiting}


async def page(
    services: Services,
    status: str | None,
    cursor: str | None,
    limit: int,
    owner: str | None = None,
    *,
    due_before: datetime | None = None,
    held: bool | None = None,
) -> tuple[list[Erasure], str | None]:
    """A page of erasures, the newest first, and the cursor of the next one, None at the end.

    With an `owner`, only those of that owner; with `due_before`, only those whose deadline runs and ends
    before then. A cursor goes with its filters: for others it is refused.
    """
    return await _page(services, ErasureFilter(status, owner, due_before, held), LISTING, cursor, limit)


async def search(
    services: Services, user_id: str | None, item_id: str | None, cursor: str | None, limit: int, owner: str | None
) -> tuple[list[Erasure], str | None]:
    """A page of the erasures that hide a user, an item, or the pair of both; as `page` otherwise.

    Of a user or an item: those that name it, whole or in an interaction. Of a pair: those that cover it. Cancelled ones
    hide nothing. One of the two ids must be given.
    """
    user = EVERY if user_id is None else services.identity.user(user_id)
    item = EVERY if item_id is None else services.identity.item(item_id)
    kind = TargetKind.INTERACTION if user and item else TargetKind.USER if user else TargetKind.ITEM
    wanted = ErasureFilter(owner=owner, covering=Target(kind, user, item))
    return await _page(services, wanted, f"{LISTING} covering {user.hex()} {item.hex()}", cursor, limit)


async def _page(
    services: Services, wanted: ErasureFilter, listing: str, cursor: str | None, limit: int
) -> tuple[list[Erasure], str | None]:
    listing = f"{listing} {wanted.status} {wanted.owner} {wanted.due_before} {wanted.held}"
    before = None if cursor is None else read_cursor(services.identity, listing, cursor)
    found = await services.database.run_read(lambda connection: repository.page(connection, wanted, before, limit + 1))
    more = len(found) > limit
    return found[:limit], write_cursor(services.identity, listing, found[limit - 1].seq) if more else None


async def wait(services: Services, erasure_id: str, seconds: float) -> Erasure | None:
    """Wait until an erasure is no longer merely accepted, holding neither a connection nor a thread meanwhile.

    Returns the erasure, or None where it is accepted still after `seconds`, or when the service is told to stop.
    """
    began = services.clock.monotonic()
    end = began + seconds
    while True:
        status = await services.database.run_read(lambda connection: repository.status_of(connection, erasure_id))
        if status != "accepted":
            return await get(services, erasure_id)
        now = services.clock.monotonic()
        left = end - now
        # A tenth of the time that it took: the answer is late by no more, and long waits ask seldom.
        step = min(max(WAIT_STEP_S, (now - began) / 10), WAIT_STEP_MAX_S)
        if left <= 0 or services.stopping.is_set():
            return None
        with suppress(TimeoutError):
            await asyncio.wait_for(services.stopping.wait(), min(step, left))


async def cancel(services: Services, erasure_id: str, owner: str | None = None) -> Erasure:
    """Cancel an erasure that is accepted, or awaits approval: it is shown again, and the model never hears of it.

    Raises:
        ErasureNotFound: also for one that is not of `owner`.
        NotCancellable.
    """
    erasure = await services.database.run_write(lambda connection: _cancel(connection, services, erasure_id, owner))
    log.info("erasure.cancelled", erasure_id=erasure_id)
    return erasure


def available_modes(connection: Connection) -> frozenset[Mode]:
    """The modes that the live version offers: `forget` always, others where an encoder was trained for them."""
    manifest = repository.live_manifest(connection) or {}
    encoders = manifest.get("encoders") or {}
    return frozenset({Mode.FORGET, *(mode for mode in Mode if mode in encoders)})


async def _check(services: Services, request: NewErasure) -> None:
    if not len(request.subjects):
        raise NoTargets(errors=[FieldError("#", "None of interactions, users and items names anything.")])
    if len(request.subjects) > services.settings.targets_max:
        msg = f"It names {len(request.subjects):,}; one erasure takes {services.settings.targets_max:,}."
        raise TooManyTargets(msg, errors=[FieldError("#", msg)])
    if request.mode is not Mode.FORGET and request.mode not in await services.database.run_read(available_modes):
        raise ModeUnavailable(errors=[FieldError(request.mode_from, "The live version offers `forget` alone.")])


def _order(services: Services, request: NewErasure, started: float) -> _PreparedErasure:
    received_at = services.clock.now()
    erasure_id, salt = uuid7(), new_salt()
    subjects = request.subjects
    targets = subjects.targets(services.identity)
    commitment = subjects.commitment(salt)
    seconds = services.clock.monotonic() - started
    row = {
        "id": erasure_id,
        "status": "accepted",
        "mode": request.mode.value,
        "reason": request.reason,
        "requested": len(subjects),
        "commitment": commitment,
        "salt": salt.hex(),
        "received_at": received_at,
        "due_at": received_at + timedelta(days=services.settings.due_days),
        "attempts": 0,
        "stages": {"accepted": {"at": rfc3339(received_at), "seconds": round(seconds, 6)}},
        "key_id": request.key_id,
        "owner": request.owner or request.key_id,
    }
    counts = {"interactions": len(subjects.interactions), "items": len(subjects.items), "users": len(subjects.users)}
    entry = {"commitment": commitment, "mode": row["mode"], "requested": len(subjects), "targets": counts}
    bounds = services.settings
    return _PreparedErasure(
        *(row, targets, _idempotency(request, row, targets), entry),
        *(bounds.backlog_max, bounds.approval_min_pairs, bounds.approval_share),
    )


def _idempotency(request: NewErasure, row: Mapping[str, Any], targets: list[Target]) -> Mapping[str, Any] | None:
    if request.idempotency_key is None:
        return None
    return {
        "key_id": request.owner or request.key_id,
        "key_sha256": hashlib.sha256(request.idempotency_key.encode()).digest(),
        "body_sha256": fingerprint(targets, request.mode, request.reason),
        "erasure_id": row["id"],
        "created_at": row["received_at"],
    }


def _accept(connection: Connection, order: _PreparedErasure) -> Erasure:
    """The unit of work of one acceptance."""
    seq = audit.reserve(connection)
    _refuse_second(connection, order)
    found = repository.look_up(connection, order.targets)
    _bound_backlog(connection, seq, found.oldest_accepted, order.backlog_max)
    row = {**order.row, "seq": seq, "matched": found.matched or 0}
    at = row["received_at"]
    repository.insert_erasure(connection, row)
    repository.insert_targets(connection, row["id"], found.rows)
    repository.suppress(connection, row["id"], order.targets, at)
    if found.matched is None:
        row["matched"] = repository.count_matched(connection, row["id"])
    if order.idempotency is not None:
        repository.remember_key(connection, order.idempotency)
    body = {**order.entry, "matched": row["matched"]}
    audit.write(connection, seq, [AuditEvent("erasure.accepted", body, row["id"])], at)
    row |= _held_for_approval(connection, order, row)
    fault_point("api.before_commit")
    return _as_erasure(row)


def _held_for_approval(connection: Connection, order: _PreparedErasure, row: Mapping[str, Any]) -> dict[str, Any]:
    """Hold it back where it is so large that a second person must look; what that changes of it."""
    matched = row["matched"]
    if matched <= order.approval_min_pairs:
        return {}
    recorded = repository.count_recorded(connection)
    if matched <= order.approval_share * recorded:
        return {}
    repository.await_approval(connection, row["id"])
    entries = approval.awaited(row["id"], matched, recorded)
    audit.write(connection, audit.reserve(connection, len(entries)), entries, row["received_at"])
    return {"status": "needs_attention", "needs": ApprovalAwaited.code}


def _is_stored(connection: Connection, order: _PreparedErasure) -> bool:
    return order.idempotency is not None and repository.find_idempotent(connection, order.idempotency) is not None


def _refuse_second(connection: Connection, order: _PreparedErasure) -> None:
    if order.idempotency is None:
        return
    known = repository.find_idempotent(connection, order.idempotency)
    if known is None:
        return
    body_sha256, erasure_id = known
    if body_sha256 != order.idempotency["body_sha256"]:
        detail = "It came with another erasure before."
        raise IdempotencyKeyReused(errors=[FieldError("header/Idempotency-Key", detail)])
    erasure = repository.find(connection, erasure_id)
    assert erasure is not None
    raise _AcceptedBefore(erasure)


def _bound_backlog(connection: Connection, seq: int, oldest: int | None, backlog_max: int) -> None:
    # The log's length since the oldest open erasure bounds their number from above, for free; counting comes after.
    if oldest is None or seq - oldest < backlog_max:
        return
    if repository.count_accepted(connection, backlog_max) >= backlog_max:
        msg = f"{backlog_max:,} erasures are accepted and not forgotten yet."
        raise BacklogFull(msg, retry_after_s=BACKLOG_RETRY_S)


def _as_erasure(row: Mapping[str, Any]) -> Erasure:
    empty: dict[str, Any] = dict.fromkeys(
        (
            *("forgotten_at", "erased_at", "cancelled_at", "version_before", "version_after", "batch_id", "needs"),
            *("extended_at", "extension_ground", "extension_reason"),
            *("decision", "decision_ground", "decided_at", "held_since", "compaction_id", "purged_at"),
        )
    )
    return Erasure(**{**empty, **row})


def _cancel(connection: Connection, services: Services, erasure_id: str, owner: str | None) -> Erasure:
    seq = audit.reserve(connection)
    at = services.clock.now()
    cancelled = repository.cancel(connection, erasure_id, at)
    erasure = repository.find(connection, erasure_id)
    if erasure is None or owner not in (None, erasure.owner):
        raise ErasureNotFound  # which undoes the cancelling
    if not cancelled:
        msg = f"It is {erasure.status}."
        raise NotCancellable(msg)
    entry = AuditEvent("erasure.cancelled", {"commitment": erasure.commitment, "mode": erasure.mode}, erasure_id)
    audit.write(connection, seq, [entry], at)
    return erasure


def _count(request: NewErasure, outcome: str) -> None:
    """Count a request once for each kind of target that it names."""
    subjects = request.subjects
    kinds = (
        (TargetKind.INTERACTION, subjects.interactions),
        (TargetKind.USER, subjects.users),
        (TargetKind.ITEM, subjects.items),
    )
    for kind, named in kinds:
        if named:
            metrics.erasure_requests_total.labels(kind.value, outcome).inc()
