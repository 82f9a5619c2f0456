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
from service.evidence.training_key import TrainingKey
from service.evidence.verification import ProvenAbsence, Wanted, verify_evidence
from service.platform.canonical import canonical_json
from service.receipts.document import FORMAT, Receipt, ReceiptEntry, malformed
from service.receipts.history import ErasureHistory, history

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

    def wanted(self, key: TrainingKey) -> Wanted:
        """What must be shown to be absent from the training data."""
        pairs = sorted({(pair["user_id"], pair["item_id"]) for pair in self.interactions})
        return Wanted(key, tuple(pairs), tuple(sorted(set(self.users))), tuple(sorted(set(self.items))))


@dataclass(frozen=True)
class VerifiedReceipt:
    """What a receipt proves: its statement, the entries of the log behind it, the head that holds them, who signed.

    `evidence`, `absence`: of an erasure that is erased, what was searched and shown; else None.
    """

    statement: Mapping[str, Any]
    entries: tuple[Mapping[str, Any], ...]
    checkpoint: LogCheckpoint
    signers: tuple[str, ...]
    opened: bool
    evidence: Mapping[str, Any] | None = None
    absence: ProvenAbsence | None = None


def verify(
    receipt: Receipt,
    keys: Iterable[VerifierKey],
    *,
    erasure_id: str | None = None,
    opening: Opening | None = None,
    training_key: TrainingKey | None = None,
) -> VerifiedReceipt:
    """Check everything that a receipt claims.

    Args:
        receipt: what was presented.
        keys: public keys of the log that are trusted, and of witnesses whose names are to be told.
        erasure_id: the erasure that it must be about.
        opening: shows that it is about these targets.
        training_key: with `opening`, shows that it is these targets that are absent from the training data.

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
    told = _agree(statement, receipt.entries, entries)
    if opening is not None and opening.commitment() != statement["commitment"]:
        detail = "The salt and the targets given do not open the commitment: the erasure was about something else."
        raise Unverified("wrong_commitment", detail)
    wanted = None if opening is None or training_key is None else opening.wanted(training_key)
    absence = _verify_evidence(receipt.evidence, statement, told, wanted)
    evidence = None if receipt.evidence is None else _object(receipt.evidence, "the evidence")
    signers = tuple(key.name for key in note.verify(keys))
    return VerifiedReceipt(statement, entries, checkpoint, signers, opening is not None, evidence, absence)


def _verify_evidence(
    text: str | None, statement: Mapping[str, Any], told: ErasureHistory, wanted: Wanted | None
) -> ProvenAbsence | None:
    """There is evidence of what is erased, and of nothing else."""
    if (text is None) is not (told.erased is None):
        why = "is missing" if text is None else "is of something that is not erased"
        raise Unverified("wrong_evidence", f"The evidence {why}.")
    if text is None or told.erased is None:
        return None
    absence = verify_evidence(text, told.erased, str(statement["erasure_id"]), wanted)
    if absence.targets != statement.get("requested"):
        raise _contradiction("the evidence is about another number of targets")
    return absence


def _proven(entry: ReceiptEntry, checkpoint: LogCheckpoint) -> Mapping[str, Any]:
    verify_inclusion(leaf_hash(entry.text.encode()), entry.index, checkpoint.size, entry.hashes, checkpoint.root)
    document = _object(entry.text, "an entry")
    if document.get("seq") != entry.index + 1:
        raise Unverified("wrong_index", "An entry stands at another place of the log than it says.")
    return document


def _agree(
    statement: Mapping[str, Any], given: Sequence[ReceiptEntry], entries: Sequence[Mapping[str, Any]]
) -> ErasureHistory:
    """The statement says what the log says, which is returned."""
    if any(entry.get("erasure_id") != statement.get("erasure_id") for entry in entries):
        raise Unverified("other_erasure", "An entry of the log in it is about another erasure.")
    indices = [entry.index for entry in given]
    if statement.get("entries") != indices or indices != sorted(set(indices)):
        raise Unverified("missing_entries", "Entries of the log were left out, added or reordered.")
    first = entries[0]
    if first.get("event") != "erasure.accepted":
        raise _contradiction("its first entry is not the acceptance")
    if any(statement.get(name) != first.get("body", {}).get(name) for name in _FIXED):
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
    if not statement.get("out_of_scope"):
        raise _contradiction("it says that there is nothing that it does not cover")
    return told


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
