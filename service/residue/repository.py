"""What a search must know from SQL: what erasures are about, and what is there by right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    exists,
    func,
    null,
    or_,
    select,
    tuple_,
)

from service.erasures.targets import EVERY, TargetKind
from service.platform.tables import (
    aliases,
    compactions,
    erasure_targets,
    erasures,
    idempotency,
    interactions,
    items,
    suppressions,
    users,
    versions,
)

FACT = "residue"
"""Under this name the facts of a compaction hold the report of its latest search."""
IN_CHUNK = 500
FETCH_ROWS = 10_000

T = TypeVar("T")
Texts = Iterator[str]


class ErasureSecrets(NamedTuple):
    """What an erasure holds that goes with it."""

    id: str
    salt: str | None
    reason: str | None
    extension_reason: str | None


class IdempotencyDigest(NamedTuple):
    """A digest that came with an Idempotency-Key."""

    value: bytes
    erasure_id: str


class StoredTarget(NamedTuple):
    """A pair that an erasure names, in keys; None where it was not known."""

    user_key: int | None
    item_key: int | None
    erasure_id: str


class LeavingSubject(NamedTuple):
    """A user or an item that leaves the vocabulary; an item with its title."""

    key: int
    id: str
    erasure_id: str
    title: str | None


def secrets_of(connection: Connection, erasure_ids: Sequence[str]) -> Iterator[ErasureSecrets]:
    """Salt and words of these erasures."""
    wanted = select(erasures.c.id, erasures.c.salt, erasures.c.reason, erasures.c.extension_reason)
    for chunk in chunks(erasure_ids):
        for row in connection.execute(wanted.where(erasures.c.id.in_(chunk))):
            yield ErasureSecrets(*row)


def idempotency_of(connection: Connection, erasure_ids: Sequence[str]) -> Iterator[IdempotencyDigest]:
    """Digests kept with the Idempotency-Keys of these erasures."""
    for chunk in chunks(erasure_ids):
        mine = idempotency.c.erasure_id.in_(chunk)
        for key, body, erasure_id in connection.execute(
            select(idempotency.c.key_sha256, idempotency.c.body_sha256, idempotency.c.erasure_id).where(mine)
        ):
            yield IdempotencyDigest(bytes(key), erasure_id)
            yield IdempotencyDigest(bytes(body), erasure_id)


def targets_of(connection: Connection, erasure_ids: Sequence[str]) -> Iterator[StoredTarget]:
    """The pairs that these erasures name."""
    wanted = select(erasure_targets.c.user_key, erasure_targets.c.item_key, erasure_targets.c.erasure_id)
    for chunk in chunks(erasure_ids):
        mine = erasure_targets.c.erasure_id.in_(chunk) & (erasure_targets.c.kind == TargetKind.INTERACTION)
        for row in connection.execute(wanted.where(mine)):
            yield StoredTarget(*row)


def leaving_users(connection: Connection, erasure_ids: Sequence[str]) -> Iterator[LeavingSubject]:
    """Users who leave the vocabulary with these erasures: named by one, and nothing is recorded of them by then.

    Whom an erasure names that is not over, and is none of these, stays until that one is erased.
    """
    named = suppressions.c.user_digest
    yield from _leaving(connection, users, named, named != EVERY, suppressions.c.item_digest == EVERY, erasure_ids)


def leaving_items(connection: Connection, erasure_ids: Sequence[str]) -> Iterator[LeavingSubject]:
    """Items that leave: named whole. Those of erased interactions stay, they are the catalogue."""
    named, whole = suppressions.c.item_digest, suppressions.c.user_digest == EVERY
    yield from _leaving(connection, items, named, whole & (named != EVERY), whole, erasure_ids)


def kept_base(connection: Connection, erasure_ids: Sequence[str]) -> int | None:
    """The base that was trained without these erasures: their compaction's, else the one in use; None: neither."""
    newest: int | None = None
    for chunk in chunks(erasure_ids):
        of_these = select(func.max(compactions.c.base_after)).join(
            erasures, erasures.c.compaction_id == compactions.c.id
        )
        found = connection.scalar(of_these.where(erasures.c.id.in_(chunk)))
        newest = max((each for each in (newest, found) if each is not None), default=None)
    if newest is not None:
        return newest
    of_alias = select(versions.c.base).join(aliases, aliases.c.version == versions.c.version)
    for name in ("base", "live"):
        number: int | None = connection.scalar(of_alias.where(aliases.c.name == name))
        if number is not None:
            return number
    return None


