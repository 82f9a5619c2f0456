"""The log's rows: its head, which orders every transition, and its entries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from service.platform.prepared_statements import PreparedStatement
from service.platform.tables import audit_entries, audit_head


@dataclass(frozen=True)
class AuditRow:
    """One entry as it is stored; `canonical` is the JSON that `leaf_hash` covers."""

    seq: int
    at: datetime
    event: str
    erasure_id: str | None
    version: int | None
    canonical: str
    leaf_hash: bytes


_GROW = PreparedStatement(
    update(audit_head)
    .where(audit_head.c.id == bindparam("head"))
    .values(size=audit_head.c.size + bindparam("count"))
    .returning(audit_head.c.size)
)
_SIZE = select(audit_head.c.size).where(audit_head.c.id == 1)
_LOCK_SHARED = _SIZE.with_for_update(read=True)
_INSERT = PreparedStatement(insert(audit_entries))
_COLUMNS = (
    audit_entries.c.seq,
    audit_entries.c.at,
    audit_entries.c.event,
    audit_entries.c.erasure_id,
    audit_entries.c.version,
    audit_entries.c.body,
    audit_entries.c.leaf_hash,
)


def grow(connection: Connection, count: int) -> int:
    """Lock the head until the transaction ends and add `count` to its size; returns the new size."""
    row = _GROW.first(connection, {"head": 1, "count": count})
    assert row is not None, "The log has no head: the schema was not made by its migrations."
    return int(row[0])


def lock_shared(connection: Connection) -> int:
    """Keep the head from growing until the transaction ends, beside others that do the same; returns its size."""
    return int(connection.execute(_LOCK_SHARED).scalar_one())


def size(connection: Connection) -> int:
    """The number of entries."""
    return int(connection.execute(_SIZE).scalar_one())


def insert_entries(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store entries; each row has every column of the table."""
    if len(rows) == 1:
        _INSERT.run(connection, rows[0])
    else:
        _INSERT.run_many(connection, rows)


def page(connection: Connection, after: int, limit: int, erasure_id: str | None) -> list[AuditRow]:
    """Up to `limit` entries with seq > `after`, in order; of one erasure where an id is given."""
    wanted = select(*_COLUMNS).where(audit_entries.c.seq > after).order_by(audit_entries.c.seq).limit(limit)
    if erasure_id is not None:
        wanted = wanted.where(audit_entries.c.erasure_id == erasure_id)
    return [AuditRow(*row) for row in connection.execute(wanted)]
