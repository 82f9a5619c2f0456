"""The evidence of one erased erasure as a document, and its hash for the log."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.evidence.preparing import PreparedEvidence
from service.evidence.verification import EVIDENCE_FORMAT, SAME_IN_ENTRY
from service.platform.canonical import canonical_json
from service.residue.report import about_one

METHOD = "retraining from scratch on what remains, then purge and search"
NOTED_MAX = 20
"""Of each kind of remark about one store that is kept."""
WORDS_MAX = 500
_SEARCH_FACTS = ("searched_at", "seconds", "bytes")
_ALLOWED = ("place", "kind", "count", "note")


@dataclass(frozen=True)
class CompactionFacts:
    """What is the same for every erasure of one compaction.

    Attributes:
        compaction: its id.
        base_before, base_after: numbers of the bases; the same where the base in use held nothing of it any more.
        version_before, version_after: numbers of the versions that answered before it and answer now.
        purge: `PurgeReport.as_dict()`: what was done in each store, what could not be, and why.
        search: `ResidueReport.as_dict()`: per store a verdict.
        steps: step -> {at, seconds}, as in `compactions.steps`.
        gate: the gate's figures of the new base, where they are known.
    """

    compaction: str
    base_before: int | None
    base_after: int
    version_before: int | None
    version_after: int | None
    purge: Mapping[str, Any]
    search: Mapping[str, Any]
    steps: Mapping[str, Any]
    gate: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ErasureEvidence:
    """What is kept of an erased erasure: `text` in `erasure_evidence.body`, `entry` as the body of `erasure.erased`."""

    text: str
    entry: Mapping[str, Any] = field(compare=False)


def evidence_body(erasure_id: str, facts: CompactionFacts, prepared: PreparedEvidence) -> dict[str, Any]:
    """The evidence of one erasure, as a document of plain values.

    Raises:
        EvidenceIncomplete: no proof of absence was prepared for it.
    """
    return {
        "format": EVIDENCE_FORMAT,
        "erasure_id": erasure_id,
        "compaction": facts.compaction,
        "base_before": facts.base_before,
        "base_after": facts.base_after,
        "versions": {"before": facts.version_before, "after": facts.version_after},
        "method": METHOD,
        "steps": facts.steps,
        "gate": facts.gate,
        "dataset_hash": prepared.dataset_hash,
        "commitment": prepared.commitment,
        "absence": prepared.absence(erasure_id),
        "purge": facts.purge,
        "search": _search(facts.search, erasure_id),
    }


def evidence(erasure_id: str, facts: CompactionFacts, prepared: PreparedEvidence) -> ErasureEvidence:
    """The evidence of one erasure in both its forms; raises what `evidence_body` raises."""
    body = evidence_body(erasure_id, facts, prepared)
    text = canonical_json(body)
    entry = {name: body[name] for name in SAME_IN_ENTRY} | {"evidence": hashlib.sha256(text).hexdigest()}
    return ErasureEvidence(text.decode(), entry)


def _search(report: Mapping[str, Any], erasure_id: str) -> dict[str, Any]:
    """What was searched: a verdict on each store, and what is there and may be, as far as it concerns this erasure."""
    allowed = [store["allowed"] for store in about_one(report, erasure_id)["stores"]]
    return {
        **{name: report.get(name) for name in _SEARCH_FACTS},
        "stores": [_store(*each) for each in zip(report["stores"], allowed, strict=True)],
        "not_searched": [str(each)[:WORDS_MAX] for each in report.get("out_of_scope", ())],
        "notes": [str(each)[:WORDS_MAX] for each in report.get("notes", ())][:NOTED_MAX],
    }


def _store(store: Mapping[str, Any], allowed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    reason = store.get("reason")
    return {
        "store": store["store"],
        "verdict": store["verdict"],
        "bytes": store.get("bytes"),
        "reason": None if reason is None else str(reason)[:WORDS_MAX],
        "kept": [{name: each.get(name) for name in _ALLOWED} for each in allowed[:NOTED_MAX]],
    }
