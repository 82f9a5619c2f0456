"""The rows by which workers agree who works."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import IntegrityError

from service.platform.tables import leases


class LeaseRow(NamedTuple):
    """Who holds a lease, under which epoch, and the latest beat; an empty holder has given it back."""

    holder: str
    epoch: int
    beat: int


def read(connection: Connection, name: str) -> LeaseRow | None:
    """The lease of this name, or None where nobody ever held it."""
    row = connection.execute(
        select(leases.c.holder, leases.c.epoch, leases.c.beat).where(leases.c.name == name)
    ).one_or_none()
    return None if row is None else LeaseRow(*row)


def take(connection: Connection, name: str, seen: LeaseRow | None, holder: str, at: datetime) -> int | None:
    """Take a lease that is still as it was `seen`; returns the new epoch, or None where another was faster."""
    if seen is None:
        return _first(connection, name, holder, at)
    changed = connection.execute(
        update(leases)
        .where(leases.c.name == name, leases.c.epoch == seen.epoch, leases.c.beat == seen.beat)
        .values(holder=holder, epoch=seen.epoch + 1, beat=0, seen_at=at, trouble=None)
    ).rowcount
    return seen.epoch + 1 if changed else None


def beat(connection: Connection, name: str, epoch: int, at: datetime) -> bool:
    """Raise the beat of a lease held under `epoch`; False where it is not. Locks the row until the commit."""
    statement = update(leases).where(leases.c.name == name, leases.c.epoch == epoch, leases.c.holder != "")
    return connection.execute(statement.values(beat=leases.c.beat + 1, seen_at=at)).rowcount == 1


def release(connection: Connection, name: str, epoch: int) -> None:
    """Give a lease back; nothing where it is no longer held under `epoch`."""
    connection.execute(update(leases).where(leases.c.name == name, leases.c.epoch == epoch).values(holder=""))


def note_trouble(connection: Connection, name: str, epoch: int, trouble: str | None) -> None:
    """Say what keeps the holder of a lease under `epoch` from its work; None: nothing any more."""
    connection.execute(update(leases).where(leases.c.name == name, leases.c.epoch == epoch).values(trouble=trouble))


def _first(connection: Connection, name: str, holder: str, at: datetime) -> int | None:
    try:
        with connection.begin_nested():
            connection.execute(leases.insert().values(name=name, holder=holder, epoch=1, beat=0, seen_at=at))
    except IntegrityError:
        return None
    return 1
