"""Interactions in SQL: the vocabularies, recording, and reading for one person or for training."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, and_, bindparam, exists, func, or_, select, text, update
from sqlalchemy.dialects import sqlite

from service.platform.obstacles import APPROVAL
from service.platform.prepared_statements import PreparedStatement
from service.platform.sqlite import raw
from service.platform.tables import erasures, interactions, items, suppressions, users

Keys = NDArray[np.int64]
T = TypeVar("T")

IN_CHUNK = 500
FETCH_ROWS = 50_000
EVERY = b""

_REGISTER = {
    table.name: (
        PreparedStatement(sqlite.insert(table).on_conflict_do_nothing(), ["id", "digest"]),
        # One statement for all of them: PostgreSQL takes arrays, an insert a row would be a round trip each.
        text(
            f"INSERT INTO {table.name} (id, digest) "
            "SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:digests AS bytea[])) ON CONFLICT DO NOTHING"
        ),
    )
    for table in (users, items)
}
_RECORD_SQLITE = PreparedStatement(sqlite.insert(interactions).on_conflict_do_nothing())
_RECORD_POSTGRESQL = text(
    "INSERT INTO interactions (user_key, item_key, recorded_at) SELECT u, i, :at "
    "FROM unnest(CAST(:users AS bigint[]), CAST(:items AS bigint[])) AS pair (u, i) ON CONFLICT DO NOTHING"
)
_SET_TITLE = PreparedStatement(
    update(items)
    .where(items.c.digest == bindparam("item"), or_(items.c.title.is_(None), items.c.title != bindparam("text")))
    .values(title=bindparam("text"))
)
_ALL_PAIRS = str(select(interactions.c.user_key, interactions.c.item_key))


@dataclass(frozen=True)
class Suppressed:
    """What may not be recorded, in digests: whole users, whole items, pairs."""

    users: frozenset[bytes]
    items: frozenset[bytes]
    pairs: frozenset[tuple[bytes, bytes]]

    def covers(self, user: bytes, item: bytes) -> bool:
        """Whether this interaction is suppressed."""
        return user in self.users or item in self.items or (user, item) in self.pairs

    def __bool__(self) -> bool:
        return bool(self.users or self.items or self.pairs)


@dataclass(frozen=True)
class SuppressedKeys:
    """The same in surrogate keys; `pairs` (2, k) int64 user and item keys."""

    users: Keys
    items: Keys
    pairs: Keys


@dataclass(frozen=True)
class OwnInteraction:
    """One interaction of a person, for that person."""

    item_key: int
    item_id: str
    title: str | None
    recorded_at: datetime


def suppressed_among(
    connection: Connection, user_digests: Sequence[bytes], item_digests: Sequence[bytes]
) -> Suppressed:
    """What is suppressed that concerns these users and items."""
    user, item = suppressions.c.user_digest, suppressions.c.item_digest
    found: set[tuple[bytes, bytes]] = set()
    for chunk in _chunks(user_digests):
        found.update(_digests(connection, user.in_(chunk)))
    for chunk in _chunks(item_digests):
        found.update(_digests(connection, and_(item.in_(chunk), user == EVERY)))
    return _suppressed(found)


def suppressed_all(connection: Connection) -> Suppressed:
    """Everything that is suppressed."""
    return _suppressed(set(_digests(connection, True)))


def suppressed_keys(connection: Connection) -> SuppressedKeys:
    """Everything registered that no model is to learn: what is suppressed, but for what still awaits approval.

    That is hidden from answers alone: a model that was trained without it would have forgotten it unapproved.
    """
    user, item = suppressions.c.user_digest, suppressions.c.item_digest
    of_user, of_item = users.c.digest == user, items.c.digest == item
    awaited = select(erasures.c.id).where(erasures.c.status == "needs_attention", erasures.c.needs == APPROVAL)
    for_good = suppressions.c.erasure_id.not_in(awaited)
    whole_users = select(users.c.key).join(suppressions, of_user).where(item == EVERY, for_good)
    whole_items = select(items.c.key).join(suppressions, of_item).where(user == EVERY, for_good)
    pairs = select(users.c.key, items.c.key).select_from(suppressions).join(users, of_user).join(items, of_item)
    pairs = pairs.where(for_good)
    found = [tuple(row) for row in connection.execute(pairs)]
    return SuppressedKeys(
        np.array(connection.scalars(whole_users).all(), np.int64),
        np.array(connection.scalars(whole_items).all(), np.int64),
        np.array(found, np.int64).reshape(-1, 2).T,
    )


def register_users(connection: Connection, by_digest: Mapping[bytes, str]) -> None:
    """Give users that are new a key; `by_digest` has their outside ids."""
    _register(connection, users, by_digest)


def register_items(connection: Connection, by_digest: Mapping[bytes, str]) -> None:
    """Give items that are new a key."""
    _register(connection, items, by_digest)


def user_keys(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, int]:
    """Surrogate key by digest, of those that are registered."""
    return _keys(connection, users, digests)


def item_keys(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, int]:
    """Surrogate key by digest, of those that are registered."""
    return _keys(connection, items, digests)


def set_titles(connection: Connection, by_digest: Mapping[bytes, str]) -> None:
    """Give registered items their titles; a title that is there already is written over only by another one."""
    _SET_TITLE.run_many(connection, [{"item": digest, "text": title} for digest, title in by_digest.items()])


def record(connection: Connection, users_of: Sequence[int], items_of: Sequence[int], at: datetime) -> int:
    """Record interactions by keys, those that are there already left as they are; returns how many were new."""
    if not users_of:
        return 0
    if connection.dialect.name == "postgresql":
        values = {"users": list(users_of), "items": list(items_of), "at": at}
        return connection.execute(_RECORD_POSTGRESQL, values).rowcount
    rows = [
        {"user_key": user, "item_key": item, "recorded_at": at} for user, item in zip(users_of, items_of, strict=True)
    ]
    return _RECORD_SQLITE.run_many(connection, rows)


def of_user(connection: Connection, user_digest: bytes, after: int, limit: int) -> list[OwnInteraction]:
    """Up to `limit` interactions of a user with item key > `after`, in order; what is suppressed is not shown."""
    of_the_user = and_(
        suppressions.c.user_digest == user_digest, suppressions.c.item_digest.in_((EVERY, items.c.digest))
    )
    of_everyone = and_(suppressions.c.user_digest == EVERY, suppressions.c.item_digest == items.c.digest)
    wanted = (
        select(items.c.key, items.c.id, items.c.title, interactions.c.recorded_at)
        .select_from(users)
        .join(interactions, interactions.c.user_key == users.c.key)
        .join(items, items.c.key == interactions.c.item_key)
        .where(users.c.digest == user_digest, interactions.c.item_key > after)
        .where(~exists().where(of_the_user), ~exists().where(of_everyone))
        .order_by(interactions.c.item_key)
        .limit(limit)
    )
    return [OwnInteraction(*row) for row in connection.execute(wanted)]


def count_pairs(connection: Connection) -> int:
    """How many interactions are recorded."""
    return int(connection.execute(select(func.count()).select_from(interactions)).scalar_one())


def all_pairs(connection: Connection) -> Keys:
    """Every recorded interaction, (2, m) int64 user and item keys."""
    flat = np.fromiter(chain.from_iterable(_rows(connection)), np.int64)
    return flat.reshape(-1, 2).T


def _rows(connection: Connection) -> Iterator[Any]:
    """The rows of `all_pairs`, never all of them in memory."""
    if connection.dialect.name == "sqlite":
        # The driver's own tuples: rows of SQLAlchemy take three times as long.
        yield from raw(connection).execute(_ALL_PAIRS)
        return
    options = {"stream_results": True, "max_row_buffer": FETCH_ROWS}
    with connection.exec_driver_sql(_ALL_PAIRS, execution_options=options) as answer:
        yield from answer


def _register(connection: Connection, table: Table, by_digest: Mapping[bytes, str]) -> None:
    # In one order, so that two requests that register the same ids never wait for each other in a circle.
    rows = sorted((id, digest) for digest, id in by_digest.items())
    one_by_one, together = _REGISTER[table.name]
    if connection.dialect.name == "postgresql":
        ids, digests = [id for id, _ in rows], [digest for _, digest in rows]
        connection.execute(together, {"ids": ids, "digests": digests})
    else:
        one_by_one.run_many(connection, [{"id": id, "digest": digest} for id, digest in rows])


def _keys(connection: Connection, table: Any, digests: Sequence[bytes]) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for chunk in _chunks(digests):
        rows = connection.execute(select(table.c.digest, table.c.key).where(table.c.digest.in_(chunk)))
        found.update((bytes(digest), key) for digest, key in rows)
    return found


def _digests(connection: Connection, condition: Any) -> Iterator[tuple[bytes, bytes]]:
    wanted = select(suppressions.c.user_digest, suppressions.c.item_digest).where(condition)
    return ((bytes(user), bytes(item)) for user, item in connection.execute(wanted))


def _suppressed(found: set[tuple[bytes, bytes]]) -> Suppressed:
    return Suppressed(
        frozenset(user for user, item in found if item == EVERY),
        frozenset(item for user, item in found if user == EVERY),
        frozenset(found),
    )


def _chunks(values: Sequence[T]) -> Iterator[list[T]]:
    rest = iter(values)
    while chunk := list(islice(rest, IN_CHUNK)):
        yield chunk
