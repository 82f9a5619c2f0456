"""What a search reads of SQL: what erasures are about, what is legitimate, every column, rows that ought to be gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    column,
    exists,
    func,
    inspect,
    or_,
    select,
    table,
    text,
    tuple_,
)
from sqlalchemy.sql import quoted_name

from service.erasures.targets import EVERY, TargetKind
from service.platform.tables import (
    aliases,
    compactions,
    erasure_targets,
    erasures,
    idempotency,
    interactions,
    items,
    outbox,
    suppressions,
    users,
    versions,
)

FACT = "residue"
"""Under this name the facts of a compaction hold the report of its latest search."""
IN_CHUNK = 500
FETCH_ROWS = 10_000
CHUNK_BYTES = 1 << 20
_BETWEEN = b"\n\0\n"  # no id, text or digest spelled out holds it: what stands in two values is never found as one

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
    """A user or an item that leaves the vocabulary."""

    key: int
    id: str
    erasure_id: str


class FoundRows(NamedTuple):
    """Rows of a table that ought to be gone: `what` is a key, a pair of keys, or the id of an erasure."""

    what: Any
    n: int


def secrets_of(connection: Connection, erasure_ids: Sequence[str]) -> Iterator[ErasureSecrets]:
    """Salt and words of these erasures."""
    wanted = select(erasures.c.id, erasures.c.salt, erasures.c.reason, erasures.c.extension_reason)
    for chunk in _chunks(erasure_ids):
        for row in connection.execute(wanted.where(erasures.c.id.in_(chunk))):
            yield ErasureSecrets(*row)


def idempotency_of(connection: Connection, erasure_ids: Sequence[str]) -> Iterator[IdempotencyDigest]:
    """Digests kept with the Idempotency-Keys of these erasures."""
    for chunk in _chunks(erasure_ids):
        mine = idempotency.c.erasure_id.in_(chunk)
        for key, body, erasure_id in connection.execute(
            select(idempotency.c.key_sha256, idempotency.c.body_sha256, idempotency.c.erasure_id).where(mine)
        ):
            yield IdempotencyDigest(bytes(key), erasure_id)
            yield IdempotencyDigest(bytes(body), erasure_id)


def targets_of(connection: Connection, erasure_ids: Sequence[str]) -> Iterator[StoredTarget]:
    """The pairs that these erasures name."""
    wanted = select(erasure_targets.c.user_key, erasure_targets.c.item_key, erasure_targets.c.erasure_id)
    for chunk in _chunks(erasure_ids):
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
    for chunk in _chunks(erasure_ids):
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
    for chunk in _chunks(list(pairs)):
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
        for key, *texts in _streamed(connection, select(*columns)):
            if key not in gone:
                yield from (each for each in texts if each)
    of_others = or_(erasures.c.reason.is_not(None), erasures.c.extension_reason.is_not(None))
    words = select(erasures.c.id, erasures.c.reason, erasures.c.extension_reason).where(of_others)
    for id, *texts in _streamed(connection, words):
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
    for chunk in _chunks(wanted):
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
    for chunk in _chunks(wanted):
        for kept in (suppressions.c.user_digest, suppressions.c.item_digest):
            found.update(map(bytes, connection.scalars(select(kept).where(kept.in_(chunk)).distinct())))
    return found


def columns_with_text(connection: Connection) -> list[tuple[str, str]]:
    """(table, column) of everything in the database that can hold text or bytes, whoever made it."""
    inspector = inspect(connection)
    found = list[tuple[str, str]]()
    for name in sorted(inspector.get_table_names()):
        for described in inspector.get_columns(name):
            kind = described["type"].__class__.__name__.upper()
            if connection.dialect.name == "sqlite" or not kind.endswith(
                ("INTEGER", "INT", "BIGINT", "SMALLINT", "TIMESTAMP", "BOOLEAN")
            ):
                found.append((name, described["name"]))
    return found


def values_of(connection: Connection, table_name: str, column_name: str) -> Iterator[bytes]:
    """All values of a column that are text or bytes, as the database spells them, many together."""
    wanted: ColumnElement[Any] = column(quoted_name(column_name, True))
    source = table(quoted_name(table_name, True))
    query = select(wanted).select_from(source)
    if connection.dialect.name == "sqlite":
        query = query.where(func.typeof(wanted).in_(("text", "blob")))
    else:
        kind = _pg_type(connection, table_name, column_name)
        if kind not in ("bytea", "text", "character varying", "character"):
            query = select(text(f'CAST("{column_name}" AS text)')).select_from(source)
        query = query.where(wanted.is_not(None))
    gathered, size = list[bytes](), 0
    for (value,) in _streamed(connection, query):
        data = value.encode() if isinstance(value, str) else bytes(value)
        gathered.append(data)
        size += len(data)
        if size >= CHUNK_BYTES:
            yield _BETWEEN.join([*gathered, b""])
            gathered, size = [], 0
    if gathered:
        yield _BETWEEN.join(gathered)


def rows_with_keys(
    connection: Connection, user_keys: Sequence[int], item_keys: Sequence[int], pairs: Sequence[tuple[int, int]]
) -> Iterator[tuple[str, FoundRows]]:
    """Rows of the vocabulary and of interactions that ought to be gone, by place."""
    for place, key, keys in (
        ("users.key", users.c.key, user_keys),
        ("items.key", items.c.key, item_keys),
        ("interactions.user_key", interactions.c.user_key, user_keys),
        ("interactions.item_key", interactions.c.item_key, item_keys),
    ):
        for chunk in _chunks(keys):
            counted = select(key, func.count()).where(key.in_(chunk)).group_by(key)
            yield from ((place, FoundRows(*row)) for row in connection.execute(counted))
    pair = (interactions.c.user_key, interactions.c.item_key)
    for named in _chunks(pairs):
        for user, item in connection.execute(select(*pair).where(tuple_(*pair).in_(named))):
            yield "interactions", FoundRows((user, item), 1)


def rows_of_erasures(connection: Connection, erasure_ids: Sequence[str]) -> Iterator[tuple[str, FoundRows]]:
    """Rows and cells of these erasures that ought to be gone, by place."""
    for chunk in _chunks(erasure_ids):
        for source in (erasure_targets, outbox, idempotency):
            owner = source.c.erasure_id
            counted = select(owner, func.count()).where(owner.in_(chunk)).group_by(owner)
            yield from ((source.name, FoundRows(*row)) for row in connection.execute(counted))
        for cell in (erasures.c.salt, erasures.c.reason, erasures.c.extension_reason):
            kept = select(erasures.c.id).where(erasures.c.id.in_(chunk), cell.is_not(None))
            yield from ((f"erasures.{cell.name}", FoundRows(id, 1)) for id in connection.scalars(kept))


def sqlite_pages(connection: Connection) -> tuple[dict[int, str], int]:
    """Which table each page of a SQLite file belongs to, itself or by an index; free pages to none. And their size."""
    named = text("SELECT pageno, coalesce(tbl_name, d.name) FROM dbstat d LEFT JOIN sqlite_schema s ON s.name = d.name")
    size = connection.scalar(text("PRAGMA page_size"))
    return {row.pageno: row[1] for row in connection.execute(named)}, int(size or 0)


def _leaving(
    connection: Connection,
    source: Table,
    named: ColumnElement[bytes],
    names: ColumnElement[bool],
    whole: ColumnElement[bool],
    erasure_ids: Sequence[str],
) -> Iterator[LeavingSubject]:
    query = select(source.c.key, source.c.id, suppressions.c.erasure_id).join(source, source.c.digest == named)
    mine = set(erasure_ids)
    for chunk in _chunks(erasure_ids):
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
    for chunk in _chunks(list(keys)):
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
    for chunk in _chunks(keys):
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
    for chunk in _chunks(digests):
        rows = connection.execute(select(source.c.digest, source.c.key).where(source.c.digest.in_(chunk)))
        found.update((bytes(digest), key) for digest, key in rows)
    return found


def _pg_type(connection: Connection, table_name: str, column_name: str) -> str:
    query = text(
        "SELECT data_type FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND table_name = :t AND column_name = :c"
    )
    return str(connection.scalar(query, {"t": table_name, "c": column_name}))


def _streamed(connection: Connection, query: Any) -> Iterator[Any]:
    return iter(connection.execute(query.execution_options(yield_per=FETCH_ROWS)))


def _chunks(values: Sequence[T]) -> Iterator[list[T]]:
    ordered = iter(values)
    while chunk := list(islice(ordered, IN_CHUNK)):
        yield chunk
