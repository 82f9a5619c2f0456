"""`expunge receipt`: fetch what proves an erasure, and check it without the service."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.client import DEFAULT_URL, Key, ServiceClient, Url
from service.cli.context import Json, print_result
from service.cli.failures import Refusal

if TYPE_CHECKING:
    from service.audit.tlog.note import VerifierKey
    from service.receipts.verification import Opening, VerifiedReceipt

app = typer.Typer(help="What proves an erasure: fetch it, check it offline.", no_args_is_help=True)

LogKeys = Annotated[
    list[str],
    typer.Option(
        "--key", metavar="VKEY", help="Public key of the log, or a file that holds it; repeatable, a witness's too."
    ),
]
KEY_BYTES_MAX = 10_000


class Form(StrEnum):
    """How a receipt is written."""

    JSON = "json"
    HTML = "html"
    TLOG_PROOF = "tlog-proof"
    COSE = "cose"


@app.command("get")
def get(
    erasure_id: Annotated[str, typer.Argument(metavar="ERASURE", help="The id that the acceptance gave.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write it; - is standard output.")],
    form: Annotated[Form, typer.Option("--form", help="`json` is what verifies; `html` is for people.")] = Form.JSON,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Fetch the receipt of an erasure from a running service."""
    with closing(ServiceClient(url, key)) as client:
        data = client.content(f"/v1/erasures/{erasure_id}/receipt.{form.value}")
    if str(out) == "-":
        sys.stdout.buffer.write(data)
    else:
        out.write_bytes(data)


@app.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A receipt in its JSON form.")],
    key: LogKeys,
    erasure: Annotated[str | None, typer.Option("--erasure", metavar="ID", help="What it must be about.")] = None,
    opening: Annotated[
        Path | None,
        typer.Option("--opening", metavar="JSON", help="Salt and targets that you kept: shows what it is about."),
    ] = None,
    json_file: Json = None,
) -> None:
    """Check a receipt: needs neither the service nor a network.

    Keep the log's public key from the start: one that comes with the receipt proves nothing.
    """
    from service.audit.tlog.errors import Unverified
    from service.receipts.document import Receipt
    from service.receipts.verification import verify as check

    opened = None if opening is None else read_opening(opening)
    try:
        found = check(Receipt.parse(file.read_bytes()), read_keys(key), erasure_id=erasure, opening=opened)
    except Unverified as error:
        msg = f"REFUSED ({error.code}): {error}"
        raise Refusal(msg) from error
    document = {
        "verified": True,
        "statement": dict(found.statement),
        "signers": list(found.signers),
        "checkpoint": {"log": found.checkpoint.origin, "size": found.checkpoint.size},
        "opened": found.opened,
    }
    print_result(json_file, document, "\n".join(_lines(found)))


def read_keys(given: list[str]) -> list[VerifierKey]:
    """Verifier keys, each given as text or as a file with one in a line; raises Refusal."""
    from service.audit.tlog.errors import Unverified
    from service.audit.tlog.note import VerifierKey

    texts: list[str] = []
    for each in given:
        path = Path(each)
        inline = "+" in each and "\n" not in each and not path.exists()
        texts += [each] if inline else path.read_text()[:KEY_BYTES_MAX].split()
    try:
        return [VerifierKey.parse(text) for text in texts]
    except Unverified as error:
        msg = f"{error} `expunge audit keys` of the service shows them."
        raise Refusal(msg) from error


def read_opening(path: Path) -> Opening:
    """What the caller kept, {"salt", "interactions", "users", "items"}; raises Refusal."""
    from service.receipts.verification import Opening

    try:
        kept: dict[str, Any] = json.loads(path.read_bytes())
        opening = Opening(kept["salt"], *(kept.get(name, []) for name in ("interactions", "users", "items")))
        opening.commitment()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f'{path.name} is no opening: it needs "salt" (hex) and "interactions", "users" or "items".'
        raise Refusal(msg) from error
    return opening


def _lines(found: VerifiedReceipt) -> list[str]:
    statement = found.statement
    reached = sorted(statement["reached"].items(), key=lambda item: str(item[1]))
    guarantee = statement["guarantee"]
    lines = [
        f"VERIFIED: erasure {statement['erasure_id']} is {statement['status']}.",
        *(f"  {name:<16} {at[:19].replace('T', ' ')} UTC" for name, at in reached),
        f"  targets          {statement['requested']:,} named, {statement['matched']:,} on record",
        f"  mode             {statement['mode']}",
    ]
    if guarantee is not None:
        lines.append(f"  guarantee        {guarantee['kind']}")
    lines.append(f"  log              {found.checkpoint.origin}, {found.checkpoint.size:,} entries")
    lines.append(f"  signed by        {', '.join(found.signers)}")
    if found.opened:
        lines.append("  about            the targets of the opening given")
    if statement["notice"]:
        lines.append(str(statement["notice"]))
    return lines
