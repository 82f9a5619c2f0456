"""What a database error means: try again, tell the caller, or a defect."""

import sqlite3

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.platform.problem import Problem, StorageFull, StorageUnavailable

_SQLITE_TRANSIENT = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SQLITE_AWAY = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PROTOCOL,
    }
)
# serialization_failure, deadlock_detected, lock_not_available, admin_shutdown, crash_shutdown, cannot_connect_now.
_SQLSTATE_TRANSIENT = frozenset({"40001", "40P01", "55P03", "57P01", "57P02", "57P03"})
_SQLSTATE_UNDEFINED_TABLE = "42P01"


def is_transient(error: BaseException) -> bool:
    """Whether the same unit may succeed when it is run again from its beginning."""
    cause = _driver_error(error)
    if isinstance(cause, sqlite3.Error):
        return _sqlite_code(cause) in _SQLITE_TRANSIENT
    return is_disconnect(error) or (isinstance(cause, psycopg.Error) and cause.sqlstate in _SQLSTATE_TRANSIENT)


def is_disconnect(error: BaseException) -> bool:
    """Whether the connection to PostgreSQL was lost, or could not be made."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    cause = _driver_error(error)
    return isinstance(cause, psycopg.OperationalError) and (cause.sqlstate is None or cause.sqlstate[:2] == "08")


def problem_of(error: BaseException) -> Problem | None:
    """What to tell the caller, or None where the error is a defect (or the caller of this knows better)."""
    cause = _driver_error(error)
    if isinstance(cause, sqlite3.Error):
        return _sqlite_problem(cause)
    if isinstance(error, PoolTimeout):
        return StorageUnavailable("All connections to the database are in use.")
    if isinstance(cause, psycopg.Error):
        return _postgres_problem(error, cause)
    return None


def _sqlite_problem(error: sqlite3.Error) -> Problem | None:
    code = _sqlite_code(error)
    if code == sqlite3.SQLITE_FULL:
        return StorageFull()
    if code in _SQLITE_TRANSIENT:
        return StorageUnavailable("The database file is locked by another process.", retry_after_s=1)
    if code in _SQLITE_AWAY:
        return StorageUnavailable(f"The database file cannot be used ({error.sqlite_errorname}).")
    if str(error).startswith("no such table"):
        return _not_migrated()
    return None


def _postgres_problem(error: BaseException, cause: psycopg.Error) -> Problem | None:
    if cause.sqlstate == psycopg.errors.DiskFull.sqlstate:
        return StorageFull()
    if cause.sqlstate == _SQLSTATE_UNDEFINED_TABLE:
        return _not_migrated()
    if is_transient(error) or cause.sqlstate == psycopg.errors.QueryCanceled.sqlstate:
        return StorageUnavailable(retry_after_s=1)
    return None


def _not_migrated() -> Problem:
    return StorageUnavailable("The database has no schema yet: run `expunge db upgrade`.")


def _driver_error(error: BaseException) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _sqlite_code(error: sqlite3.Error) -> int:
    # The low byte is the primary code; the rest refines it. Errors of the Python module itself carry none.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
