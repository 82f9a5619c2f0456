"""What a receipt says, from what is stored of an erasure: the same facts give the same statement."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.erasures.repository import Erasure
from service.platform.clock import rfc3339
from service.receipts.document import FORMAT
from service.receipts.history import ErasureHistory, history

NOT_FINAL = (
    "Not final. The model no longer uses what was erased, and no answer shows it; older versions, the base that was "
    "trained with it, free pages, write-ahead logs and backups hold it still, until the erasure is erased."
)
HELD = (
    "Not final. The erasure is under legal hold: nothing of it is erased until that is lifted, and no deadline runs. "
    "What was asked for stays hidden from every answer."
)
KEPT = {
    "refused": "Refused. Nothing was erased: the data are kept for what the ground says. They stay hidden from every "
    "answer, are not recorded anew, and no later base of the model learns them.",
    "partial": "Erased in part. The model has forgotten what was asked for, and no answer shows it; what older "
    "versions, bases and backups still hold of it need not be erased, for what the ground says.",
}
RESTORED = (
    "The database was restored from before this erasure, and it was stored again from the ledger: the commitment is "
    "the one that was given; the salt is gone here, and only who asked still has it; times before the restore are in "
    "the ledger, not in this log."
)
OUT_OF_SCOPE = (
    "Backups of this service that were made before the erasure, until they are overwritten.",
    "Copies that others hold: callers of the API, exports, logs and caches outside this service, recipients.",
    "Witnesses and auditors of the log: they hold commitments, which say nothing without the salt.",
)
_GUARANTEES = {
    "forgotten": {
        "kind": "approximate",
        "method": "influence encoder and correction (UnlearnRec, SIGIR 2025), checked by a gate",
        "means": "Scores moved to where retraining without the interactions would take them, within what the gate "
        "measured; it is no proof that nothing can be inferred.",
    },
    "erased": {
        "kind": "exact",
        "method": "retraining from scratch on what remains, then purge and search",
        "means": "The model that answers was never trained on the interactions, and no store that was searched holds "
        "them; what was searched, and what was not, is in the evidence.",
    },
}


def state(erasure: Erasure, log: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The statement about an erasure.

    Args:
        erasure: as it is stored.
        log: the log's name.
        entries: every entry of the log about it, in order.
    """
    told = history(entries)
    return {
        "commitment": erasure.commitment,
        "decision": told.decision,
        "due_at": rfc3339(erasure.due_at),
        "entries": [entry["seq"] - 1 for entry in entries],
        "erasure_id": erasure.id,
        "extension": told.extension,
        "final": told.final,
        "format": FORMAT,
        "guarantee": _guarantee(erasure),
        "legal_hold": told.legal_hold,
        "log": log,
        "matched": erasure.matched,
        "mode": erasure.mode,
        "notice": _notice(told, entries),
        "out_of_scope": list(OUT_OF_SCOPE),
        "reached": told.reached,
        "requested": erasure.requested,
        "stages": erasure.stages,
        "status": erasure.status,
        "versions": {"after": erasure.version_after, "before": erasure.version_before},
    }


def _notice(told: ErasureHistory, entries: Sequence[Mapping[str, Any]]) -> str | None:
    restored = RESTORED if any(entry.get("event") == "erasure.replayed" for entry in entries) else None
    return " ".join(text for text in (_open(told), restored) if text) or None


def _open(told: ErasureHistory) -> str | None:
    """What is not done of it, or is kept."""
    if told.decision is not None:
        return KEPT[told.decision["outcome"]]
    if told.final:
        return None
    return HELD if told.legal_hold else NOT_FINAL


def _guarantee(erasure: Erasure) -> Mapping[str, str] | None:
    if not erasure.matched:
        return None
    return _GUARANTEES.get(erasure.status)
