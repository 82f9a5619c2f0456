"""Rows of versions and aliases, and the query of the version fence."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, func, insert, not_, or_, select, update

from service.platform.prepared_statements import PreparedStatement
from service.platform.tables import aliases, audit_entries, erasures, versions

KEPT = ("ready", "held", "retired")  # versions whose bytes are in the store


@dataclass(frozen=True)
class VersionRow:
    """One version as SQL knows it; `base` is its own number for a base."""

    version: int
    kind: str
    status: str
    base: int
    parent: int | None
    erasure_seq: int
    manifest: Mapping[str, Any]
    gate: Mapping[str, Any] | None
    created_at: datetime


@dataclass(frozen=True)
class AliasRow:
    """Where an alias points, and since when."""

    name: str
    version: int
    moved_at: datetime


_LIVE = PreparedStatement(select(aliases.c.version).where(aliases.c.name == bindparam("name")))


def live(connection: Connection) -> int | None:
    """Return the number of the live version, or None."""
    row = _LIVE.first(connection, {"name": "live"})
    return None if row is None else int(row[0])


def find(connection: Connection, number: int) -> VersionRow | None:
    """Return a version, or None."""
    row = connection.execute(select(versions).where(versions.c.version == number)).first()
    return None if row is None else VersionRow(**row._mapping)


def page(connection: Connection, before: int | None, limit: int) -> list[VersionRow]:
    """Return up to `limit` versions, the newest first; those below `before` where it is given."""
    wanted = select(versions).order_by(versions.c.version.desc()).limit(limit)
    if before is not None:
        wanted = wanted.where(versions.c.version < before)
    return [VersionRow(**row._mapping) for row in connection.execute(wanted)]


def highest(connection: Connection) -> int:
    """Return the highest number on record, purged ones among them; 0 where there is none."""
    return connection.scalar(select(func.max(versions.c.version))) or 0


def add(connection: Connection, row: VersionRow) -> None:
    """Record a version."""
    connection.execute(insert(versions).values(**vars(row)))


def all_aliases(connection: Connection) -> list[AliasRow]:
    """Return every alias, by name."""
    return [AliasRow(**row._mapping) for row in connection.execute(select(aliases).order_by(aliases.c.name))]


def find_alias(connection: Connection, name: str) -> AliasRow | None:
    """Return an alias, or None."""
    row = connection.execute(select(aliases).where(aliases.c.name == name)).first()
    return None if row is None else AliasRow(**row._mapping)


def point(connection: Connection, name: str, number: int, at: datetime) -> None:
    """Point an alias at a version."""
    moved = update(aliases).where(aliases.c.name == name).values(version=number, moved_at=at)
    if connection.execute(moved).rowcount == 0:
        connection.execute(insert(aliases).values(name=name, version=number, moved_at=at))


def withdraw_aliases(connection: Connection, name: str, numbers: Collection[int]) -> bool:
    """Take an alias away that names one of these versions; whether it did."""
    gone = delete(aliases).where(aliases.c.name == name, aliases.c.version.in_(numbers))
    return connection.execute(gone).rowcount == 1


def all_versions(connection: Connection) -> list[VersionRow]:
    """Return every version on record, ascending."""
    return [VersionRow(**row._mapping) for row in connection.execute(select(versions).order_by(versions.c.version))]


def count_uncovered(connection: Connection, version: VersionRow, base: VersionRow, *, waiting: bool) -> int:
    """Count the erasures of recorded interactions that a version has not forgotten.

    Settled ones are covered from the version on that they were settled with, if it derives from the same base (its
    versions are cumulative) or has forgotten everything up to them. With `waiting`, those accepted or needing attention
    count too, unless the base was trained without them.
    """
    after = versions.alias("settled_with")
    trained_without = erasures.c.seq <= base.erasure_seq
    # Null where nothing was live when it was settled: only a later base covers it, or what was forgotten from one anew.
    same_base = func.coalesce(after.c.base, -1) == version.base
    forgotten_in_it = or_(erasures.c.seq <= version.erasure_seq, same_base)
    covered = and_(func.coalesce(erasures.c.version_after, 0) <= version.version, forgotten_in_it)
    held: ColumnElement[bool] = and_(erasures.c.status.in_(("forgotten", "erased")), not_(covered))
    if waiting:
        # The number alone does not tell: a base whose batch changed nothing counts as covering later ones.
        before_base = and_(trained_without, erasures.c.received_at <= base.created_at)
        held = or_(held, and_(erasures.c.status.in_(("accepted", "needs_attention")), not_(before_base)))
    joined = erasures.outerjoin(after, after.c.version == erasures.c.version_after)
    query = select(func.count()).select_from(joined).where(erasures.c.matched > 0, held)
    return connection.scalar(query) or 0


def kept(connection: Connection) -> list[VersionRow]:
    """Return the versions whose bytes are in the store, the newest first."""
    wanted = select(versions).where(versions.c.status.in_(KEPT)).order_by(versions.c.version.desc())
    return [VersionRow(**row._mapping) for row in connection.execute(wanted)]


def set_status(connection: Connection, number: int, status: str) -> bool:
    """Move a version that no alias names on to another status; False where there is none such."""
    named = select(aliases.c.version).where(aliases.c.version == number).exists()
    moved = update(versions).where(versions.c.version == number, not_(named)).values(status=status)
    return connection.execute(moved).rowcount == 1


def told_since(connection: Connection, seq: int, event: str) -> bool:
    """Whether the audit log tells of an event after the entry `seq`."""
    entry = audit_entries.c
    told = select(entry.seq).where(entry.seq > seq, entry.event == event).limit(1)
    return connection.scalar(told) is not None
