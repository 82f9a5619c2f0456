"""A receipt as a document: a signed statement, the log's entries that it rests on, their proofs, and the log's head.

What is signed and what is hashed is carried as the exact text: whoever verifies it needs no rule for writing JSON.
docs/receipt-format.md is the specification.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.audit.tlog.encoding import strict_base64
from service.audit.tlog.errors import Unverified

FORMAT = "expunge-receipt/v1"
BYTES_MAX = 4 * 1024 * 1024
ENTRIES_MAX = 1_000


@dataclass(frozen=True)
class ReceiptEntry:
    """One entry of the log: its place from 0, its canonical JSON, its inclusion proof (hashes of 32 bytes)."""

    index: int
    text: str
    hashes: tuple[bytes, ...]


@dataclass(frozen=True)
class Receipt:
    """A receipt as it is passed on; nothing of it is to be believed before `verification.verify`.

    `statement` is canonical JSON, `signature` the signature lines of the note whose text it is, `checkpoint` a signed
    note; `evidence`, of an erasure that is erased, the text whose hash is in its entry of the log.
    """

    statement: str
    signature: str
    entries: tuple[ReceiptEntry, ...]
    checkpoint: str
    evidence: str | None = None

    @classmethod
    def parse(cls, data: bytes | str) -> Receipt:
        """Read the JSON form; raises Unverified (malformed_receipt)."""
        if len(data) > BYTES_MAX:
            raise malformed("it is too long")
        try:
            document = json.loads(data, object_pairs_hook=_unique)
        except (ValueError, RecursionError):
            raise malformed("it is not JSON, or names something twice") from None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise malformed(f"its format is not {FORMAT}")
        if set(document) - {"evidence"} != {"format", "statement", "signature", "entries", "checkpoint"}:
            raise malformed("it has other members than the format")
        entries = document["entries"]
        if not isinstance(entries, list) or not 0 < len(entries) <= ENTRIES_MAX:
            raise malformed("it has no entries of the log, or too many")
        texts = (_text(document, name) for name in ("statement", "signature", "checkpoint"))
        statement, signature, checkpoint = texts
        evidence = _text(document, "evidence") if "evidence" in document else None
        return cls(statement, signature, tuple(map(_entry, entries)), checkpoint, evidence)

    def json(self) -> bytes:
        """The JSON form, for people to keep."""
        entries = [
            {"index": each.index, "entry": each.text, "hashes": [base64.b64encode(one).decode() for one in each.hashes]}
            for each in self.entries
        ]
        document = {
            "format": FORMAT,
            "statement": self.statement,
            "signature": self.signature,
            "entries": entries,
            "checkpoint": self.checkpoint,
        }
        if self.evidence is not None:
            document["evidence"] = self.evidence
        return json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n"


def malformed(why: str) -> Unverified:
    """The refusal of what is no receipt."""
    return Unverified("malformed_receipt", f"This is no receipt: {why}.")


def _entry(value: Any) -> ReceiptEntry:
    if not isinstance(value, dict) or set(value) != {"index", "entry", "hashes"}:
        raise malformed("an entry has an index, its text and hashes")
    index, hashes = value["index"], value["hashes"]
    if type(index) is not int or not isinstance(hashes, list) or len(hashes) > 63:
        raise malformed("an entry's index is a number, and its hashes are a list of at most 63")
    try:
        proof = tuple(strict_base64(each) for each in hashes)
    except (TypeError, ValueError):
        raise malformed("a hash is not base64") from None
    if any(len(each) != 32 for each in proof):
        raise malformed("a hash has not 32 bytes")
    return ReceiptEntry(index, _text(value, "entry"), proof)


def _text(document: Mapping[str, Any], name: str) -> str:
    value: Any = document[name]
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError):
        raise malformed(f"{name} is no text") from None
    return str(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError
    return document
