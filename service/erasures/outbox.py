"""The outbox: which erasures the stream has still to be told of. A second repository of this domain."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, or_, select, update

from service.platform.prepared_statements import PreparedStatement
from service.platform.tables import erasures, outbox

OPEN = ("accepted", "needs_attention")

Row = Sequence[Any]
"""(seq, erasure id)"""

_UNPUBLISHED = PreparedStatement(
    select(outbox.c.seq, outbox.c.erasure_id)
    .where(outbox.c.published_at.is_(None))
    .order_by(outbox.c.seq)
    .limit(bindparam("limit"))
)
_MARK = PreparedStatement(
    update(outbox)
    .where(outbox.c.seq.between(bindparam("first"), bindparam("last")), outbox.c.published_at.is_(None))
    .values(published_at=bindparam("at", type_=outbox.c.published_at.type))
)


def unpublished(connection: Connection, limit: int) -> Sequence[Row]:
    """Up to `limit` rows that are not published, in order."""
    return _UNPUBLISHED.fetch(connection, {"limit": limit})


def mark_published(connection: Connection, first: int, last: int, at: datetime) -> None:
    """Write down that the rows from `first` to `last` are in the stream.

    Rows are numbered under the lock on the log's head, so none can appear between two that were read.
    """
    _MARK.run(connection, {"first": first, "last": last, "at": at})


def count_published(connection: Connection) -> int:
    """Erasures that are accepted and, as far as SQL knows, in the stream."""
    waiting = select(func.count()).select_from(outbox).join(erasures, erasures.c.id == outbox.c.erasure_id)
    return int(
        connection.execute(
            waiting.where(erasures.c.status == "accepted", outbox.c.published_at.is_not(None))
        ).scalar_one()
    )


def publish_again(connection: Connection, before: datetime, now: datetime) -> int:
    """Mark as unpublished what was published before an instant and is accepted still; returns how many.

    A publication that lies in the future tells of a clock that was set back: it counts as old.
    """
    accepted = select(erasures.c.id).where(erasures.c.status == "accepted")
    stale = update(outbox).where(
        or_(outbox.c.published_at < before, outbox.c.published_at > now), outbox.c.erasure_id.in_(accepted)
    )
    return connection.execute(stale.values(published_at=None)).rowcount


def prune(connection: Connection, limit: int) -> int:
    """Drop up to `limit` rows of erasures that the worker is done with: there is nothing left to tell of them."""
    done = (
        select(outbox.c.seq)
        .join(erasures, erasures.c.id == outbox.c.erasure_id)
        .where(erasures.c.status.not_in(OPEN))
        .limit(limit)
    )
    return connection.execute(delete(outbox).where(outbox.c.seq.in_(done))).rowcount
