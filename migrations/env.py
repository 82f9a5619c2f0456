"""Alembic's environment: one transaction on one connection of ours, and a lock against a second migrator."""

import os

from alembic import context
from sqlalchemy import text

from migrations import MIGRATION_LOCK
from service.platform.database import Database
from service.platform.tables import metadata


def run() -> None:
    """Run the migrations that were asked for."""
    # Alembic's own command has no url in its attributes; it is for writing new migrations.
    url = context.config.attributes.get("url") or os.environ["EXPUNGE_DATABASE_URL"]
    database = Database(url)
    try:
        with database.write() as connection:
            if not database.is_sqlite:  # SQLite is locked already: BEGIN IMMEDIATE
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            context.configure(
                connection=connection, target_metadata=metadata, transactional_ddl=True, compare_server_default=True
            )
            context.run_migrations()
    finally:
        database.close()


run()
