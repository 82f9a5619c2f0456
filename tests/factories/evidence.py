"""Erasures that are erased, with real evidence: what a compaction leaves, without its training."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from service.audit import service as audit
from service.audit.service import AuditEvent
from service.evidence import repository
from service.evidence.document import CompactionFacts, ErasureEvidence, evidence
from service.evidence.preparing import PreparedEvidence, prepare
from service.evidence.training_key import TrainingKey
from service.evidence.verification import SEARCHED
from service.interactions.service import snapshot
from service.platform.canonical import canonical_json
from service.platform.tables import erasures
from tests.factories.domains import Domains

Lie = Callable[[dict[str, Any]], object]
BASE = 7
DATASET_HASH = "d5" * 32


def found(**verdicts: str) -> dict[str, Any]:
    """A report of a search that found nothing, but for what is said of some stores."""
    stores = [
        {
            "store": store,
            "verdict": verdicts.get(store, "GONE"),
            "bytes": 1_000,
            "places": [],
            "places_in_all": 0,
            "allowed": [],
            "reason": "It is not kept by the service." if verdicts.get(store) == "NOT_CHECKED" else None,
        }
        for store in SEARCHED
    ]
    return {
        "searched_at": "2026-11-25T12:00:00.000000Z",
        "seconds": 1.25,
        "bytes": 9_000,
        "present": False,
        "needles": {"id": 1},
        "stores": stores,
        "notes": [],
        "out_of_scope": ["backups, and copies that others keep"],
    }


def facts(**given: Any) -> CompactionFacts:
    """What a compaction is on record with."""
    known: dict[str, Any] = {
        "compaction": "0198b3c6-7c5e-7c1f-9d0a-00000000c0de",
        "base_before": 3,
        "base_after": BASE,
        "version_before": 6,
        "version_after": 8,
        "purge": {
            "compaction": "0198b3c6-7c5e-7c1f-9d0a-00000000c0de",
            "done": True,
            "hard": False,
            "seconds": 0.5,
            "steps": {"vocabulary": {"done": True, "undone": [], "counts": {"users": 1}, "seconds": 0.5}},
        },
        "search": found(process_logs="NOT_CHECKED"),
        "steps": {"training": {"at": "2026-11-25T11:58:00.000000Z", "seconds": 95.5}},
        "gate": {"ndcg_ratio": 1.003},
    }
    return CompactionFacts(**(known | given))


@dataclass(frozen=True)
class Compacted:
    """Finishes erasures as a compaction does."""

    domains: Domains
    folder: Path

    def prepared(self, *erasure_ids: str, name: str = "c", base: int = BASE) -> PreparedEvidence:
        """The proofs of absence from a base that was trained on what remains."""
        with self.domains.database.read() as connection:
            data = snapshot(connection)
            path, identity = self.folder / f"{name}.evidence", self.domains.identity
            return prepare(
                connection,
                identity,
                path,
                base=base,
                dataset_hash=DATASET_HASH,
                data=data,
                erasure_ids=erasure_ids,
            )

    def erase(self, *erasure_ids: str, lie: Lie | None = None, entry: Mapping[str, Any] | None = None) -> None:
        """Make these erased, with evidence; with `lie` the evidence is changed before it is hashed for the log."""
        made = self.prepared(*erasure_ids, name=erasure_ids[0])
        self.domains.clock.step(60)
        now = self.domains.clock.now()

        def unit(connection: Connection) -> None:
            first = audit.reserve(connection, len(erasure_ids))
            each = {id: told(evidence(id, facts(), made), lie, entry or {}) for id in erasure_ids}
            repository.store(connection, {id: one.text for id, one in each.items()})
            done = erasures.update().where(erasures.c.id.in_(erasure_ids))
            connection.execute(done.values(status="erased", erased_at=now, salt=None, reason=None))
            events = [AuditEvent("erasure.erased", one.entry, id, 8) for id, one in each.items()]
            audit.write(connection, first, events, now)

        self.domains.database.transact(unit)
        made.destroy()

    def key(self, base: int = BASE) -> TrainingKey:
        """The key of a base's commitment."""
        return TrainingKey.derived(self.domains.identity, base, DATASET_HASH)


def told(made: ErasureEvidence, lie: Lie | None, entry: Mapping[str, Any]) -> ErasureEvidence:
    """Evidence that says something else than what is so, and is logged."""
    body = json.loads(made.text)
    if lie is not None:
        lie(body)
    text = canonical_json(body)
    return ErasureEvidence(text.decode(), {**made.entry, "evidence": sha256(text).hexdigest(), **entry})
