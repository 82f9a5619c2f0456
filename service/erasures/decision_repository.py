"""Deadlines moved, decisions and legal holds in SQL, and what stays on record under a hold. Of this domain, too."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, select, tuple_, update

from service.erasures.grounds import DecisionOutcome, ExtensionGround, RefusalGround
from service.erasures.problems import UnderLegalHold
from service.erasures.repository import WORDS_CLEARED
from service.platform.tables import erasure_targets, erasures, interactions, outbox

CHUNK = 500  # ids in one statement: both databases bound the number of parameters


def extend(
    connection: Connection, erasure_id: str, until: datetime, ground: ExtensionGround | None, reason: str, at: datetime
) -> None:
    """Move `due_at`."""
    _change(
        connection,
        erasure_id,
        due_at=until,
        extended_at=at,
        extension_ground=None if ground is None else ground.value,
        extension_reason=reason,
    )


def refuse(connection: Connection, erasure_id: str, ground: RefusalGround, at: datetime) -> None:
    """End an erasure that nothing was forgotten of: its suppressions stay, and the worker hears of it no more."""
    _change(connection, erasure_id, status="refused", needs=None, **_decided(DecisionOutcome.REFUSED, ground, at))
    connection.execute(delete(outbox).where(outbox.c.erasure_id == erasure_id))


def refuse_rest(connection: Connection, erasure_id: str, ground: RefusalGround, at: datetime) -> None:
    """Leave a forgotten erasure as it is: what is left of it is kept."""
    _change(connection, erasure_id, **_decided(DecisionOutcome.PARTIAL, ground, at))


def hold(connection: Connection, erasure_id: str, at: datetime, *, set_aside: bool) -> None:
    """Put an erasure under legal hold; with `set_aside` the worker leaves it alone from now on."""
    aside = {"status": "needs_attention", "needs": UnderLegalHold.code} if set_aside else {}
    _change(connection, erasure_id, held_since=at, **aside)  # one that awaits approval is set aside already


def lift(connection: Connection, erasure_id: str) -> None:
    """Lift the legal hold of an erasure, and nothing else."""
    _change(connection, erasure_id, held_since=None)


def accept_again(connection: Connection, erasure_id: str, seq: int, at: datetime) -> None:
    """Put an erasure that was set aside back into the queue, at its end, and have the stream told of it."""
    _change(connection, erasure_id, status="accepted", needs=None, attempts=0, seq=seq)
    untold = update(outbox).where(outbox.c.erasure_id == erasure_id)
    connection.execute(untold.values(published_at=None, created_at=at))


def forgotten_since(connection: Connection, at: datetime) -> list[str]:
    """Ids of the erasures that were forgotten at an instant or later."""
    done = erasures.c.status.in_(("forgotten", "erased"))
    return list(connection.scalars(select(erasures.c.id).where(done, erasures.c.forgotten_at >= at)))


def forget_interactions(connection: Connection, ids: Sequence[str]) -> int:
    """Take the interactions that these erasures cover out of SQL; returns how many there were.

    What any erasure under legal hold covers stays on record until the hold is lifted. It stays hidden, too.
    """
    held = connection.execute(select(erasures.c.id).where(erasures.c.held_since.is_not(None)).limit(1)).first()
    spared = () if held is None else tuple(_spared())
    return sum(_forget_part(connection, part, spared) for part in _chunks(ids))


_own, _target = interactions.c, erasure_targets.c
_COVERED: tuple[tuple[str, ColumnElement[Any], tuple[ColumnElement[Any], ...]], ...] = (
    ("interaction", tuple_(_own.user_key, _own.item_key), (_target.user_key, _target.item_key)),
    ("user", _own.user_key, (_target.user_key,)),
    ("item", _own.item_key, (_target.item_key,)),
)


def _forget_part(connection: Connection, ids: Sequence[str], spared: Sequence[ColumnElement[bool]]) -> int:
    # IN and not EXISTS: the few keys that are named are looked up, the interactions are not scanned.
    count = 0
    for kind, covered, named in _COVERED:
        known = [key.is_not(None) for key in named]
        keys = select(*named).where(_target.erasure_id.in_(ids), _target.kind == kind, *known)
        count += connection.execute(interactions.delete().where(covered.in_(keys), *spared)).rowcount
    return count


def _spared() -> Iterator[ColumnElement[bool]]:
    """The conditions that no erasure under hold covers an interaction."""
    for kind, covered, named in _COVERED:
        known = [key.is_not(None) for key in named]
        held = select(*named).join(erasures, erasures.c.id == _target.erasure_id)
        yield covered.not_in(held.where(erasures.c.held_since.is_not(None), _target.kind == kind, *known))


def _decided(outcome: DecisionOutcome, ground: RefusalGround, at: datetime) -> dict[str, Any]:
    return {"decision": outcome.value, "decision_ground": ground.value, "decided_at": at, **WORDS_CLEARED}


def _change(connection: Connection, erasure_id: str, **values: Any) -> None:
    connection.execute(update(erasures).where(erasures.c.id == erasure_id).values(values))


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(ids)
    while part := list(islice(rest, CHUNK)):
        yield part
