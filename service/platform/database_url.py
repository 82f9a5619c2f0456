"""Addresses of databases, as objects: a path or a password with ?, # or % in it means itself and nothing else."""

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

_POSTGRES = frozenset({"postgresql", "postgres", "postgresql+psycopg"})
_SQLITE = frozenset({"sqlite", "sqlite+pysqlite"})


def sqlite_url(path: Path) -> URL:
    """The address of a SQLite file, whatever characters its path has."""
    return URL.create("sqlite", database=str(path))


def read_database_url(text: str) -> URL:
    """The address that a text names: a SQLite file by its absolute path, or PostgreSQL through psycopg.

    Raises:
        ValueError: with what the text must be; it does not repeat the text, which may hold a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(_reading(text)) from None
    if url.drivername in _SQLITE:
        return _sqlite(url, options="?" in text)
    if url.drivername in _POSTGRES:
        return _postgres(url)
    if url.get_backend_name() in ("sqlite", "postgresql"):
        msg = "must name no other driver than psycopg: begin it with sqlite:/// or postgresql://"
        raise ValueError(msg)
    msg = "must begin with sqlite:/// or postgresql://"
    raise ValueError(msg)


def _reading(text: str) -> str:
    if "://" not in text:
        return "must begin with sqlite:/// or postgresql://"
    return "must be written as postgresql://user:password@host:port/name, with :/?#[]@% in a password as %XX"


def _sqlite(url: URL, *, options: bool) -> URL:
    if url.host is not None:
        msg = "must have three slashes before a path: sqlite:////absolute/path.db"
        raise ValueError(msg)
    if not url.database or ":memory:" in url.database or "memory" in url.query.values():
        msg = (
            "must name a file, as sqlite:////absolute/path.db: API and worker are processes of their own, and what is "
            "in memory is in one of them only"
        )
        raise ValueError(msg)
    if options or url.database.startswith("file:"):
        msg = "must name a plain file with no options behind it; a ? that belongs to the path is written %3F"
        raise ValueError(msg)
    if "\0" in url.database:
        msg = "must name a file: %00 is in no path"
        raise ValueError(msg)
    return sqlite_url(Path(url.database).expanduser().absolute())


def _postgres(url: URL) -> URL:
    if url.port is not None and not 0 < url.port < 65536:
        msg = "must have a port from 1 to 65535"
        raise ValueError(msg)
    return url.set(drivername="postgresql+psycopg")
