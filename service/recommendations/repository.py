"""What a recommendation needs of SQL: one statement for a user, one for an item, one for a new version's vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    Text,
    bindparam,
    cast,
    func,
    null,
    select,
    union,
    union_all,
)
from sqlalchemy import literal_column as sql

from service.platform.prepared_statements import PreparedStatement
from service.platform.tables import aliases, erasure_targets, erasures, interactions, items, suppressions, users

Keys = NDArray[np.int64]

_LIVE, _USER, _HISTORY, _HIDDEN, _WITHDRAWN = range(5)
_EVERY = b""  # in a suppression: every user, or every item
_NO_KEYS: Keys = np.empty(0, np.int64)
_NO_NUMBER = cast(null(), BigInteger)
_NO_TEXT = cast(null(), Text)
_NO_BYTES = cast(null(), LargeBinary)


class UserReading(NamedTuple):
    """What SQL says of one user at one instant: everything that an answer must honour.

    `history` holds item keys, `hidden` digests of the items suppressed for this user, `withdrawn` digests of the items
    suppressed for everybody. `erased` says that the whole user is suppressed. `live` and `user_key` are None where
    there are none.
    """

    live: int | None
    user_key: int | None
    history: Keys
    hidden: tuple[bytes, ...]
    withdrawn: tuple[bytes, ...]
    erased: bool


@dataclass(frozen=True)
class ItemReading:
    """What SQL says beside any user: the live version and the digests of the items suppressed for everybody."""

    live: int | None
    withdrawn: tuple[bytes, ...]


@dataclass(frozen=True)
class ItemRow:
    """One item of the vocabulary: its surrogate key, outside id, digest and title."""

    key: int
    id: str
    digest: bytes
    title: str | None


def _tag(tag: int) -> ColumnElement[int]:
    return sql(str(tag), Integer)


_live = select(_tag(_LIVE), aliases.c.version, _NO_TEXT, _NO_BYTES).where(aliases.c.name == sql("'live'"))
_withdrawn = select(_tag(_WITHDRAWN), _NO_NUMBER, _NO_TEXT, suppressions.c.item_digest).where(
    suppressions.c.user_digest == bindparam("every")
)
_key_of_user = select(users.c.key).where(users.c.id == bindparam("user_id"))

# The history comes as one text: a row for each item would cost four times as much as finding them.
_joined_items = func.aggregate_strings(cast(interactions.c.item_key, Text), sql("','"))  # type: ignore[arg-type]

_USER_READING = PreparedStatement(
    union_all(
        _live,
        select(_tag(_USER), users.c.key, _NO_TEXT, _NO_BYTES).where(users.c.id == bindparam("user_id")),
        select(_tag(_HISTORY), _NO_NUMBER, _joined_items, _NO_BYTES).where(
            interactions.c.user_key == _key_of_user.scalar_subquery()
        ),
        select(_tag(_HIDDEN), _NO_NUMBER, _NO_TEXT, suppressions.c.item_digest).where(
            suppressions.c.user_digest == bindparam("user_digest")
        ),
        _withdrawn,
    )
)
_ITEM_READING = PreparedStatement(union_all(_live, _withdrawn))
_ITEMS = select(items.c.key, items.c.id, items.c.digest, items.c.title).order_by(items.c.key)

_of_user = interactions.c.user_key == erasure_targets.c.user_key
_of_item = interactions.c.item_key == erasure_targets.c.item_key
_covers = {"interaction": _of_user & _of_item, "user": _of_user, "item": _of_item}
_WAITING_PAIRS = union(
    *(
        select(interactions.c.user_key, interactions.c.item_key)
        .select_from(erasures)
        .join(erasure_targets, erasure_targets.c.erasure_id == erasures.c.id)
        .join(interactions, covers)
        .where(erasures.c.status.in_(("accepted", "needs_attention", "refused")), erasure_targets.c.kind == kind)
        for kind, covers in _covers.items()
    )
)


def waiting_pairs(connection: Connection) -> Keys:
    """Return the recorded pairs, (2, n) keys, covered by erasures that are accepted, held back or refused."""
    rows = connection.execute(_WAITING_PAIRS).fetchall()
    return np.array([(row[0], row[1]) for row in rows], np.int64).reshape(-1, 2).T


def read_user(connection: Connection, user_id: str, user_digest: bytes) -> UserReading:
    """Read in one round trip, from one snapshot, all that an answer for a user depends on."""
    rows = _USER_READING.fetch(connection, {"user_id": user_id, "user_digest": user_digest, "every": _EVERY})
    live: int | None = None
    user_key: int | None = None
    history = _NO_KEYS
    hidden: list[bytes] = []
    withdrawn: list[bytes] = []
    for tag, number, text, digest in rows:
        if tag == _LIVE:
            live = number
        elif tag == _USER:
            user_key = number
        elif tag == _HISTORY and text:
            history = np.fromstring(text, np.int64, sep=",")
        elif tag == _HIDDEN:
            hidden.append(bytes(digest))
        elif tag == _WITHDRAWN:
            withdrawn.append(bytes(digest))
    return UserReading(live, user_key, history, tuple(hidden), tuple(withdrawn), _EVERY in hidden)


def read_items(connection: Connection) -> ItemReading:
    """Read in one round trip the live version and what is withdrawn."""
    rows = _ITEM_READING.fetch(connection, {"every": _EVERY})
    live = next((row[1] for row in rows if row[0] == _LIVE), None)
    return ItemReading(live, tuple(bytes(row[3]) for row in rows if row[0] == _WITHDRAWN))


def vocabulary(connection: Connection, keys: Keys) -> list[ItemRow | None]:
    """Return the item behind each key, ascending as given, or None where the vocabulary no longer holds it."""
    found: list[ItemRow | None] = [None] * len(keys)
    rows: Sequence[Any] = connection.execute(_ITEMS).fetchall()
    places = np.searchsorted(keys, np.fromiter((row.key for row in rows), np.int64, len(rows)))
    for row, place in zip(rows, places.tolist(), strict=True):
        if place < len(keys) and keys[place] == row.key:
            found[place] = ItemRow(row.key, row.id, bytes(row.digest), row.title)
    return found
