"""What a database error means: try again, tell the caller, have an operator act, or a defect."""

import re
import sqlite3

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.platform.problem import DatabaseDamaged, DatabaseUnusable, Problem, StorageFull, StorageUnavailable

_SQLITE_TRANSIENT = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SQLITE_AWAY = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL})
_SQLITE_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SQLITE_UNUSABLE = {
    sqlite3.SQLITE_READONLY: "The database file, or its folder, may be read and not written.",
    sqlite3.SQLITE_CANTOPEN: "The database file cannot be opened: it is a folder, or access to it is denied.",
    sqlite3.SQLITE_PERM: "Access to the database file is denied.",
    sqlite3.SQLITE_AUTH: "Access to the database file is denied.",
}
# serialization_failure, deadlock_detected, lock_not_available, admin_shutdown, crash_shutdown, cannot_connect_now.
_SQLSTATE_TRANSIENT = frozenset({"40001", "40P01", "55P03", "57P01", "57P02", "57P03"})
_SQLSTATE_UNDEFINED_TABLE = "42P01"
# data_corrupted, index_corrupted.
_SQLSTATE_DAMAGED = frozenset({"XX001", "XX002"})
# A connection that is refused has no SQLSTATE, only the server's or the library's words; what they say is told in ours.
_REFUSED_CONNECTIONS = (
    (r"password authentication failed|no password supplied", "PostgreSQL refuses the password, or the user."),
    (r"no pg_hba\.conf entry|authentication failed", "PostgreSQL does not let this user in from here (pg_hba.conf)."),
    (r"role .* (does not exist|is not permitted)", "PostgreSQL has no user of this name that may log in."),
    (r"database .* does not exist", "PostgreSQL has no database of this name: create it first."),
    (r"permission denied for database", "The user may not connect to this database."),
    (
        r"invalid (connection|URI query) option|invalid .* value",
        "The address has an option that is not known.",
    ),
    (r"server does not support SSL", "The address asks for TLS and this PostgreSQL does not offer it."),
    (r"certificate", "The TLS connection to PostgreSQL fails: its certificate, or the files that check it."),
    (r"unsupported frontend protocol|received invalid response", "What answers at this address is not PostgreSQL."),
)
_UNREACHABLE = (
    (
        r"could not translate host name|failed to resolve host",
        "The host name of PostgreSQL is not known.",
    ),
    (r"Connection refused", "Nothing listens at the address of PostgreSQL."),
    (r"No such file or directory", "There is no socket at the address of PostgreSQL: no server runs there."),
    (r"timeout|timed out", "The host of PostgreSQL does not answer in time."),
    (r"too many clients|remaining connection slots", "All connections that PostgreSQL allows are in use."),
    (r"starting up|shutting down|in recovery", "PostgreSQL is starting or stopping."),
)


def is_transient(error: BaseException) -> bool:
    """Whether the same unit may succeed when it is run again from its beginning."""
    cause = _driver_error(error)
    if isinstance(cause, sqlite3.Error):
        return _sqlite_code(cause) in _SQLITE_TRANSIENT
    return is_disconnect(error) or (isinstance(cause, psycopg.Error) and cause.sqlstate in _SQLSTATE_TRANSIENT)


def is_disconnect(error: BaseException) -> bool:
    """Whether the connection to PostgreSQL was lost, or could not be made for now."""
    if _refused_connection(error) is not None:
        return False
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
    if code in _SQLITE_DAMAGED:
        return DatabaseDamaged(_sqlite_damage(error))
    if code in _SQLITE_UNUSABLE:
        return DatabaseUnusable(_SQLITE_UNUSABLE[code])
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
    if cause.sqlstate in _SQLSTATE_DAMAGED:
        return DatabaseDamaged(f"PostgreSQL finds its data corrupt ({cause.sqlstate}); its log names the relation.")
    refused = _refused_connection(error)
    if refused is not None:
        return DatabaseUnusable(refused)
    if cause.sqlstate == psycopg.errors.QueryCanceled.sqlstate:
        return StorageUnavailable(retry_after_s=1)
    if is_transient(error):
        return StorageUnavailable(_why(_UNREACHABLE, cause) or "", retry_after_s=1)
    return None


def _refused_connection(error: BaseException) -> str | None:
    """Why PostgreSQL, or its library, turns the address down; None where the error is another."""
    cause = _driver_error(error)
    if not isinstance(cause, psycopg.OperationalError | psycopg.ProgrammingError) or cause.sqlstate is not None:
        return None
    return _why(_REFUSED_CONNECTIONS, cause)


def _why(known: tuple[tuple[str, str], ...], cause: BaseException) -> str | None:
    text = str(cause)
    return next((sentence for pattern, sentence in known if re.search(pattern, text, re.IGNORECASE)), None)


def _sqlite_damage(error: sqlite3.Error) -> str:
    if _sqlite_code(error) == sqlite3.SQLITE_NOTADB:
        return "The database file is no SQLite database, or its first page is damaged (SQLITE_NOTADB)."
    return f"A page of the database file is damaged ({error.sqlite_errorname})."


def _not_migrated() -> Problem:
    return StorageUnavailable("The database has no schema yet: run `expunge db upgrade`.")


def _driver_error(error: BaseException) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _sqlite_code(error: sqlite3.Error) -> int:
    # The low byte is the primary code; the rest refines it. Errors of the Python module itself carry none.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
