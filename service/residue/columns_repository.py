"""What a search looks through in SQL: every column, rows that ought to be gone; and whose the pages of a file are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, column, func, inspect, select, table, text, tuple_
from sqlalchemy.sql import quoted_name

from service.platform.tables import erasure_targets, erasures, idempotency, interactions, items, outbox, users
from service.residue.repository import chunks, streamed

CHUNK_BYTES = 1 << 20
_BETWEEN = b"\n\0\n"  # no id, text or digest spelled out holds it: what stands in two values is never found as one


class FoundRows(NamedTuple):
    """Rows of a table that ought to be gone: `what` is a key, a pair of keys, or the id of an erasure."""

    what: Any
    n: int


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
    for (value,) in streamed(connection, query):
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
        for chunk in chunks(keys):
            counted = select(key, func.count()).where(key.in_(chunk)).group_by(key)
            yield from ((place, FoundRows(*row)) for row in connection.execute(counted))
    pair = (interactions.c.user_key, interactions.c.item_key)
    for named in chunks(pairs):
        for user, item in connection.execute(select(*pair).where(tuple_(*pair).in_(named))):
            yield "interactions", FoundRows((user, item), 1)


def rows_of_erasures(connection: Connection, erasure_ids: Sequence[str]) -> Iterator[tuple[str, FoundRows]]:
    """Rows and cells of these erasures that ought to be gone, by place."""
    for chunk in chunks(erasure_ids):
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


def _pg_type(connection: Connection, table_name: str, column_name: str) -> str:
    query = text(
        "SELECT data_type FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND table_name = :t AND column_name = :c"
    )
    return str(connection.scalar(query, {"t": table_name, "c": column_name}))