def base_of_erased(connection: Connection, erasure_id: str) -> int | None:
    """The base that an erased erasure was completed with; None where it is not erased, or by none."""
    mine = select(compactions.c.base_after).join(erasures, erasures.c.compaction_id == compactions.c.id)
    return connection.scalar(mine.where(erasures.c.id == erasure_id, erasures.c.status == "erased"))


def latest_report(connection: Connection, erasure_id: str) -> dict[str, Any] | None:
    """What the latest search of an erasure's compaction found, None where there was none."""
    mine = select(compactions.c.facts).join(erasures, erasures.c.compaction_id == compactions.c.id)
    facts = connection.scalar(mine.where(erasures.c.id == erasure_id))
    return (facts or {}).get(FACT)


def user_keys(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, int]:
    """Surrogate key by digest, of users in the vocabulary."""
    return _keys(connection, users, digests)


def item_keys(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, int]:
    """Surrogate key by digest, of items in the vocabulary."""
    return _keys(connection, items, digests)


def back_in_use(
    connection: Connection,
    user_keys: Iterable[int],
    item_keys: Iterable[int],
    pairs: Iterable[tuple[int, int]],
    erasure_ids: Iterable[str],
) -> tuple[set[int], set[int], set[tuple[int, int]]]:
    """Of keys and pairs that ought to be gone, those that are in use: hidden no more, or needed by an open erasure.

    A user or an item that is in the vocabulary is back when nothing hides it whole and something is recorded of it, or
    nothing hides anything of it; a pair when it is recorded and nothing hides it.
    """
    mine = set(erasure_ids)
    found_users = _back(connection, users, suppressions.c.user_digest, user_keys, mine)
    found_items = _back(connection, items, suppressions.c.item_digest, item_keys, mine)
    hidden = (_hidden(users.c.digest, None), _hidden(None, items.c.digest), _hidden(users.c.digest, items.c.digest))
    recorded = (
        select(users.c.key, items.c.key)
        .select_from(interactions)
        .join(users, users.c.key == interactions.c.user_key)
        .join(items, items.c.key == interactions.c.item_key)
    )
    pair, found_pairs = tuple_(interactions.c.user_key, interactions.c.item_key), set[tuple[int, int]]()
    for chunk in chunks(list(pairs)):
        rows = connection.execute(recorded.where(pair.in_(chunk), ~or_(*hidden)))
        found_pairs.update((user, item) for user, item in rows)
    return found_users, found_items, found_pairs


def legitimate_texts(
    connection: Connection, erasure_ids: Iterable[str], gone_users: set[int], gone_items: set[int]
) -> Iterator[str]:
    """Texts that stay: ids and titles of those who are not to be gone, and the words of other erasures."""
    mine = set(erasure_ids)
    for source, gone in ((users, gone_users), (items, gone_items)):
        columns = [source.c.key, source.c.id, *([source.c.title] if source is items else [])]
        for key, *texts in streamed(connection, select(*columns)):
            if key not in gone:
                yield from (each for each in texts if each)
    of_others = or_(erasures.c.reason.is_not(None), erasures.c.extension_reason.is_not(None))
    words = select(erasures.c.id, erasures.c.reason, erasures.c.extension_reason).where(of_others)
    for id, *texts in streamed(connection, words):
        if id not in mine:
            yield from (each for each in texts if each)


def legitimate_digests(
    connection: Connection,
    wanted: Sequence[bytes],
    erasure_ids: Iterable[str],
    gone_users: set[int],
    gone_items: set[int],
) -> set[bytes]:
    """Of digests that ought to be gone, those that something else may hold: an id in use again, another's key."""
    mine, found = set(erasure_ids), set[bytes]()
    for chunk in chunks(wanted):
        for source, gone in ((users, gone_users), (items, gone_items)):
            rows = connection.execute(select(source.c.key, source.c.digest).where(source.c.digest.in_(chunk)))
            found.update(bytes(digest) for key, digest in rows if key not in gone)
        for kept in (idempotency.c.key_sha256, idempotency.c.body_sha256):
            others = connection.execute(select(kept, idempotency.c.erasure_id).where(kept.in_(chunk)))
            found.update(bytes(digest) for digest, erasure_id in others if erasure_id not in mine)
    return found


