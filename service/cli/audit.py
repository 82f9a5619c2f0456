"""`expunge audit`: read the log of a running service."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from itertools import islice
from typing import Annotated, Any

import typer

from service.cli.client import DEFAULT_URL, Key, ServiceClient, Url
from service.cli.context import Json, print_result

app = typer.Typer(help="Read the append-only log of a running service.", no_args_is_help=True)


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


def line(entry: Mapping[str, Any]) -> str:
    """One entry in one line: sequence number, time, event, what it is about, the start of its hash."""
    about = [f"version {entry['version']}"] if entry.get("version") is not None else []
    about += [entry["erasure_id"]] if entry.get("erasure_id") else []
    at = str(entry["at"])[:19].replace("T", " ")
    return f"{entry['seq']:>5}  {at}  {entry['event']:<20}  {entry['leaf_hash'][:8]}  {', '.join(about)}".rstrip()
