"""The queries of the invariants: each counts what breaks a promise."""

from datetime import datetime

from sqlalchemy import Connection, func, select

from service.platform.tables import aliases, audit_entries, erasures, outbox, versions

_live = (
    select(versions.c.erasure_seq)
    .join(aliases, aliases.c.version == versions.c.version)
    .where(aliases.c.name == "live")
    .scalar_subquery()
)
_told = (
    select(func.count())
    .where(audit_entries.c.erasure_id == erasures.c.id, audit_entries.c.event == "erasure.forgotten")
    .scalar_subquery()
)


def unpublished_before(connection: Connection, instant: datetime) -> int:
    """Outbox rows older than an instant that nobody published."""
    statement = select(func.count()).where(outbox.c.published_at.is_(None), outbox.c.created_at < instant)
    return int(connection.execute(statement).scalar_one())


def forgotten_beyond_live(connection: Connection) -> int:
    """Forgotten erasures that the live version does not cover; 0 while nothing is live."""
    statement = select(func.count()).where(erasures.c.status == "forgotten", erasures.c.seq > _live)
    return int(connection.execute(statement).scalar_one())


def forgotten_not_audited_once(connection: Connection) -> int:
    """Forgotten erasures with another number of `erasure.forgotten` entries than one."""
    statement = select(func.count()).where(erasures.c.status.in_(("forgotten", "erased")), _told != 1)
    return int(connection.execute(statement).scalar_one())


def ready(connection: Connection) -> list[int]:
    """Versions that may serve."""
    return list(connection.scalars(select(versions.c.version).where(versions.c.status == "ready")))


def aliased(connection: Connection) -> set[int | None]:
    """The live version and the one before; {None} where nothing is live."""
    names = aliases.c.name.in_(("live", "previous"))
    return set(connection.scalars(select(aliases.c.version).where(names))) or {None}
