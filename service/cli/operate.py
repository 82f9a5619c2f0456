"""`expunge db` and `keys`: what an operator does on the machine that holds the database."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.context import Json, open_home, print_result, settings_of
from service.cli.failures import Refusal

if TYPE_CHECKING:
    from service.platform.auth import KeyFacts, Scope
    from service.settings import Settings

db = typer.Typer(help="The database schema.", no_args_is_help=True)
keys = typer.Typer(help="API keys.", no_args_is_help=True)

EXPIRES_MAX_DAYS = 3650

Expires = Annotated[
    float | None,
    typer.Option("--expires", metavar="DAYS", help="Days after which the key works no more; without it, never."),
]


@db.command("upgrade")
def upgrade(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(help="Revision to reach; by default the newest.")] = "head",
    json_file: Json = None,
) -> None:
    """Bring the database up to the newest schema. Safe to run again, and from several places at once."""
    import migrations

    settings = settings_of(context)
    before = _revision(settings)
    _check_secret(settings)
    _migrate(lambda: migrations.upgrade(settings.sql_url, revision))
    _check_secret(settings)
    _tell_revision(settings, before, json_file)


@db.command("downgrade")
def downgrade(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(help="Revision to go back to; `base` takes everything away.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_file: Json = None,
) -> None:
    """Take the database back to an older schema. What that schema has no place for is lost."""
    import migrations

    settings = settings_of(context)
    if not yes:
        typer.confirm("What the older schema has no place for is lost. Go on?", abort=True, err=True)
    before = _revision(settings)
    _migrate(lambda: migrations.downgrade(settings.sql_url, revision))
    _tell_revision(settings, before, json_file)


@db.command("current")
def current(context: typer.Context, json_file: Json = None) -> None:
    """Say which schema the database has, and which one this version needs."""
    import migrations

    at, newest = _revision(settings_of(context)), migrations.head()
    if at is None:
        text = f"no schema yet; `expunge db upgrade` brings it to {newest}"
    else:
        text = f"{at} (the newest)" if at == newest else f"{at}; `expunge db upgrade` brings it to {newest}"
    print_result(json_file, {"current": at, "newest": newest}, text)


@keys.command("create")
def create(
    context: typer.Context,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            "--scopes",
            help="recommend, read, write, erase, audit, officer or admin; repeatable [recommend].",
        ),
    ] = None,
    label: Annotated[
        str, typer.Option("--label", help="What the key is for; a label may have two keys, which share what they see.")
    ] = "",
    expires: Expires = None,
    json_file: Json = None,
) -> None:
    """Make an API key. It is shown once; only its hash is stored."""
    from service.platform import auth
    from service.platform.clock import SystemClock

    if len(label) > 100:
        msg = "The label has more than 100 characters. Shorten it."
        raise Refusal(msg)
    scopes = _scopes(scope or ["recommend"])
    with open_home(settings_of(context), upgrade=True) as home:
        at = SystemClock().now()
        expires_at = _expires_at(at, expires)
        try:
            key = home.database.transact(lambda write: auth.create_key(write, label, scopes, at, expires_at))
        except auth.KeyRefused as error:
            raise Refusal(str(error)) from None
    document = {
        "id": key.key_id,
        "key": key.token,
        "scopes": sorted(scopes),
        "label": label,
        "expires_at": _iso(expires_at),
    }
    print_result(json_file, document, f"{key.token}\n(id {key.key_id}{_until(expires_at)}; shown this once)")


@keys.command("rotate")
def rotate(
    context: typer.Context,
    label: Annotated[str, typer.Argument(metavar="LABEL")],
    expires: Expires = None,
    json_file: Json = None,
) -> None:
    """Make a second key of a label, with the same scopes: both work until the old one is revoked.

    Without --expires the new one lives as long as the old one was given.
    """
    from service.platform import auth
    from service.platform.clock import SystemClock

    with open_home(settings_of(context), upgrade=True) as home:
        at = SystemClock().now()
        expires_at = _expires_at(at, expires)
        try:
            old, key = home.database.transact(lambda write: auth.rotate_key(write, label, at, expires_at))
        except auth.KeyRefused as error:
            raise Refusal(str(error)) from None
        made = next(each for each in home.database.query(auth.list_keys) if each.key_id == key.key_id)
    document = {
        "id": key.key_id,
        "key": key.token,
        "scopes": sorted(made.scopes),
        "label": label,
        "expires_at": _iso(made.expires_at),
        "old_id": old.key_id,
    }
    text = (
        f"{key.token}\n(id {key.key_id}{_until(made.expires_at)}; shown this once)\nThe old key works on. Once every "
        f"caller has the new one: expunge keys revoke {old.key_id}"
    )
    print_result(json_file, document, text)


@keys.command("list")
def list_keys(context: typer.Context, json_file: Json = None) -> None:
    """All keys: what they may do, when they were made, used last, expire, whether they are revoked.

    Never the keys themselves.
    """
    from service.platform import auth
    from service.platform.clock import SystemClock

    with open_home(settings_of(context)) as home:
        found = home.database.query(auth.list_keys)
    now = SystemClock().now()
    document = {"keys": [_key_document(facts, now) for facts in found]}
    print_result(json_file, document, "\n".join(_key_line(facts, now) for facts in found) or "There are no keys yet.")


@keys.command("revoke")
def revoke(
    context: typer.Context, key_id: Annotated[str, typer.Argument(metavar="ID")], json_file: Json = None
) -> None:
    """Revoke a key. Running services notice within 5 seconds."""
    from service.platform import auth
    from service.platform.clock import SystemClock

    with open_home(settings_of(context)) as home:
        at = SystemClock().now()
        done = home.database.transact(lambda connection: auth.revoke_key(connection, key_id, at))
    if not done:
        msg = "There is no valid key with this id. `expunge keys list` shows them."
        raise Refusal(msg)
    print_result(json_file, {"id": key_id, "revoked": True}, "Revoked.")


@db.command("trust")
def trust(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_file: Json = None,
) -> None:
    """Take the database as it stands for the truth, though the model store has seen a newer one of it.

    The last resort: `expunge serve` cleans such a database from a whole ledger by itself. What was accepted and settled
    since then is lost, and what was erased since is back: send those erasures again first of all.
    """
    from service.erasures.replay import LedgerReplay
    from service.platform.clock import SystemClock
    from service.platform.integrity import CannotReplay, unknown_versions

    with open_home(settings_of(context), behind=True) as home:
        behind = home.behind
        if behind is None:
            print_result(
                json_file, {"behind": None, "trusted": False}, "The database knows all that the model store has seen."
            )
            return
        if not yes:
            typer.echo(behind, err=True)
            typer.confirm("What was accepted and erased since then is lost. Go on?", abort=True, err=True)
        home.store.withdraw("versions", unknown_versions(home.database, home.store))
        try:
            LedgerReplay(home.database, home.store, SystemClock()).trust()
        except CannotReplay as error:
            raise Refusal(str(error)) from error
    text = f"{behind}\nThe database as it stands is the truth from now on. Send again what was erased since then."
    print_result(json_file, {"behind": behind, "trusted": True}, text)


def _revision(settings: Settings) -> str | None:
    import migrations
    from service.platform.database import Database

    database = Database(settings.sql_url, logs_damage=False)
    try:
        return database.query(migrations.revision_of)
    finally:
        database.close()


def _check_secret(settings: Settings) -> None:
    """Compare the key that is given, if one is; it is not made here: who serves may have another home."""
    from service.platform.database import Database
    from service.platform.secret_check import SecretCheck

    database = Database(settings.sql_url, logs_damage=False)
    try:
        secret = SecretCheck(settings, database)
        if secret.given() is not None:
            secret.unlock()
    finally:
        database.close()


def _migrate(step: Any) -> None:
    from alembic.util import CommandError

    try:
        step()
    except CommandError as error:
        msg = "There is no such revision. `expunge db current` names the newest."
        raise Refusal(msg) from error


def _tell_revision(settings: Settings, before: str | None, json_file: Any) -> None:
    after = _revision(settings)
    moved = "" if before == after else f", it was at {before or 'nothing'}"
    text = f"The schema is at {after or 'nothing'}{moved}."
    print_result(json_file, {"before": before, "after": after}, text)


def _scopes(words: list[str]) -> frozenset[Scope]:
    from service.platform.auth import Scope

    named = {word for each in words for word in each.replace(",", " ").split()}
    unknown = named - set(Scope)
    if unknown or not named:
        msg = f"A scope is one of {', '.join(Scope)}."
        raise Refusal(msg)
    return frozenset(Scope(word) for word in named)


def _expires_at(at: datetime, days: float | None) -> datetime | None:
    if days is None:
        return None
    if not 0 < days <= EXPIRES_MAX_DAYS:  # NaN is neither
        msg = f"--expires is a number of days above 0, at most {EXPIRES_MAX_DAYS:,}."
        raise Refusal(msg)
    return at + timedelta(days=days)


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


def _until(expires_at: datetime | None) -> str:
    return "" if expires_at is None else f", until {expires_at:%Y-%m-%d %H:%M} UTC"


def _key_document(facts: KeyFacts, now: datetime) -> dict[str, Any]:
    return {
        "id": facts.key_id,
        "label": facts.label,
        "scopes": sorted(facts.scopes),
        "works": facts.works(now),
        "created_at": _iso(facts.created_at),
        "last_used_at": _iso(facts.last_used_at),
        "expires_at": _iso(facts.expires_at),
        "revoked_at": _iso(facts.revoked_at),
    }


def _key_line(facts: KeyFacts, now: datetime) -> str:
    used = "never used" if facts.last_used_at is None else f"used {facts.last_used_at:%Y-%m-%d %H:%M}"
    told = [f"made {facts.created_at:%Y-%m-%d}", used]
    if facts.revoked_at is not None:
        told.append(f"revoked {facts.revoked_at:%Y-%m-%d}")
    elif facts.expires_at is not None:
        told.append(f"{'expires' if facts.works(now) else 'expired'} {facts.expires_at:%Y-%m-%d}")
    return f"{facts.key_id}  {','.join(sorted(facts.scopes)):<9}  {', '.join(told)}  {facts.label}"
