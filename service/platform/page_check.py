"""Reads a SQLite file through, table by table, in bounded time: `PRAGMA quick_check` on a connection of its own.

The connection is new each time, so that the pages come from the file and not from its memory. A table that there was no
time for is the first one of the next run.
"""

import sqlite3
import threading
import time

import structlog

from service.platform import metrics

_SCHEMA = "sqlite_schema"

log = structlog.get_logger()


class PageCheck:
    """The pages of one file. `damaged`: tables in which something is wrong, their indexes counted with them."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.damaged: list[str] = []
        self._unread: list[str] | None = None
        self._n_tables = 0
        self._finished_at: float | None = None
        self._connection: sqlite3.Connection | None = None

    def run(self, seconds: float) -> bool:
        """Read the tables that are left, for `seconds` at most; whether the file is read through.

        Raises:
            sqlite3.Error: the file cannot be opened. Damage is no error: see `damaged`.
        """
        connection = sqlite3.connect(
            f"file:{_quoted(self._path)}?mode=ro", uri=True, check_same_thread=False, timeout=1
        )
        self._connection = connection
        timer = threading.Timer(seconds, connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            return self._read(connection, time.monotonic() + seconds)
        finally:
            timer.cancel()
            self._connection = None
            connection.close()

    def interrupt(self) -> None:
        """End a run that is under way; what it had read stays read."""
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    def told(self) -> str:
        """What was read, in words."""
        if self._finished_at is None:
            left = "all" if self._unread is None else f"{len(self._unread)} of {self._n_tables}"
            return f"no page was found damaged; {left} tables are still to be read through"
        return f"read through {time.monotonic() - self._finished_at:.0f} s ago, none damaged"

    def _read(self, connection: sqlite3.Connection, deadline: float) -> bool:
        if self._unread is None:
            self._begin(connection)
        unread = self._unread or []
        while unread:
            if time.monotonic() >= deadline:
                return False
            begun = time.monotonic()
            try:
                sound = _is_sound(connection, unread[0])
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                    return False
                raise
            metrics.database_check_seconds.observe(time.monotonic() - begun)
            if not sound and unread[0] not in self.damaged:
                self.damaged.append(unread[0])
            elif sound and unread[0] in self.damaged:
                self.damaged.remove(unread[0])
            unread.pop(0)
        self._unread, self._finished_at = None, time.monotonic()
        return True

    def _begin(self, connection: sqlite3.Connection) -> None:
        try:
            names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rootpage")
            self._unread = [_SCHEMA, *(name for (name,) in names)]
        except sqlite3.DatabaseError as error:
            if not _says_damage(error):
                raise
            self._unread = [_SCHEMA]
        self._n_tables = len(self._unread)
        self.damaged = [name for name in self.damaged if name in self._unread]


def _is_sound(connection: sqlite3.Connection, table: str) -> bool:
    name = table.replace('"', '""')
    try:
        return bool(connection.execute(f'PRAGMA quick_check("{name}")').fetchone() == ("ok",))
    except sqlite3.DatabaseError as error:
        if not _says_damage(error):
            raise
        return False


def _says_damage(error: sqlite3.DatabaseError) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
