"""Prepared statements: the same on both databases as through SQLAlchemy."""

from datetime import UTC, datetime

from sqlalchemy import Connection, bindparam, func, insert, or_, select, update

from service.platform.database import Database
from service.platform.prepared_statements import PreparedStatement
from service.platform.tables import audit_entries, items

AT = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
ENTRY = {"seq": 1, "at": AT, "event": "e", "erasure_id": None, "version": None, "body": "{}", "leaf_hash": b"\0\xff"}


def test_values_are_written_as_their_columns_ask(database: Database) -> None:
    """Instants and bytes read back through SQLAlchemy as they were."""
    statement = PreparedStatement(insert(audit_entries))

    database.transact(lambda connection: statement.run(connection, ENTRY))

    row = database.query(lambda connection: connection.execute(select(audit_entries)).one())
    assert row._asdict() == ENTRY


def test_rows_are_written_many_at_once(database: Database) -> None:
    """Of the columns that are named; the number of rows is told."""
    statement = PreparedStatement(insert(items).inline(), ["id", "digest"])

    def unit(connection: Connection) -> tuple[int, int]:
        rows = [{"id": str(number), "digest": bytes([number]) * 32} for number in range(5)]
        return statement.run_many(connection, rows), statement.run_many(connection, [])

    assert database.transact(unit) == (5, 0)


def test_a_name_may_stand_twice_and_constants_stay(database: Database) -> None:
    """Binds are found by name, in their order."""
    add = PreparedStatement(insert(items).inline(), ["id", "digest"])
    title = bindparam("text", type_=items.c.title.type)
    change = PreparedStatement(
        update(items)
        .where(items.c.id == bindparam("item"), or_(items.c.title.is_(None), items.c.title != title), items.c.key > 0)
        .values(title=title)
    )

    def unit(connection: Connection) -> None:
        add.run(connection, {"id": "a", "digest": b"a" * 32})
        change.run(connection, {"item": "a", "text": "Alpha", "unknown": 1})

    database.transact(unit)

    assert database.query(lambda connection: connection.scalar(select(items.c.title))) == "Alpha"


def test_answers_are_rows_or_none(database: Database) -> None:
    """One, all, or nothing."""
    add = PreparedStatement(insert(items).inline(), ["id", "digest"])
    find = PreparedStatement(
        select(items.c.id, items.c.digest).where(items.c.id >= bindparam("low")).order_by(items.c.id)
    )
    count = PreparedStatement(select(func.count()).select_from(items))
    database.transact(lambda c: add.run_many(c, [{"id": id, "digest": id.encode() * 32} for id in "abc"]))

    def unit(connection: Connection) -> None:
        assert [tuple(map(bytes_or_text, row)) for row in find.fetch(connection, {"low": "b"})] == [
            ("b", b"b" * 32),
            ("c", b"c" * 32),
        ]
        assert find.first(connection, {"low": "z"}) is None
        assert list(count.first(connection) or ()) == [3]

    database.query(unit)


def bytes_or_text(value: object) -> object:
    """Drivers differ in what holds bytes."""
    return bytes(value) if isinstance(value, memoryview) else value
