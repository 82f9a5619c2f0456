"""Schema migrations, run from code: the command line, tests and start-up checks call these, not alembic's own."""

import threading
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection

FOLDER = Path(__file__).parent

# Any constant does, as long as every migrator of this schema takes the same advisory lock of PostgreSQL.
MIGRATION_LOCK = 0x6578_7075_6E67

# Alembic keeps the migration that runs in module globals: one at a time. Processes are kept apart in env.py.
_one_at_a_time = threading.Lock()


def upgrade(url: str | URL, revision: str = "head") -> None:
    """Bring the database at a SQLAlchemy URL up to a revision; safe from several threads and processes."""
    with _one_at_a_time:
        command.upgrade(_config(url), revision)


def downgrade(url: str | URL, revision: str) -> None:
    """Take the database at a SQLAlchemy URL back to a revision, `base` for an empty one."""
    with _one_at_a_time:
        command.downgrade(_config(url), revision)


def revision_of(connection: Connection) -> str | None:
    """The revision that a database is at; None where it has no schema."""
    return MigrationContext.configure(connection).get_current_revision()


@cache
def head() -> str:
    """The newest revision that this code knows."""
    revision = ScriptDirectory.from_config(_config("")).get_current_head()
    if revision is None:
        msg = "The package has no migrations; the installation is broken."
        raise RuntimeError(msg)
    return revision


def _config(url: str | URL) -> Config:
    config = Config()
    # A % begins a reference to another option.
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    return config
