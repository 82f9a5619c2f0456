"""PostgreSQL: dead rows, samples in the statistics, pages on the disk, and segments of the write-ahead log.

VACUUM makes room of dead rows and index entries and leaves their bytes in it. Only a table that is written anew is free
of them: small ones always are, for that locks them for a fraction of a second, large ones where it is asked for.

A segment that is no longer needed is renamed and kept for later, with its old bytes, until the log comes that far. So
filler is written to the log until it has gone over all of them.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from service.platform.database import Database
from service.platform.scrubbing import ScrubResult

LOCK_TIMEOUT_MS = 100  # whoever reads the table waits behind a lock that is asked for: not long, and again
SMALL_BYTES = 8 << 20  # with its indexes: written anew in some 0.1 s
PAUSE_S = 0.2
FILLER_BYTES = 1 << 20
# The server keeps as much log for later as it wrote between two checkpoints: without some in between, the next purge
# would have that much more to go over.
CHECKPOINT_EVERY = 2

_SEGMENT = re.compile(r"[0-9A-F]{8}([0-9A-F]{8})([0-9A-F]{8})")
_NOT_ALLOWED, _LOCK_NOT_AVAILABLE = "42501", "55P03"


class _Privileges(NamedTuple):
    """What the service's role may do beyond its own tables."""

    catalogs: bool
    checkpoint: bool
    list_log: bool
    see_sessions: bool


def scrub_postgresql(
    database: Database, tables: Sequence[str], *, hard: bool, wal_max_bytes: int, patience_s: float
) -> ScrubResult:
    """Vacuum the tables, have pages written to the disk and old log overwritten. See `scrub`."""
    result = ScrubResult()
    with _session(database) as connection:
        may = _privileges(connection)
        _wait_for_readers(connection, result, may, patience_s)
        for table in tables:
            _vacuum(connection, table, result, patience_s, hard=hard)
        if may.catalogs:
            _vacuum(connection, "pg_catalog.pg_statistic", result, patience_s, hard=hard)
        else:
            result.undone.append(
                "Old statistics (pg_statistic) stay until autovacuum: the role does not own the database."
            )
        if may.checkpoint:
            _overwrite_log(connection, result, may, wal_max_bytes)
        else:
            result.undone.append(
                "Pages and log stay on the disk until the server's next checkpoints: the role lacks pg_checkpoint."
            )
    return result


@contextmanager
def _session(database: Database) -> Iterator[Connection]:
    with database.maintenance() as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text(f"SET lock_timeout = {LOCK_TIMEOUT_MS}"))
        yield connection


def _privileges(connection: Connection) -> _Privileges:
    row = connection.execute(
        text(
            "SELECT r.rolsuper OR pg_has_role(d.datdba, 'USAGE'), "
            "r.rolsuper OR COALESCE(pg_has_role(to_regrole('pg_checkpoint'), 'USAGE'), false), "
            "has_function_privilege('pg_ls_waldir()', 'EXECUTE'), "
            "r.rolsuper OR pg_has_role('pg_read_all_stats', 'USAGE') "
            "FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()"
        )
    ).one()
    return _Privileges(*row)


def _wait_for_readers(connection: Connection, result: ScrubResult, may: _Privileges, patience_s: float) -> None:
    """Wait until nobody sees what was deleted before now; tell of those who still do."""
    now = connection.scalar(text("SELECT pg_current_xact_id()::text"))
    older = text(
        "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database() "
        "AND backend_xmin IS NOT NULL AND age(backend_xmin) >= age(CAST(CAST(:now AS text) AS xid))"
    )
    deadline = time.monotonic() + patience_s
    while readers := connection.scalar(older, {"now": str(int(now) % 2**32)}):
        if time.monotonic() >= deadline:
            result.undone.append(f"{readers:,} open transaction(s) still see rows that were deleted: they stay.")
            break
        time.sleep(PAUSE_S)
    if not may.see_sessions:
        result.counts["sessions_unseen"] = 1
    pinned = connection.scalar(
        text("SELECT count(*) FROM pg_replication_slots WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL")
    )
    if pinned:
        result.undone.append(f"{pinned:,} replication slot(s) keep deleted rows (pg_replication_slots.xmin).")
    prepared = connection.scalar(text("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"))
    if prepared:
        result.undone.append(f"{prepared:,} prepared transaction(s) keep deleted rows (pg_prepared_xacts).")


