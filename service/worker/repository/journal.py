"""The journal of batches: each step is written before it begins, so that who comes next knows what was under way."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, func, select, update

from service.platform.tables import batches, versions


class OpenBatch(NamedTuple):
    """A batch that is not finished."""

    id: int
    epoch: int
    version: int | None
    step: str


def open_batch(connection: Connection, *, epoch: int, step: str, size: int, now: datetime) -> int:
    """Begin a batch at `step`; returns its id."""
    row = {"epoch": epoch, "step": step, "size": size, "created_at": now}
    key = connection.execute(batches.insert().values(row)).inserted_primary_key
    assert key is not None
    return int(key[0])


def enter(connection: Connection, batch_id: int, step: str) -> bool:
    """Write that a step begins; False where the batch is finished (another worker abandoned it)."""
    statement = update(batches).where(batches.c.id == batch_id, batches.c.finished_at.is_(None))
    return connection.execute(statement.values(step=step)).rowcount == 1


def reserve(connection: Connection, batch_id: int, at_least: int) -> int:
    """Reserve a version number for a batch: above `at_least` and every number that SQL ever saw."""
    highest = [
        connection.execute(select(func.max(column))).scalar_one_or_none() or 0
        for column in (batches.c.version, versions.c.version)
    ]
    number = max(*highest, at_least) + 1
    connection.execute(update(batches).where(batches.c.id == batch_id).values(version=number))
    return number


def finish(connection: Connection, batch_id: int, outcome: str, now: datetime) -> bool:
    """End a batch; False where it was ended before."""
    statement = update(batches).where(batches.c.id == batch_id, batches.c.finished_at.is_(None))
    return connection.execute(statement.values(finished_at=now, outcome=outcome)).rowcount == 1


def unfinished(connection: Connection, step: str | None = None) -> list[OpenBatch]:
    """Batches that nobody ended, oldest first; only those at `step` where one is given."""
    statement = select(batches.c.id, batches.c.epoch, batches.c.version, batches.c.step)
    statement = statement.where(batches.c.finished_at.is_(None)).order_by(batches.c.id)
    if step is not None:
        statement = statement.where(batches.c.step == step)
    return [OpenBatch(*row) for row in connection.execute(statement)]


def orphans(connection: Connection, numbers: list[int]) -> list[int]:
    """Those of these version numbers whose bytes nobody needs: purged on record, or of a batch that came to nothing."""
    if not numbers:
        return []
    rows = connection.execute(select(versions.c.version, versions.c.status).where(versions.c.version.in_(numbers)))
    known = {row.version: row.status for row in rows}
    ended = select(batches.c.version).where(
        batches.c.version.in_(numbers), batches.c.finished_at.is_not(None), batches.c.outcome != "settled"
    )
    purged = {number for number, status in known.items() if status == "purged"}
    return sorted(purged | (set(connection.scalars(ended)) - known.keys()))
