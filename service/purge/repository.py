"""Rows of erasures that are to be erased: what goes, what becomes a tombstone, and what is too old to be kept."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, exists, or_, select, tuple_, update

from service.erasures.decision_repository import forget_interactions
from service.erasures.repository import WORDS_CLEARED
from service.erasures.targets import EVERY
from service.platform.tables import (
    erasure_targets,
    erasures,
    idempotency,
    interactions,
    items,
    outbox,
    suppressions,
    users,
)

T = TypeVar("T")

CHUNK = 500  # ids in one statement: both databases bound the number of parameters

_own, _hidden = erasures.c, suppressions.c
_ERASABLE = and_(_own.status == "forgotten", _own.held_since.is_(None), _own.decision.is_(None))
# Whatever still needs the rows that it names: everything that is neither over, nor purged and about to be.
_OPEN = and_(_own.status.not_in(("erased", "cancelled")), _own.purged_at.is_(None))
_PURGED = or_(_own.purged_at.is_not(None), _own.status == "erased")


def erasable(connection: Connection, compaction_id: str) -> list[str]:
    """Ids of the erasures of a compaction that can be erased now, in the order of accepting."""
    wanted = select(_own.id).where(_own.compaction_id == compaction_id, _ERASABLE).order_by(_own.seq)
    return list(connection.scalars(wanted))


def purge_rows(connection: Connection, ids: Sequence[str], at: datetime, until: datetime) -> dict[str, int]:
    """Delete what is on record of erasures beyond their own rows; those that cannot be erased now are passed over.

    Their suppressions refuse late writes `until` then, those of mode `dislike` without an end. Done before: changes
    nothing. Returns counts.
    """
    wanted = list(connection.scalars(select(_own.id).where(_own.id.in_(ids), _ERASABLE)))
    mine = erasure_targets.c.erasure_id.in_(wanted)
    counts = {
        "interactions": forget_interactions(connection, wanted),
        "targets": connection.execute(delete(erasure_targets).where(mine)).rowcount,
        "outbox": connection.execute(delete(outbox).where(outbox.c.erasure_id.in_(wanted))).rowcount,
        "idempotency": connection.execute(delete(idempotency).where(idempotency.c.erasure_id.in_(wanted))).rowcount,
    }
    forget = select(_own.id).where(_own.id.in_(wanted), _own.mode == "forget")
    mark = update(suppressions).where(_hidden.erasure_id.in_(forget), _hidden.until.is_(None))
    counts["tombstones"] = connection.execute(mark.values(until=until)).rowcount
    # Words may have been written since it was purged: a deadline was extended.
    cleared = update(erasures).where(_own.id.in_(wanted))
    connection.execute(cleared.values(salt=None, **WORDS_CLEARED))
    purged = connection.execute(cleared.where(_own.purged_at.is_(None)).values(purged_at=at))
    return {**counts, "erasures": purged.rowcount}


def requested(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """How many targets each of these erasures named."""
    return {
        row.id: row.requested
        for part in _chunks(ids)
        for row in connection.execute(select(_own.id, _own.requested).where(_own.id.in_(part)))
    }


def purge_cancelled_targets(connection: Connection, limit: int) -> int:
    """Delete up to `limit` targets of cancelled erasures: nothing is done with them any more; returns how many."""
    key = (erasure_targets.c.erasure_id, erasure_targets.c.ordinal)
    cancelled = select(*key).join(erasures, _own.id == erasure_targets.c.erasure_id).where(_own.status == "cancelled")
    gone = delete(erasure_targets).where(tuple_(*key).in_(cancelled.limit(limit)))
    return connection.execute(gone).rowcount


def unneeded_users(connection: Connection, after: bytes, limit: int) -> tuple[list[int], bytes | None]:
    """Keys of users whom purged erasures name, of whom nothing is recorded, and whom no open erasure names.

    Looks at the next `limit` digests of tombstones after one; returns the last of these too, None at the end.
    """
    named = _hidden.user_digest
    return _unneeded(connection, users, named, named != EVERY, interactions.c.user_key, after, limit)


def unneeded_items(connection: Connection, after: bytes, limit: int) -> tuple[list[int], bytes | None]:
    """The same of items that were erased whole; those of erased interactions stay, they are the catalogue."""
    named = _hidden.item_digest
    whole = and_(_hidden.user_digest == EVERY, named != EVERY)
    return _unneeded(connection, items, named, whole, interactions.c.item_key, after, limit)


def delete_users(connection: Connection, keys: Sequence[int]) -> int:
    """Delete users of whom nothing is recorded and whom no open erasure names; returns how many there were."""
    return _delete_vocabulary(connection, users, _hidden.user_digest, interactions.c.user_key, keys)


def delete_items(connection: Connection, keys: Sequence[int]) -> int:
    """Delete items of which nothing is recorded and which no open erasure names; returns how many there were."""
    return _delete_vocabulary(connection, items, _hidden.item_digest, interactions.c.item_key, keys)


def anything_expired(connection: Connection, now: datetime, idempotency_before: datetime) -> bool:
    """Whether a tombstone or an idempotency row is too old."""
    expired = select(_hidden.erasure_id).where(_hidden.until <= now).limit(1)
    old = select(idempotency.c.key_id).where(idempotency.c.created_at < idempotency_before).limit(1)
    return any(connection.execute(each).first() is not None for each in (expired, old))


def delete_expired(connection: Connection, now: datetime, idempotency_before: datetime, limit: int) -> tuple[int, int]:
    """Delete up to `limit` tombstones and `limit` idempotency rows that are too old; returns how many of each."""
    key = (_hidden.user_digest, _hidden.item_digest, _hidden.erasure_id)
    expired = select(*key).where(_hidden.until <= now).limit(limit)
    known = (idempotency.c.key_id, idempotency.c.key_sha256)
    old = select(*known).where(idempotency.c.created_at < idempotency_before).limit(limit)
    return (
        connection.execute(delete(suppressions).where(tuple_(*key).in_(expired))).rowcount,
        connection.execute(delete(idempotency).where(tuple_(*known).in_(old))).rowcount,
    )


def _unneeded(
    connection: Connection,
    table: Table,
    named: ColumnElement[bytes],
    whole: ColumnElement[bool],
    recorded: ColumnElement[int],
    after: bytes,
    limit: int,
) -> tuple[list[int], bytes | None]:
    purged = select(named).join(erasures, _own.id == _hidden.erasure_id).where(whole, named > after, _PURGED)
    digests = [bytes(digest) for digest in connection.scalars(purged.distinct().order_by(named).limit(limit))]
    if not digests:
        return [], None
    wanted = select(table.c.key).where(table.c.digest.in_(digests), *_nobody_needs(table, named, recorded))
    return list(connection.scalars(wanted)), digests[-1]


def _nobody_needs(
    table: Table, named: ColumnElement[bytes], recorded: ColumnElement[int]
) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    by_open = exists().where(named == table.c.digest, _own.id == _hidden.erasure_id, _OPEN)
    return ~exists().where(recorded == table.c.key), ~by_open


def _delete_vocabulary(
    connection: Connection,
    table: Table,
    named: ColumnElement[bytes],
    recorded: ColumnElement[int],
    keys: Sequence[int],
) -> int:
    conditions = _nobody_needs(table, named, recorded)
    return sum(
        connection.execute(delete(table).where(table.c.key.in_(part), *conditions)).rowcount for part in _chunks(keys)
    )


def _chunks(values: Sequence[T]) -> Iterator[list[T]]:
    rest = iter(values)
    while part := list(islice(rest, CHUNK)):
        yield part
