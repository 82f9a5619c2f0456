"""SQLite: zeros over what is deleted, an empty write-ahead log, and where asked for a file written anew."""

import sqlite3
import time
from collections.abc import Callable

from sqlalchemy import Connection

from service.platform.database import Database
from service.platform.database_errors import is_transient
from service.platform.scrubbing import ScrubResult
from service.platform.sqlite import raw

BUSY_MS = 100  # a checkpoint that waits for a reader keeps writers out: it is tried often and waits little
PAUSE_S = 0.1


def scrub_sqlite(database: Database, *, hard: bool, patience_s: float) -> ScrubResult:
    """Empty the write-ahead log; `hard`: write the whole file anew before. See `scrub`."""
    result = ScrubResult()
    with database.maintenance() as connection:
        driver = raw(connection)
        if not _is_secure(driver):
            result.undone.append("secure_delete is off: SQLite does not write zeros over what it deletes.")
        driver.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        if hard:
            _write_anew(driver, result, patience_s)
        if not _within(patience_s, lambda: _empty_log(driver)):
            result.undone.append("A reader keeps the write-ahead log from being emptied.")
        result.counts["free_pages"] = _number(driver, "PRAGMA freelist_count")
    return result


def secure_delete_is_on(connection: Connection) -> bool:
    """Whether this connection writes zeros over what it deletes."""
    return _is_secure(raw(connection))


def _is_secure(driver: sqlite3.Connection) -> bool:
    return _number(driver, "PRAGMA secure_delete") == 1


def _write_anew(driver: sqlite3.Connection, result: ScrubResult, patience_s: float) -> None:
    # In memory the copy would take as much of it as the file is large. It holds what is left, nothing that went.
    driver.execute("PRAGMA temp_store=FILE")
    try:
        if not _within(patience_s, lambda: _vacuum(driver)):
            result.undone.append("Others keep the database file locked: it was not written anew.")
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
            raise
        result.undone.append("The disk has no room for the database file to be written anew.")


def _vacuum(driver: sqlite3.Connection) -> bool:
    try:
        driver.execute("VACUUM")
    except sqlite3.OperationalError as error:
        if not is_transient(error):
            raise
        return False
    return True


def _empty_log(driver: sqlite3.Connection) -> bool:
    try:
        busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        if not is_transient(error):
            raise
        return False
    return not busy


def _within(seconds: float, step: Callable[[], bool]) -> bool:
    """Try a step until it is done, for some seconds at most; whether it was."""
    deadline = time.monotonic() + seconds
    while not step():
        if time.monotonic() >= deadline:
            return False
        time.sleep(PAUSE_S)
    return True


def _number(driver: sqlite3.Connection, pragma: str) -> int:
    return int(driver.execute(pragma).fetchone()[0])
