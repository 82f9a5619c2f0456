"""The log's rows: its head, which orders every transition, and its entries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Executable, Select, Table, bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from service.platform.prepared_statements import PreparedStatement
from service.platform.tables import audit_checkpoints, audit_entries, audit_head, audit_keys, audit_nodes


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


_LEAVES = (
    select(audit_entries.c.leaf_hash)
    .where(audit_entries.c.seq >= bindparam("first"), audit_entries.c.seq < bindparam("end"))
    .order_by(audit_entries.c.seq)
)
_NODES = (
    select(audit_nodes.c.hash)
    .where(
        audit_nodes.c.level == bindparam("level"),
        audit_nodes.c.position >= bindparam("first"),
        audit_nodes.c.position < bindparam("end"),
    )
    .order_by(audit_nodes.c.position)
)


def leaf_hashes(connection: Connection, first: int, count: int) -> list[bytes]:
    """Hashes of the leaves first, first + 1, ... (from 0), up to `count` of them."""
    found = connection.scalars(_LEAVES, {"first": first + 1, "end": first + 1 + count})
    return list(map(bytes, found.all()))


def entries(connection: Connection, first: int, count: int) -> list[bytes]:
    """The canonical JSON of the entries at the indices first, first + 1, ... (from 0), up to `count` of them."""
    wanted = select(audit_entries.c.body).where(audit_entries.c.seq > first, audit_entries.c.seq <= first + count)
    return [body.encode() for body in connection.scalars(wanted.order_by(audit_entries.c.seq))]


def nodes(connection: Connection, level: int, first: int, count: int) -> list[bytes]:
    """Hashes over full tiles of the level below, from a position on; as many as are stored, without a gap."""
    found = connection.scalars(_NODES, {"level": level, "first": first, "end": first + count})
    return list(map(bytes, found.all()))


def count_nodes(connection: Connection, level: int) -> int:
    """How many hashes of a level are stored; they are stored in order."""
    last = connection.scalar(select(func.max(audit_nodes.c.position)).where(audit_nodes.c.level == level))
    return 0 if last is None else int(last) + 1


def insert_nodes(connection: Connection, level: int, first: int, hashes: Sequence[bytes]) -> None:
    """Store hashes of a level, which another may have stored meanwhile: they cannot differ."""
    rows = [{"level": level, "position": at, "hash": each} for at, each in enumerate(hashes, first)]
    if rows:
        connection.execute(_or_nothing(connection, audit_nodes), rows)


def latest_checkpoint(connection: Connection) -> tuple[int, str] | None:
    """(size, signed note) of the largest head that was signed."""
    return _checkpoint(connection, select(*_CHECKPOINT).order_by(audit_checkpoints.c.size.desc()))


def checkpoint_of(connection: Connection, size: int, since: datetime | None = None) -> tuple[int, str] | None:
    """(size, signed note) of the smallest head with at least `size` entries that was signed, at `since` or later."""
    wanted = select(*_CHECKPOINT).where(audit_checkpoints.c.size >= size)
    if since is not None:
        wanted = wanted.where(audit_checkpoints.c.signed_at >= since)
    return _checkpoint(connection, wanted.order_by(audit_checkpoints.c.size))


def insert_checkpoint(connection: Connection, size: int, note: str, at: datetime) -> None:
    """Keep a signed head; one of this size that is there already stays."""
    connection.execute(_or_nothing(connection, audit_checkpoints), [{"size": size, "note": note, "signed_at": at}])


def set_note(connection: Connection, size: int, note: str) -> None:
    """Keep a signed head with more signatures than before."""
    connection.execute(update(audit_checkpoints).where(audit_checkpoints.c.size == size).values(note=note))


@dataclass(frozen=True)
class StampedHead:
    """A head with its time stamp: the signed note, and the authority's answer (RFC 3161, a TimeStampResp in DER)."""

    size: int
    note: str
    timestamp: bytes


def latest_timestamp(connection: Connection) -> StampedHead | None:
    """The largest head that was stamped."""
    columns = (*_CHECKPOINT, audit_checkpoints.c.timestamp)
    wanted = select(*columns).where(audit_checkpoints.c.timestamp.is_not(None))
    row = connection.execute(wanted.order_by(audit_checkpoints.c.size.desc()).limit(1)).first()
    return None if row is None else StampedHead(row[0], row[1], bytes(row[2]))


def set_timestamp(connection: Connection, size: int, timestamp: bytes) -> None:
    """Keep the time stamp of a head; one that it has already stays."""
    mine = update(audit_checkpoints).where(audit_checkpoints.c.size == size, audit_checkpoints.c.timestamp.is_(None))
    connection.execute(mine.values(timestamp=timestamp))


@dataclass(frozen=True)
class KeyRow:
    """A public key of the log in its text form, and when it signed; `until` is None for the one that signs now."""

    vkey: str
    since: datetime
    until: datetime | None


def keys(connection: Connection) -> list[KeyRow]:
    """Every key that ever signed, the oldest first."""
    columns = (audit_keys.c.vkey, audit_keys.c.since, audit_keys.c.until)
    return [KeyRow(*row) for row in connection.execute(select(*columns).order_by(audit_keys.c.since))]


def use_key(connection: Connection, vkey: str, at: datetime) -> None:
    """Put a key on record as the one that signs now; the one before ends."""
    retired = update(audit_keys).where(audit_keys.c.until.is_(None), audit_keys.c.vkey != vkey)
    connection.execute(retired.values(until=at))
    connection.execute(_or_nothing(connection, audit_keys), [{"vkey": vkey, "since": at}])
    connection.execute(update(audit_keys).where(audit_keys.c.vkey == vkey).values(until=None))


_CHECKPOINT = (audit_checkpoints.c.size, audit_checkpoints.c.note)


def _checkpoint(connection: Connection, wanted: Select[Any]) -> tuple[int, str] | None:
    row = connection.execute(wanted.limit(1)).first()
    return None if row is None else (int(row[0]), str(row[1]))


def _or_nothing(connection: Connection, table: Table) -> Executable:
    """An insert that leaves a row that is there already as it is."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()
