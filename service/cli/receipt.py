"""`expunge receipt`: fetch what proves an erasure, and check it without the service."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.client import DEFAULT_URL, Key, ServiceClient, Url
from service.cli.context import Json, print_result
from service.cli.failures import Refusal

if TYPE_CHECKING:
    from service.audit.tlog.note import VerifierKey
    from service.evidence.training_key import TrainingKey
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
    training_key: Annotated[
        Path | None,
        typer.Option(
            "--training-key",
            metavar="FILE",
            help="Key of the base's training data: shows that it is these targets that are not in them.",
        ),
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
    if training_key is not None and opened is None:
        msg = "A training key shows something of targets alone: name them with --opening."
        raise Refusal(msg)
    learnt = None if training_key is None else read_training_key(training_key)
    try:
        receipt = Receipt.parse(file.read_bytes())
        found = check(receipt, read_keys(key), erasure_id=erasure, opening=opened, training_key=learnt)
    except Unverified as error:
        msg = f"REFUSED ({error.code}): {error}"
        raise Refusal(msg) from error
    document = {
        "verified": True,
        "statement": dict(found.statement),
        "signers": list(found.signers),
        "checkpoint": {"log": found.checkpoint.origin, "size": found.checkpoint.size},
        "opened": found.opened,
        "evidence": found.evidence,
        "absence": None if found.absence is None else asdict(found.absence),
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


def read_training_key(path: Path) -> TrainingKey:
    """The key of a base's training data, as `expunge audit training-key` gives it; raises Refusal."""
    from service.evidence.training_key import TrainingKey

    try:
        return TrainingKey.parse(path.read_text()[:KEY_BYTES_MAX])
    except ValueError as error:
        msg = f"{path.name} holds no training key. {error} `expunge audit training-key --base N` gives it."
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
    lines += _evidence_lines(found)
    if statement["notice"]:
        lines.append(str(statement["notice"]))
    return lines


def _evidence_lines(found: VerifiedReceipt) -> list[str]:
    evidence, absence = found.evidence, found.absence
    if evidence is None or absence is None:
        return []
    stores = evidence["search"]["stores"]
    gone = [store for store in stores if store["verdict"] == "GONE"]
    lines = [
        f"  trained anew     base {evidence['base_after']} without it, data set {evidence['dataset_hash'][:16]}...",
        f"  not in it        {absence.shown:,} of {absence.targets:,} targets shown to be absent",
    ]
    if absence.named is not None:
        lines.append("  by name          they are the targets of the opening given")
    lines.append(f"  searched         {len(gone)} of {len(stores)} stores, nothing found")
    left_out = [f"  not searched     {store['store']}: {store['reason']}" for store in stores if store not in gone]
    return lines + left_out
