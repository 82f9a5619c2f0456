"""`expunge audit`: read the log of a running service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from service.cli.client import DEFAULT_URL, Key, ServiceClient, Url
from service.cli.context import Json, open_home, print_result, settings_of
from service.cli.failures import Refusal
from service.cli.receipt import read_keys
from service.cli.terminal import Terminal

if TYPE_CHECKING:
    from service.audit.verification import VerifiedLog

PAGE = 1_000

app = typer.Typer(help="The append-only log: read, export, check offline.", no_args_is_help=True)

SINCE = typer.Option("--since", metavar="FILE", help="A checkpoint that you kept: the log must continue it.")


@app.command("list")
def list_entries(
    erasure: Annotated[
        str | None, typer.Option("--erasure", metavar="ID", help="Only entries of this erasure.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most entries to show, the oldest first.")] = 100,
    url: Url = DEFAULT_URL,
    key: Key = None,
    json_file: Json = None,
) -> None:
    """Every transition in order; no entry holds the id of a person."""
    with closing(ServiceClient(url, key)) as client:
        entries = list(islice(client.audit(erasure), limit))
    print_result(json_file, {"entries": entries}, "\n".join(line(entry) for entry in entries) or "The log is empty.")


@app.command("keys")
def list_keys(url: Url = DEFAULT_URL, json_file: Json = None) -> None:
    """The public keys of a service's log. Take them once, over a connection that you trust, and keep them."""
    with closing(ServiceClient(url, None)) as client:
        found = client.log_keys()
    print_result(json_file, found, "\n".join(key["vkey"] for key in found["keys"]))


