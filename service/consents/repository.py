"""Suppressions as a consent sees them."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, delete, select, tuple_

from service.erasures.targets import EVERY
from service.platform.tables import erasures, suppressions

IN_CHUNK = 400  # pairs in one statement: both databases bound the number of parameters
T = TypeVar("T")

_user, _item = suppressions.c.user_digest, suppressions.c.item_digest


class SuppressionFact(NamedTuple):
    """What is suppressed, in digests, and whether the erasure that suppressed it is erased."""

    user: bytes
    item: bytes
    erased: bool


def of_users(connection: Connection, users: Sequence[bytes]) -> set[SuppressionFact]:
    """Everything suppressed that names one of these users."""
    return _facts(connection, users, _user)


def of_whole_items(connection: Connection, items: Sequence[bytes]) -> set[SuppressionFact]:
    """Those of these items that are suppressed for every user."""
    return _facts(connection, items, _item, _user == EVERY)


def named_in_interactions(connection: Connection, items: Sequence[bytes]) -> set[bytes]:
    """Those of these items that are suppressed for single users."""
    found: set[bytes] = set()
    for part in _chunks(items):
        wanted = select(_item).where(_item.in_(part), _user != EVERY).distinct()
        found.update(bytes(digest) for digest in connection.scalars(wanted))
    return found


def lift(connection: Connection, targets: Sequence[tuple[bytes, bytes]]) -> None:
    """Delete the suppressions of exactly these targets that belong to erasures that are erased."""
    erased = select(erasures.c.id).where(erasures.c.status == "erased")
    for part in _chunks(targets):
        named = tuple_(_user, _item).in_(part)
        connection.execute(delete(suppressions).where(named, suppressions.c.erasure_id.in_(erased)))


def _facts(
    connection: Connection, digests: Sequence[bytes], side: ColumnElement[bytes], *conditions: ColumnElement[bool]
) -> set[SuppressionFact]:
    wanted = select(_user, _item, erasures.c.status).join(erasures, erasures.c.id == suppressions.c.erasure_id)
    return {
        SuppressionFact(bytes(user), bytes(item), status == "erased")
        for part in _chunks(digests)
        for user, item, status in connection.execute(wanted.where(side.in_(part), *conditions))
    }


def _chunks(values: Sequence[T]) -> Iterator[list[T]]:
    rest = iter(values)
    while part := list(islice(rest, IN_CHUNK)):
        yield part
