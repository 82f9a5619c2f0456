"""Checks a receipt without the service: needs the receipt and the log's public key, no network, no database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.audit.tlog.checkpoint import LogCheckpoint
from service.audit.tlog.errors import Unverified
from service.audit.tlog.merkle import leaf_hash, verify_inclusion
from service.audit.tlog.note import SignedNote, VerifierKey, signatures_of
from service.platform.canonical import canonical_json
from service.receipts.document import FORMAT, Receipt, ReceiptEntry, malformed
from service.receipts.history import history

_FIXED = ("commitment", "mode", "requested", "matched")


@dataclass(frozen=True)
class Opening:
    """What the caller kept: the salt of the 202 (hex) and the targets, which together open the commitment."""

    salt: str
    interactions: Sequence[Mapping[str, str]] = ()
    users: Sequence[str] = ()
    items: Sequence[str] = ()

    def commitment(self) -> str:
        """SHA-256(salt || canonical JSON of the targets), hex."""
        pairs = sorted({(pair["user_id"], pair["item_id"]) for pair in self.interactions})
        document = {
            "interactions": [{"item_id": item, "user_id": user} for user, item in pairs],
            "items": sorted(set(self.items)),
            "users": sorted(set(self.users)),
        }
        return hashlib.sha256(bytes.fromhex(self.salt) + canonical_json(document)).hexdigest()


@dataclass(frozen=True)
class VerifiedReceipt:
    """What a receipt proves: its statement, the entries of the log behind it, the head that holds them, who signed."""

    statement: Mapping[str, Any]
    entries: tuple[Mapping[str, Any], ...]
    checkpoint: LogCheckpoint
    signers: tuple[str, ...]
    opened: bool


def verify(
    receipt: Receipt,
    keys: Iterable[VerifierKey],
    *,
    erasure_id: str | None = None,
    opening: Opening | None = None,
) -> VerifiedReceipt:
    """Check everything that a receipt claims.

    Args:
        receipt: what was presented.
        keys: public keys of the log that are trusted, and of witnesses whose names are to be told.
        erasure_id: the erasure that it must be about.
        opening: shows that it is about these targets.

    Raises:
        Unverified: the code names the fault (docs/receipt-format.md lists them).
    """
    keys = tuple(keys)
    signed = SignedNote(receipt.statement + "\n", tuple(signatures_of(receipt.signature)))
    names = {key.name for key in signed.verify(keys)}
    statement = _object(receipt.statement, "the statement")
    if statement.get("format") != FORMAT or statement.get("log") not in names:
        raise Unverified("wrong_signature", "The statement is signed by another than the log that it names.")
    if erasure_id is not None and statement.get("erasure_id") != erasure_id:
        raise Unverified("other_erasure", "The receipt is about another erasure.")
    note = SignedNote.parse(receipt.checkpoint)
    checkpoint = LogCheckpoint.verified(receipt.checkpoint, keys, str(statement["log"]))
    entries = tuple(_proven(entry, checkpoint) for entry in receipt.entries)
    _agree(statement, receipt.entries, entries)
    if opening is not None and opening.commitment() != statement["commitment"]:
        detail = "The salt and the targets given do not open the commitment: the erasure was about something else."
        raise Unverified("wrong_commitment", detail)
    signers = tuple(key.name for key in note.verify(keys))
    return VerifiedReceipt(statement, entries, checkpoint, signers, opening is not None)


def _proven(entry: ReceiptEntry, checkpoint: LogCheckpoint) -> Mapping[str, Any]:
    verify_inclusion(leaf_hash(entry.text.encode()), entry.index, checkpoint.size, entry.hashes, checkpoint.root)
    document = _object(entry.text, "an entry")
    if document.get("seq") != entry.index + 1:
        raise Unverified("wrong_index", "An entry stands at another place of the log than it says.")
    return document


def _agree(statement: Mapping[str, Any], given: Sequence[ReceiptEntry], entries: Sequence[Mapping[str, Any]]) -> None:
    """The statement says what the log says."""
    if any(entry.get("erasure_id") != statement.get("erasure_id") for entry in entries):
        raise Unverified("other_erasure", "An entry of the log in it is about another erasure.")
    indices = [entry.index for entry in given]
    if statement.get("entries") != indices or indices != sorted(set(indices)):
        raise Unverified("missing_entries", "Entries of the log were left out, added or reordered.")
    first = entries[0]
    if first.get("event") != "erasure.accepted":
        raise _contradiction("its first entry is not the acceptance")
    if any(statement.get(name) != first["body"].get(name) for name in _FIXED):
        raise _contradiction("the acceptance in the log names another commitment, mode or number of targets")
    told = history(entries)
    if statement.get("status") != told.status:
        raise _contradiction(f"it says {statement.get('status')}, and by the log the erasure is {told.status}")
    if statement.get("reached") != told.reached:
        raise _contradiction("a state was reached at another time than it says")
    if statement.get("extension") != told.extension or statement.get("decision") != told.decision:
        raise _contradiction("an extension or a decision is another than the log tells of")
    if told.extension is not None and statement.get("due_at") != told.extension["until"]:
        raise _contradiction("the deadline is another than it was extended to")
    if statement.get("legal_hold", False) is not told.legal_hold:
        raise _contradiction("the log tells otherwise of a legal hold")
    if statement.get("final") is not told.final:
        raise _contradiction("only an erasure that is over has a final receipt")


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("body", {}), dict):
        raise malformed(f"{what} is no JSON object")
    return value


def _contradiction(why: str) -> Unverified:
    return Unverified("contradiction", f"The receipt contradicts the log: {why}.")
