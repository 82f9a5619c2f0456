"""The erasures as the worker sees them: what waits, what each one names, how each ends."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, select, update

from service.erasures.problems import GateRefused
from service.platform.obstacles import FINE_TUNING
from service.platform.tables import audit_entries, erasure_targets, erasures

CHUNK = 500  # ids in one statement: both databases bound the number of parameters
ALIKE_MAX = 20  # erasures of the same targets that are looked at


class QueuedErasure(NamedTuple):
    """An accepted erasure; `attempts` counts tries of the unlearning step that did not come back.

    `matched`: recorded interactions that it covered when it was accepted.
    """

    id: str
    seq: int
    mode: str
    received_at: datetime
    attempts: int
    stages: Mapping[str, Any]
    matched: int


class TargetRow(NamedTuple):
    """One target of an erasure, in surrogate keys; a key is None where the id was not known when it was accepted."""

    mode: str
    kind: str
    user_key: int | None
    item_key: int | None


_ACCEPTED = (
    select(
        erasures.c.id,
        erasures.c.seq,
        erasures.c.mode,
        erasures.c.received_at,
        erasures.c.attempts,
        erasures.c.stages,
        erasures.c.matched,
    )
    .where(erasures.c.status == "accepted")
    .order_by(erasures.c.seq)
    .limit(bindparam("limit"))
)
_WAITING = _ACCEPTED.where(erasures.c.needs.is_(None))
_PUT_OFF = _ACCEPTED.where(erasures.c.needs == FINE_TUNING)
_STATUS = select(erasures.c.id, erasures.c.status).where(erasures.c.id.in_(bindparam("ids", expanding=True)))
_TARGETS = select(
    erasures.c.mode, erasure_targets.c.kind, erasure_targets.c.user_key, erasure_targets.c.item_key
).join_from(erasure_targets, erasures)

# The order of settling: batch after batch, in each the order of accepting. A manifest's digest is over ids in it.
_SETTLED = (erasures.c.batch_id, erasures.c.seq)


def waiting(connection: Connection, limit: int) -> list[QueuedErasure]:
    """The oldest accepted erasures that are not put off, in the order of accepting.

    Seqs are handed out under a lock that is held until the commit: once one is seen, no lower one can appear.
    """
    return [QueuedErasure(*row) for row in connection.execute(_WAITING, {"limit": limit})]


def put_off(connection: Connection, limit: int) -> list[QueuedErasure]:
    """The oldest accepted erasures that wait for fine-tuning, in the order of accepting."""
    return [QueuedErasure(*row) for row in connection.execute(_PUT_OFF, {"limit": limit})]


def mark_put_off(connection: Connection, ids: Sequence[str]) -> None:
    """Have accepted erasures wait for fine-tuning: others go first."""
    for part in _chunks(ids):
        wanted = update(erasures).where(erasures.c.id.in_(part), erasures.c.status == "accepted")
        connection.execute(wanted.values(needs=FINE_TUNING))


def put_off_no_more(connection: Connection) -> None:
    """Have those that wait for fine-tuning wait like all others: there is another base, or another encoder."""
    waiting = update(erasures).where(erasures.c.status == "accepted", erasures.c.needs == FINE_TUNING)
    connection.execute(waiting.values(needs=None))


def refused_before(connection: Connection, erasure_id: str, made_with: Mapping[str, Any]) -> bool:
    """Whether an erasure of the same targets was held back by the gate, under the same base and encoders.

    `made_with`: members of the audit entry's body.
    """
    mine = connection.execute(select(erasures.c.mode, erasures.c.requested).where(erasures.c.id == erasure_id)).one()
    alike = select(erasures.c.id).where(
        erasures.c.status == "needs_attention",
        erasures.c.needs == GateRefused.code,
        erasures.c.mode == mine.mode,
        erasures.c.requested == mine.requested,
    )
    named = _named(connection, erasure_id)
    first = erasure_targets.alias()
    kind, user, item = named[0]
    alike = alike.join(first, first.c.erasure_id == erasures.c.id).where(
        first.c.ordinal == 0,
        first.c.kind == kind,
        first.c.user_key.is_not_distinct_from(user),
        first.c.item_key.is_not_distinct_from(item),
    )
    for other in connection.scalars(alike.order_by(erasures.c.seq.desc()).limit(ALIKE_MAX)).all():
        if _named(connection, other) == named and made_with.items() <= _held_with(connection, other).items():
            return True
    return False


def _named(connection: Connection, erasure_id: str) -> list[tuple[str, int | None, int | None]]:
    target = erasure_targets.c
    wanted = select(target.kind, target.user_key, target.item_key).where(target.erasure_id == erasure_id)
    return [(row.kind, row.user_key, row.item_key) for row in connection.execute(wanted.order_by(target.ordinal))]


def _held_with(connection: Connection, erasure_id: str) -> dict[str, Any]:
    """The body of the entry that tells why an erasure was held back the last time."""
    entry = audit_entries.c
    told = select(entry.body).where(entry.erasure_id == erasure_id, entry.event == "erasure.needs_attention")
    body = connection.execute(told.order_by(entry.seq.desc()).limit(1)).scalar_one_or_none()
    facts: dict[str, Any] = {} if body is None else json.loads(body)["body"]
    return facts


def backlog(connection: Connection) -> int:
    """How many erasures are accepted and not yet forgotten."""
    count: int = connection.execute(
        select(func.count()).select_from(erasures).where(erasures.c.status == "accepted")
    ).scalar_one()
    return count


def statuses(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    """The status of each erasure that exists; unknown ids are left out."""
    found: dict[str, str] = {}
    for part in _chunks(ids):
        found.update((row.id, row.status) for row in connection.execute(_STATUS, {"ids": part}))
    return found


def targets(connection: Connection, ids: Sequence[str]) -> list[TargetRow]:
    """All targets of these erasures, in the order of accepting."""
    statement = _TARGETS.where(erasures.c.id.in_(bindparam("ids", expanding=True)))
    statement = statement.order_by(erasures.c.seq, erasure_targets.c.ordinal)
    return [TargetRow(*row) for part in _chunks(ids) for row in connection.execute(statement, {"ids": part})]


def forgotten(connection: Connection, after_seq: int) -> list[tuple[str, int]]:
    """(id, seq) of every erasure accepted after `after_seq` that is forgotten, in the order of settling."""
    statement = (
        select(erasures.c.id, erasures.c.seq)
        .where(erasures.c.seq > after_seq, erasures.c.status.in_(("forgotten", "erased")))
        .order_by(*_SETTLED)
    )
    return [(row.id, row.seq) for row in connection.execute(statement)]


def forgotten_targets(connection: Connection, after_seq: int) -> list[TargetRow]:
    """All targets of the erasures that `forgotten` lists, in its order."""
    statement = _TARGETS.where(erasures.c.seq > after_seq, erasures.c.status.in_(("forgotten", "erased")))
    statement = statement.order_by(*_SETTLED, erasure_targets.c.ordinal)
    return [TargetRow(*row) for row in connection.execute(statement)]


def begin_attempt(connection: Connection, ids: Sequence[str]) -> None:
    """Count a try of the unlearning step, before it begins."""
    for part in _chunks(ids):
        connection.execute(update(erasures).where(erasures.c.id.in_(part)).values(attempts=erasures.c.attempts + 1))


def end_attempt(connection: Connection, ids: Sequence[str]) -> None:
    """Note that the unlearning step came back: tries are counted anew."""
    for part in _chunks(ids):
        connection.execute(update(erasures).where(erasures.c.id.in_(part)).values(attempts=0))


def mark_forgotten(connection: Connection, rows: Sequence[dict[str, Any]]) -> int:
    """Make accepted erasures forgotten; returns how many still were accepted.

    The reason that a person gave goes with it: it was for whoever handled the request, in words that may name anybody.

    Each row: `erasure` (id), `at`, `before`, `after` (versions or None), `batch`, `stages`.
    """
    statement = (
        update(erasures)
        .where(erasures.c.id == bindparam("erasure"), erasures.c.status == "accepted")
        .values(
            status="forgotten",
            needs=None,
            reason=None,
            forgotten_at=bindparam("at"),
            version_before=bindparam("before"),
            version_after=bindparam("after"),
            batch_id=bindparam("batch"),
            stages=bindparam("stages"),
        )
    )
    return sum(connection.execute(statement, row).rowcount for row in rows)


def mark_needs_attention(connection: Connection, erasure_id: str, code: str, batch_id: int) -> bool:
    """Hold an accepted erasure back with a problem code; False where it is accepted no more."""
    statement = update(erasures).where(erasures.c.id == erasure_id, erasures.c.status == "accepted")
    return connection.execute(statement.values(status="needs_attention", needs=code, batch_id=batch_id)).rowcount == 1


def held(connection: Connection, codes: Sequence[str]) -> list[str]:
    """Ids of the erasures that need attention for one of these problems, in the order of accepting."""
    statement = (
        select(erasures.c.id)
        .where(erasures.c.status == "needs_attention", erasures.c.needs.in_(codes))
        .order_by(erasures.c.seq)
    )
    return list(connection.scalars(statement))


def accept_again(connection: Connection, erasure_id: str, seq: int) -> bool:
    """Put an erasure that needs attention back into the queue, at its end; False where it is in another state."""
    statement = update(erasures).where(erasures.c.id == erasure_id, erasures.c.status == "needs_attention")
    return connection.execute(statement.values(status="accepted", needs=None, attempts=0, seq=seq)).rowcount == 1


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(ids)
    while part := list(islice(rest, CHUNK)):
        yield part