def suppressed_digests(connection: Connection, wanted: Sequence[bytes]) -> set[bytes]:
    """Of these digests, those that a suppression or a tombstone keeps."""
    found = set[bytes]()
    for chunk in chunks(wanted):
        for kept in (suppressions.c.user_digest, suppressions.c.item_digest):
            found.update(map(bytes, connection.scalars(select(kept).where(kept.in_(chunk)).distinct())))
    return found


def _leaving(
    connection: Connection,
    source: Table,
    named: ColumnElement[bytes],
    names: ColumnElement[bool],
    whole: ColumnElement[bool],
    erasure_ids: Sequence[str],
) -> Iterator[LeavingSubject]:
    title = source.c.title if source is items else null()
    query = select(source.c.key, source.c.id, suppressions.c.erasure_id, title).join(source, source.c.digest == named)
    mine = set(erasure_ids)
    for chunk in chunks(erasure_ids):
        wanted = query.where(suppressions.c.erasure_id.in_(chunk), names, or_(whole, ~_recorded(source)))
        found = [LeavingSubject(*row) for row in connection.execute(wanted)]
        needed = _needed(connection, source, named, [subject.key for subject in found], mine)
        yield from (subject for subject in found if subject.key not in needed)


def _back(
    connection: Connection, source: Table, named: ColumnElement[bytes], keys: Iterable[int], mine: set[str]
) -> set[int]:
    hidden_whole = _hidden(source.c.digest, None) if source is users else _hidden(None, source.c.digest)
    hidden = exists().where(named == source.c.digest)
    found = set[int]()
    for chunk in chunks(list(keys)):
        there = select(source.c.key).where(source.c.key.in_(chunk), ~hidden_whole, or_(_recorded(source), ~hidden))
        found.update(connection.scalars(there))
        found |= _needed(connection, source, named, chunk, mine)
    return found


def _needed(
    connection: Connection, source: Table, named: ColumnElement[bytes], keys: Sequence[int], mine: set[str]
) -> set[int]:
    """Of these keys those that an erasure names which is not over, nor purged, and none of `mine`."""
    found = set[int]()
    query = select(source.c.key, erasures.c.id).select_from(source).join(suppressions, named == source.c.digest)
    query = query.join(erasures, erasures.c.id == suppressions.c.erasure_id)
    is_open = erasures.c.status.not_in(("erased", "cancelled")) & erasures.c.purged_at.is_(None)
    for chunk in chunks(keys):
        rows = connection.execute(query.where(source.c.key.in_(chunk), is_open))
        found.update(key for key, erasure_id in rows if erasure_id not in mine)
    return found


def _recorded(source: Table) -> ColumnElement[bool]:
    key = interactions.c.user_key if source is users else interactions.c.item_key
    return exists().where(key == source.c.key)


def _hidden(user: ColumnElement[Any] | None, item: ColumnElement[Any] | None) -> ColumnElement[bool]:
    """Whether a suppression names exactly this: EVERY stands for the side that is None."""
    return exists().where(
        suppressions.c.user_digest == (EVERY if user is None else user),
        suppressions.c.item_digest == (EVERY if item is None else item),
    )


def _keys(connection: Connection, source: Table, digests: Sequence[bytes]) -> dict[bytes, int]:
    found = dict[bytes, int]()
    for chunk in chunks(digests):
        rows = connection.execute(select(source.c.digest, source.c.key).where(source.c.digest.in_(chunk)))
        found.update((bytes(digest), key) for digest, key in rows)
    return found


def streamed(connection: Connection, query: Any) -> Iterator[Any]:
    """The rows of a query, some thousand in memory at a time."""
    return iter(connection.execute(query.execution_options(yield_per=FETCH_ROWS)))


def chunks(values: Sequence[T]) -> Iterator[list[T]]:
    """The values in lists that fit into one statement."""
    ordered = iter(values)
    while chunk := list(islice(ordered, IN_CHUNK)):
        yield chunk