def _vacuum(connection: Connection, table: str, result: ScrubResult, patience_s: float, *, hard: bool) -> None:
    """Take the dead rows of a table away; small ones, or with `hard` all, are written anew with their indexes."""
    size = connection.scalar(text("SELECT pg_total_relation_size(CAST(:table AS regclass))"), {"table": table})
    hard = hard or int(size) <= SMALL_BYTES
    deadline = time.monotonic() + patience_s
    while True:
        try:
            connection.execute(text(f"VACUUM ({'FULL, ' if hard else ''}ANALYZE) {table}"))
        except DBAPIError as error:
            code = getattr(error.orig, "sqlstate", None)
            if code == _NOT_ALLOWED:
                result.undone.append(f"The role may not vacuum {table}.")
                return
            if code != _LOCK_NOT_AVAILABLE:
                raise
            if time.monotonic() >= deadline:
                result.undone.append(f"Others keep {table} locked: it was not vacuumed.")
                return
            time.sleep(PAUSE_S)
        else:
            kind = "written_anew" if hard else "vacuumed"
            result.counts[kind] = result.counts.get(kind, 0) + 1
            if not hard:
                result.undone.append(f"{table}: bytes of dead rows stay in its pages until these are written anew.")
            return


def _overwrite_log(connection: Connection, result: ScrubResult, may: _Privileges, wal_max_bytes: int) -> None:
    log = _WriteAheadLog(connection, wal_max_bytes)
    last = log.current()
    left_alone = not log.reach(last + 1)
    connection.execute(text("CHECKPOINT"))  # pages to the disk; and segments up to `last` are no longer needed
    if left_alone:
        result.undone.append("The write-ahead log is left as it is: EXPUNGE_PURGE_WAL_MB is less than a segment.")
        return
    if not may.list_log:
        result.undone.append(
            "Whether old segments of the write-ahead log were overwritten is not known: the role lacks pg_monitor."
        )
        return
    files = log.files()
    kept = [number for number in files if number <= last]
    if kept:
        result.undone.append(f"{len(kept):,} old segment(s) of the write-ahead log are kept{_why(connection)}.")
    end = max(files, default=last)
    if not log.reach(end + 1):
        left = end + 1 - log.current()
        result.undone.append(
            f"{left:,} recycled segment(s) of the write-ahead log are not overwritten yet: EXPUNGE_PURGE_WAL_MB."
        )
    result.counts["wal_bytes_written"] = log.written


class _WriteAheadLog:
    """The log, in numbers of its segments."""

    def __init__(self, connection: Connection, max_bytes: int) -> None:
        self._connection, self._left = connection, max_bytes
        self.written = 0
        self._segment_bytes = int(
            connection.scalar(text("SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'"))
        )

    def current(self) -> int:
        """The segment that is written now."""
        position = self._connection.scalar(text("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
        return int(position) // self._segment_bytes

    def files(self) -> list[int]:
        """Those that are on the disk, future ones too."""
        names = self._connection.scalars(text("SELECT name FROM pg_ls_waldir()")).all()
        found = [match for match in map(_SEGMENT.fullmatch, names) if match]
        per_log = 2**32 // self._segment_bytes
        return [int(each[1], 16) * per_log + int(each[2], 16) for each in found]

    def reach(self, number: int) -> bool:
        """Write filler until the log is at a segment, or the bound is reached; whether it is there."""
        began = self.current()
        filler = text("SELECT pg_logical_emit_message(false, 'expunge', repeat('.', :size))")
        while self.current() < number:
            if self._left < FILLER_BYTES:
                return False
            self._connection.execute(filler, {"size": FILLER_BYTES})
            self._left -= FILLER_BYTES
            self.written += FILLER_BYTES
            if self.current() >= began + CHECKPOINT_EVERY:
                began = self.current()
                self._connection.execute(text("CHECKPOINT"))
        # A transaction of its own: what was written before it is on the disk when it has committed.
        self._connection.execute(text("SELECT pg_logical_emit_message(true, 'expunge', '')"))
        return True


def _why(connection: Connection) -> str:
    """What keeps old segments, as far as it can be seen."""
    causes: list[tuple[str, Callable[[], object]]] = [
        (
            "replication slots",
            lambda: connection.scalar(text("SELECT count(*) FROM pg_replication_slots WHERE restart_lsn IS NOT NULL")),
        ),
        (
            "wal_keep_size",
            lambda: connection.scalar(text("SELECT setting <> '0' FROM pg_settings WHERE name = 'wal_keep_size'")),
        ),
        (
            "archiving",
            lambda: connection.scalar(text("SELECT setting <> 'off' FROM pg_settings WHERE name = 'archive_mode'")),
        ),
    ]
    found = [name for name, is_so in causes if is_so()]
    return f" ({', '.join(found)})" if found else ""
