"""Evidence in SQL: the ids behind training data, what erasures name, and the evidence that is kept."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Table, insert, select

from service.platform.tables import erasure_evidence, erasures, items, suppressions, users, versions

IN_CHUNK = 500
_ERASURES_AT_ONCE = 20  # each may name thousands of targets
_ROWS_AT_ONCE = 10_000
_ALL = b""


@dataclass(frozen=True)
class NamedTarget:
    """What an erasure names, in outside ids; None: not named. `known`: whether the ids are on record."""

    user: str | None
    item: str | None
    known: bool


def user_ids(connection: Connection) -> Iterator[tuple[int, str]]:
    """(surrogate key, id) of every registered user, by key."""
    return _ids(connection, users)


def item_ids(connection: Connection) -> Iterator[tuple[int, str]]:
    """(surrogate key, id) of every registered item, by key."""
    return _ids(connection, items)


def named(connection: Connection, erasure_ids: Sequence[str]) -> Iterator[tuple[str, NamedTarget]]:
    """(erasure, target) of everything that these erasures hide, those of one erasure together."""
    user, item = suppressions.c.user_digest, suppressions.c.item_digest
    wanted = (
        select(suppressions.c.erasure_id, user != _ALL, users.c.id, item != _ALL, items.c.id)
        .outerjoin(users, users.c.digest == user)
        .outerjoin(items, items.c.digest == item)
        .order_by(suppressions.c.erasure_id)
    )
    for at in range(0, len(erasure_ids), _ERASURES_AT_ONCE):
        chunk = erasure_ids[at : at + _ERASURES_AT_ONCE]
        rows = connection.execute(wanted.where(suppressions.c.erasure_id.in_(chunk))).all()
        for erasure_id, of_user, user_id, of_item, item_id in rows:
            known = (not of_user or user_id is not None) and (not of_item or item_id is not None)
            yield erasure_id, NamedTarget(user_id, item_id, known)


def requested(connection: Connection, erasure_ids: Sequence[str]) -> dict[str, int]:
    """How many targets each of these erasures named."""
    found: dict[str, int] = {}
    for at in range(0, len(erasure_ids), IN_CHUNK):
        chunk = erasure_ids[at : at + IN_CHUNK]
        rows = connection.execute(select(erasures.c.id, erasures.c.requested).where(erasures.c.id.in_(chunk)))
        found.update((id, count) for id, count in rows)
    return found


def store(connection: Connection, bodies: Mapping[str, str]) -> None:
    """Keep the evidence of erasures, by their ids."""
    if bodies:
        rows = [{"erasure_id": erasure_id, "body": body} for erasure_id, body in bodies.items()]
        connection.execute(insert(erasure_evidence), rows)


def find(connection: Connection, erasure_id: str) -> str | None:
    """The evidence of an erasure, where it is erased."""
    body: str | None = connection.scalar(
        select(erasure_evidence.c.body).where(erasure_evidence.c.erasure_id == erasure_id)
    )
    return body


def dataset_hash(connection: Connection, base: int) -> str | None:
    """The hash of what a base was trained on, also of one that is purged; None where there is no such base."""
    row = connection.execute(select(versions.c.kind, versions.c.manifest).where(versions.c.version == base)).first()
    if row is None or row[0] != "base":
        return None
    found = row[1].get("dataset_hash")
    return found if isinstance(found, str) else None


def _ids(connection: Connection, table: Table) -> Iterator[tuple[int, str]]:
    after = 0
    while True:  # page by page: a cursor of the server would stay open where the reader stops half-way
        page = select(table.c.key, table.c.id).where(table.c.key > after).order_by(table.c.key).limit(_ROWS_AT_ONCE)
        rows = connection.execute(page).all()
        yield from ((key, id) for key, id in rows)
        if len(rows) < _ROWS_AT_ONCE:
            return
        after = rows[-1][0]
