"""The evidence of one erased erasure as a document, and its hash for the log."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from service.evidence.preparing import PreparedEvidence
from service.evidence.verification import EVIDENCE_FORMAT
from service.platform.canonical import canonical_json
from service.platform.problem import Problem
from service.residue.report import Verdict, about_one

METHOD = "retraining from scratch on what remains, then purge and search"
NOTED_MAX = 20
"""Of each kind of remark about one store that is kept."""
WORDS_MAX = 500
_SEARCH_FACTS = ("searched_at", "seconds", "bytes")
_ALLOWED = ("place", "kind", "count", "note")


class EvidenceRefused(Problem):
    """Something of an erasure was found, or nobody searched: there can be no evidence that it is erased."""

    code = "evidence_refused"
    status = 500
    title = "What was found cannot be called erased"
    next_step = "Nothing was called erased. The compaction tells where it is; it is purged and searched for again."


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

    @cached_property
    def texts(self) -> dict[str, bytes]:
        """Canonical JSON of the members that are the same in each evidence: a compaction may erase thousands."""
        members = {
            "format": EVIDENCE_FORMAT,
            "compaction": self.compaction,
            "base_before": self.base_before,
            "base_after": self.base_after,
            "versions": {"before": self.version_before, "after": self.version_after},
            "method": METHOD,
            "steps": self.steps,
            "gate": self.gate,
            "purge": self.purge,
        }
        return {name: canonical_json(value) for name, value in members.items()}

    @cached_property
    def search_texts(self) -> dict[str, bytes]:
        """The same of the members of `search`."""
        words = {"not_searched": self.search.get("out_of_scope", ()), "notes": self.search.get("notes", ())}
        cut = {name: [str(each)[:WORDS_MAX] for each in given][:NOTED_MAX] for name, given in words.items()}
        members = {name: self.search.get(name) for name in _SEARCH_FACTS} | cut
        return {name: canonical_json(value) for name, value in members.items()}


@dataclass(frozen=True)
class ErasureEvidence:
    """What is kept of an erased erasure: `text` in `erasure_evidence.body`, `entry` as the body of `erasure.erased`."""

    text: str
    entry: Mapping[str, Any] = field(compare=False)


def evidence(erasure_id: str, facts: CompactionFacts, prepared: PreparedEvidence) -> ErasureEvidence:
    """The evidence of one erasure in both its forms.

    Raises:
        EvidenceIncomplete: no proof of absence was prepared for it.
        EvidenceRefused: something of it was found.
    """
    text = _joined(
        facts.texts
        | {
            "erasure_id": canonical_json(erasure_id),
            "dataset_hash": canonical_json(prepared.dataset_hash),
            "commitment": canonical_json(prepared.commitment),
            "absence": canonical_json(prepared.absence(erasure_id)),
            "search": _search(facts, erasure_id),
        }
    )
    entry = {
        "compaction": facts.compaction,
        "base_before": facts.base_before,
        "base_after": facts.base_after,
        "dataset_hash": prepared.dataset_hash,
        "commitment": prepared.commitment,
        "evidence": hashlib.sha256(text).hexdigest(),
    }
    return ErasureEvidence(text.decode(), entry)


def _joined(members: Mapping[str, bytes]) -> bytes:
    """Canonical JSON of an object out of that of its members; their names are ASCII."""
    return b"{" + b",".join(canonical_json(name) + b":" + members[name] for name in sorted(members)) + b"}"


def _search(facts: CompactionFacts, erasure_id: str) -> bytes:
    """What was searched: a verdict on each store and what is there and may be, as far as it concerns this erasure."""
    if not facts.search:
        msg = "No search is on record."
        raise EvidenceRefused(msg)
    stores = about_one(facts.search, erasure_id)["stores"]
    nobodys = any(not place["erasures"] for store in facts.search["stores"] for place in store["places"])
    if nobodys or any(store["verdict"] == Verdict.PRESENT for store in stores):
        raise EvidenceRefused
    return _joined(facts.search_texts | {"stores": canonical_json([_store(each) for each in stores])})


def _store(store: Mapping[str, Any]) -> dict[str, Any]:
    reason = store["reason"]
    return {
        "store": store["store"],
        "verdict": store["verdict"],
        "bytes": store["bytes"],
        "reason": None if reason is None else str(reason)[:WORDS_MAX],
        "kept": [{name: each.get(name) for name in _ALLOWED} for each in store["allowed"][:NOTED_MAX]],
    }
