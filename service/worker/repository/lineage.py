"""Versions and aliases as the worker sees them; how they are recorded and moved is the business of `models`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, update

from service.platform.tables import aliases, versions

LIVE, PREVIOUS, BASE = "live", "previous", "base"


class LineageVersion(NamedTuple):
    """One version as SQL knows it; `erasure_seq`: every erasure up to it that is forgotten is forgotten in it."""

    version: int
    kind: str
    status: str
    base: int
    erasure_seq: int
    manifest: Mapping[str, Any]


_ROW = select(
    versions.c.version,
    versions.c.kind,
    versions.c.status,
    versions.c.base,
    versions.c.erasure_seq,
    versions.c.manifest,
)


def version(connection: Connection, number: int) -> LineageVersion | None:
    """A version's row, or None."""
    row = connection.execute(_ROW.where(versions.c.version == number)).one_or_none()
    return None if row is None else LineageVersion(*row)


def newest_base(connection: Connection) -> LineageVersion | None:
    """The base that was published last and may serve, or None."""
    newest = _ROW.where(versions.c.kind == "base", versions.c.status == "ready").order_by(versions.c.version.desc())
    row = connection.execute(newest.limit(1)).one_or_none()
    return None if row is None else LineageVersion(*row)


class LineageState(NamedTuple):
    """Where the models stand: the version that answers, and the base that the next ones come from."""

    live: LineageVersion | None
    base: LineageVersion | None


def read_state(connection: Connection) -> LineageState:
    """Where the models stand.

    A base that was promoted is the next versions' base before it is the live one's, but not before it has an encoder:
    until then forgetting goes on from the old one.
    """
    number, wanted = alias(connection, LIVE), alias(connection, BASE)
    live = None if number is None else version(connection, number)
    base = None if wanted is None else version(connection, wanted)
    if live is not None and (base is None or not base.manifest.get("encoders")):
        base = version(connection, live.base)
    return LineageState(live, base)


def wanted_base(connection: Connection) -> int | None:
    """The base that was promoted last, whether or not it can be used yet."""
    number = alias(connection, BASE)
    if number is not None:
        return number
    live = alias(connection, LIVE)
    row = None if live is None else version(connection, live)
    return None if row is None else row.base


def alias(connection: Connection, name: str) -> int | None:
    """The version that an alias names, or None."""
    return connection.execute(select(aliases.c.version).where(aliases.c.name == name)).scalar_one_or_none()


def cover(connection: Connection, number: int, seq: int) -> None:
    """Note that everything accepted up to `seq` is forgotten in a version; its coverage never shrinks."""
    statement = update(versions).where(versions.c.version == number, versions.c.erasure_seq < seq)
    connection.execute(statement.values(erasure_seq=seq))


def set_manifest(connection: Connection, number: int, manifest: Mapping[str, Any]) -> None:
    """Replace the manifest on record of a base: its encoders are chosen after it was published."""
    connection.execute(update(versions).where(versions.c.version == number).values(manifest=dict(manifest)))


def point_base(connection: Connection, number: int, now: datetime) -> None:
    """Make the versions to come derive from this base; live follows when one of them is settled."""
    row = {"version": number, "moved_at": now}
    if not connection.execute(update(aliases).where(aliases.c.name == BASE).values(row)).rowcount:
        connection.execute(aliases.insert().values(name=BASE, **row))
