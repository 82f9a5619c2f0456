"""What all commands share: where the home is, how the outcome is told, and opening what lies in the home."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.failures import REFUSES_TO_START, Refusal

if TYPE_CHECKING:
    from model_store import ModelStore
    from service.platform.database import Database
    from service.platform.identity import Identity
    from service.settings import Settings

Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write the outcome as JSON to FILE; - is standard output."),
]


@dataclass(frozen=True)
class Invocation:
    """The options before the command."""

    home: Path | None = None


def settings_of(context: typer.Context, **given: Any) -> Settings:
    """The settings in force: options first, then the environment, then the defaults; raises SettingsError."""
    from service.settings import load_settings

    return load_settings(home=context.find_root().obj.home, **given)


def print_result(json_file: Path | None, document: Mapping[str, Any], text: str) -> None:
    """Tell the outcome of a command: the text on standard output, or the document where JSON goes there."""
    from service.cli.terminal import folded, write_json

    if json_file is not None:
        write_json(json_file, document)
    if json_file is None or str(json_file) != "-":
        print(folded(text, sys.stdout))


@dataclass(frozen=True)
class Home:
    """What lies in a home, opened."""

    settings: Settings
    database: Database
    identity: Identity
    store: ModelStore
    behind: str | None = None
    """What the store has seen and the database does not know, in a sentence."""


@contextmanager
def open_home(settings: Settings, *, upgrade: bool = False, behind: bool = False) -> Iterator[Home]:
    """Open database, secret and model store; at the end mark in the store how far the database has come, and close it.

    Args:
        settings: where they are.
        upgrade: bring a SQLite database to the newest schema first; a PostgreSQL one is shared, so its owner does that.
        behind: open a database as well that is older than what the store has seen of it.

    Raises:
        Refusal: the schema is missing or older than this code.
        SecretRefused: the key is not the one that the database or the store was made with.
        DatabaseBehind: the database has gone back in time.
    """
    import structlog

    from model_store import ModelStore
    from service.platform.database import Database
    from service.platform.integrity import raise_watermark
    from service.platform.logging import configure_logging
    from service.platform.problem import DatabaseBehind
    from service.platform.secret_check import SecretCheck

    if not structlog.is_configured():  # a command that ends: what the parts remark must not mix with its outcome
        configure_logging("warning", settings.log_format)
    database = Database(settings.sql_url, pool_size=settings.pool_size, logs_damage=False)
    try:
        secret = SecretCheck(settings, database)
        secret.given()  # before anything is changed
        check_schema(database, settings, upgrade=upgrade)
        identity = secret.unlock()
        store = ModelStore(settings.store_root, key=identity.derive("manifest"))
        older = _older(database, store)
        if older is not None and not behind:
            raise DatabaseBehind(older)
        yield Home(settings, database, identity, store, older)
        if older is None:
            raise_watermark(database, store)
    finally:
        database.close()


def _older(database: Database, store: ModelStore) -> str | None:
    """What the store has seen and the database does not know; a watermark that cannot be read is against it, too."""
    from model_store import StoreError
    from service.platform.integrity import compare

    try:
        return compare(database, store)
    except StoreError as error:
        return f"{error} `expunge db trust` writes it anew."


def check_schema(database: Database, settings: Settings, *, upgrade: bool) -> None:
    """Make sure that the schema is one that this code knows; raises Refusal."""
    import migrations

    at, newest = database.query(migrations.revision_of), migrations.head()
    if at is not None and at >= newest:
        return
    if upgrade and database.is_sqlite:
        migrations.upgrade(settings.sql_url)
        return
    what = "has no schema yet" if at is None else f"has the schema {at}, and this version needs {newest}"
    msg = f"The database {what}. Run `expunge db upgrade`."
    raise Refusal(msg, REFUSES_TO_START)