@app.command("checkpoint")
def checkpoint(url: Url = DEFAULT_URL, key: Key = None) -> None:
    """The log's head, signed: keep it, and any later log can be shown to continue it."""
    with closing(ServiceClient(url, key)) as client:
        typer.echo(client.content("/v1/audit/checkpoint").decode(), nl=False)


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Write the whole log of a running service to a file that `audit verify` checks without it."""
    from service.audit.tlog.checkpoint import LogCheckpoint
    from service.audit.tlog.note import SignedNote
    from service.audit.verification import write_log

    terminal = Terminal()
    with closing(ServiceClient(url, key)) as client:
        note = client.content("/v1/audit/checkpoint").decode()
        size = LogCheckpoint.parse(SignedNote.parse(note).text).size
        with terminal.step("Exporting the log", "entries", size) as told, _aside(file) as target:
            for number, text in enumerate(write_log(note, _bundles(client, size))):
                target.write(text)
                told(number, size, "")
    typer.echo(f"{size:,} entries in {file}. `expunge audit verify {file} --key VKEY` checks them.")


@app.command("verify")
def verify(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="An exported log; without it, the log in the home.")
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="VKEY", help="Public key of the log, or a file that holds it; repeatable."),
    ] = None,
    since: Annotated[Path | None, SINCE] = None,
    json_file: Json = None,
) -> None:
    """Check every entry of a log against its signed head: needs neither the service nor a network."""
    from service.audit.tlog.errors import Unverified
    from service.audit.verification import read_log, verify_log

    older = None if since is None else since.read_text()
    try:
        if file is None:
            found = _verify_home(context, key, older)
        elif key:
            with file.open("rb") as lines:
                note, entries = read_log(lines)
                found = verify_log(note, entries, read_keys(key), older=older)
        else:
            msg = "An exported log is checked with a key that you kept: name it with --key."
            raise Refusal(msg)
    except Unverified as error:
        msg = f"REFUSED ({error.code}): {error}"
        raise Refusal(msg) from error
    head = found.checkpoint
    document = {
        "verified": True,
        "log": head.origin,
        "size": head.size,
        "root": head.root.hex(),
        "events": found.events,
    }
    events = [f"  {event:<28} {count:>9,}" for event, count in sorted(found.events.items())]
    print_result(json_file, document, "\n".join([f"VERIFIED: {head.size:,} entries of {head.origin}.", *events]))


@app.command("rotate-key")
def rotate_key(context: typer.Context) -> None:
    """Make a new key in the place of the one that signs the log; the old public key stays published.

    Processes sign with it when they are started again. Where the key comes from the environment, the new one is shown
    to be put there.
    """
    from service.audit.keys import rotate_signing_key

    key, in_home = rotate_signing_key(settings_of(context))
    what = "Restart the API." if in_home else f"Start the API with EXPUNGE_LOG_KEY={key.secret_text()}"
    typer.echo(f"{key.verifier}\n{what}\nWhoever checks the log needs the first line from then on, beside the old key.")


@app.command("training-key")
def training_key(
    context: typer.Context,
    base: Annotated[int, typer.Option("--base", metavar="N", min=1, help="Number of the base, as receipts name it.")],
) -> None:
    """The key of what a base was trained on, for an auditor who is to check a receipt by name.

    Whoever has it can test which ids the values in receipts of this base belong to: give it to whom you would show
    those ids, and to nobody else. It opens nothing of another base, and none of the service's own digests. It is
    derived from the secret key each time and kept nowhere.
    """
    from service.evidence import repository
    from service.evidence.training_key import TrainingKey

    with open_home(settings_of(context)) as home:
        dataset_hash = home.database.query(lambda connection: repository.dataset_hash(connection, base))
        if dataset_hash is None:
            msg = f"There is no base {base}. `expunge status` tells of the one in use; a receipt names its own."
            raise Refusal(msg)
        typer.echo(str(TrainingKey.derived(home.identity, base, dataset_hash)))


def _verify_home(context: typer.Context, key: list[str] | None, older: str | None) -> VerifiedLog:
    from service.audit import repository
    from service.audit.keys import load_signing_key, verifier_keys
    from service.audit.tlog.checkpoint import LogCheckpoint
    from service.audit.tlog.note import SignedNote
    from service.audit.verification import verify_log

    with open_home(settings_of(context)) as home, home.database.read() as connection:
        size = repository.size(connection)
        signed = repository.latest_checkpoint(connection)
        if signed is None or signed[0] > size:
            msg = f"No head of its {size:,} entries was signed yet. Start the API once, or restore what is missing."
            raise Refusal(msg)
        own = [load_signing_key(home.settings).verifier, *verifier_keys(repository.keys(connection))]
        keys = read_keys(key) if key else own
        note = SignedNote.parse(signed[1])
        covered = LogCheckpoint.parse(note.text).size
        entries = (
            text
            for first in range(0, covered, PAGE)
            for text in repository.entries(connection, first, min(PAGE, covered - first))
        )
        return verify_log(signed[1], entries, keys, older=older)


def _bundles(client: ServiceClient, size: int) -> Iterator[bytes]:
    from service.audit.tlog.merkle import TILE_WIDTH
    from service.audit.tlog.tiles import tile_path, unbundle

    for index in range(-(-size // TILE_WIDTH)):
        width = min(TILE_WIDTH, size - index * TILE_WIDTH)
        yield from unbundle(client.content(f"/v1/audit/tile/entries/{tile_path(index, width)}"))


@contextmanager
def _aside(file: Path) -> Iterator[BinaryIO]:
    """The file appears when it is whole."""
    aside = file.with_name(f".{file.name}.part")
    try:
        with aside.open("wb") as target:
            yield target
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


def line(entry: Mapping[str, Any]) -> str:
    """One entry in one line: sequence number, time, event, what it is about, the start of its hash."""
    about = [f"version {entry['version']}"] if entry.get("version") is not None else []
    about += [entry["erasure_id"]] if entry.get("erasure_id") else []
    at = str(entry["at"])[:19].replace("T", " ")
    return f"{entry['seq']:>5}  {at}  {entry['event']:<20}  {entry['leaf_hash'][:8]}  {', '.join(about)}".rstrip()
