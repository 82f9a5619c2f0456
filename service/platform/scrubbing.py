"""What deletions leave in the files of a database, taken away: old rows in pages, in write-ahead logs, in statistics.

Nothing here changes what a query answers. What cannot be done, for want of a privilege or because somebody reads, is
told in a sentence each and is no error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.platform.database import Database


@dataclass
class ScrubResult:
    """`undone`: what could not be done, a sentence each; `counts`: what was done, in numbers."""

    undone: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def scrub(
    database: Database, tables: Sequence[str], *, hard: bool, wal_max_bytes: int, patience_s: float = 10.0
) -> ScrubResult:
    """Take away what deletions from these tables left in the database's files.

    Args:
        database: its connection of its own works outside transactions.
        tables: names of our own tables.
        hard: every page is written anew, which takes a lock on the whole table, or file, meanwhile. Without it only
            small tables of PostgreSQL are.
        wal_max_bytes: the most that is written to PostgreSQL's log to have old segments overwritten; 0: nothing.
        patience_s: how long to wait for readers that hold the old state.

    Raises:
        StorageUnavailable, DatabaseDamaged: the database does not answer, or is damaged.
    """
    # Here, and not above: a service knows one of the two.
    if database.is_sqlite:
        from service.platform.scrubbing_sqlite import scrub_sqlite

        return scrub_sqlite(database, hard=hard, patience_s=patience_s)
    from service.platform.scrubbing_postgresql import scrub_postgresql

    return scrub_postgresql(database, tables, hard=hard, wal_max_bytes=wal_max_bytes, patience_s=patience_s)
