"""What a search found: per store a verdict, the places, and what was not searched and why."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

PLACES_MAX = 25
"""Of one store that a report names; all are counted."""
ERASURES_MAX = 20
"""Of one place that a report names; all are counted."""


class Verdict(StrEnum):
    """What became of a store."""

    GONE = "GONE"
    PRESENT = "PRESENT"
    NOT_CHECKED = "NOT_CHECKED"


class NeedleKind(StrEnum):
    """What is looked for."""

    ID = "id"
    DIGEST = "digest"
    SALT = "salt"
    TITLE = "title"
    REASON = "reason"
    IDEMPOTENCY = "idempotency"
    REQUEST = "request"
    KEY = "key"
    EDGE = "edge"
    ROW = "row"
    TARGET = "target"
    LINEAGE = "lineage"


KIND_WORDS: Mapping[NeedleKind, str] = {
    NeedleKind.ID: "an id of a user or an item, as the outside knows it",
    NeedleKind.DIGEST: "the keyed digest of such an id",
    NeedleKind.SALT: "the salt of a commitment",
    NeedleKind.TITLE: "the title of an item that was erased whole",
    NeedleKind.REASON: "what somebody wrote about an erasure",
    NeedleKind.IDEMPOTENCY: "digests of an Idempotency-Key and of what came with it",
    NeedleKind.REQUEST: "the id of an erasure where it may not stay: in the stream and its files",
    NeedleKind.KEY: "a surrogate key, in a column or a tensor",
    NeedleKind.EDGE: "an erased pair of keys, in a column or a tensor",
    NeedleKind.ROW: "a vector of a subject: its float32 bytes, or within 0.001 in each component",
    NeedleKind.TARGET: "a row that says what an erasure named",
    NeedleKind.LINEAGE: "a version, an encoder or a checkpoint made from data that held the subject",
}


class ResidueStore(StrEnum):
    """What is searched, and told of, by itself."""

    COLUMNS = "columns"
    DATABASE_FILES = "database_files"
    WRITE_AHEAD_LOG = "write_ahead_log"
    MODEL_STORE = "model_store"
    CHECKPOINTS = "checkpoints"
    STREAM = "stream"
    STREAM_FILES = "stream_files"
    HOME = "home"
    PROCESS_LOGS = "process_logs"


OUT_OF_SCOPE = (
    "backups, and copies of the database or of a store that others keep",
    "standby servers and replicas of the database or of Redis",
    "memory, swap and core dumps of the processes",
    "blocks of the disk that deleted files lay in",
    "files that were imported from, and the public data sets below datasets/",
    "logs of proxies, of PostgreSQL outside its data folder, and of your own Redis",
    "answers, receipts and exports that callers keep",
)


@dataclass
class ResiduePlace:
    """One kind of needle at one place: never the needle itself.

    `at`: the first offset in bytes, None where the place has none (a column, a tensor). `note`: what keeps it there, or
    why it may stay.
    """

    place: str
    kind: NeedleKind
    count: int
    at: int | None = None
    spelling: str | None = None
    note: str | None = None
    erasures: set[str] = field(default_factory=set)

    def as_dict(self) -> dict[str, Any]:
        """As plain values; of many erasures the first ones are named, and all are counted."""
        return {
            "place": self.place,
            "kind": self.kind.value,
            "count": self.count,
            "at": self.at,
            "spelling": self.spelling,
            "note": self.note,
            "erasures": sorted(self.erasures)[:ERASURES_MAX],
            "erasures_in_all": len(self.erasures),
        }


@dataclass
class StoreResult:
    """One store. `unread`: what of it could not be searched, and why; `allowed`: what is there and may be."""

    store: ResidueStore
    n_bytes: int = 0
    places: list[ResiduePlace] = field(default_factory=list)
    allowed: list[ResiduePlace] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """PRESENT where anything was found; GONE only where all of the store was searched."""
        if self.places:
            return Verdict.PRESENT
        return Verdict.NOT_CHECKED if self.unread else Verdict.GONE

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "store": self.store.value,
            "verdict": self.verdict.value,
            "bytes": self.n_bytes,
            "places": [each.as_dict() for each in self.places[:PLACES_MAX]],
            "places_in_all": len(self.places),
            "allowed": [each.as_dict() for each in self.allowed[:PLACES_MAX]],
            "reason": " ".join(self.unread) or None,
        }


@dataclass
class ResidueReport:
    """A search of every store. `needles`: how many of each kind were looked for; `notes`: what limits it."""

    searched_at: str
    seconds: float
    stores: list[StoreResult]
    needles: Mapping[str, int]
    notes: list[str] = field(default_factory=list)

    @property
    def present(self) -> bool:
        """Whether anything is left."""
        return any(store.verdict is Verdict.PRESENT for store in self.stores)

    @property
    def n_bytes(self) -> int:
        """Bytes that were searched."""
        return sum(store.n_bytes for store in self.stores)

    def as_dict(self) -> dict[str, Any]:
        """As plain values, of bounded length whatever was found."""
        return {
            "searched_at": self.searched_at,
            "seconds": round(self.seconds, 3),
            "bytes": self.n_bytes,
            "present": self.present,
            "needles": dict(self.needles),
            "stores": [store.as_dict() for store in self.stores],
            "notes": list(self.notes),
            "out_of_scope": list(OUT_OF_SCOPE),
        }


_OF_ALL = ("searched_at", "seconds", "bytes", "needles", "notes", "out_of_scope")


def about_one(document: Mapping[str, Any], erasure_id: str) -> dict[str, Any]:
    """Of a report that `as_dict` gave, what concerns one erasure; no other one is named in it.

    Where a place or an erasure may have been left out for length, it counts as concerned.
    """
    stores = [_store_about(store, erasure_id) for store in document["stores"]]
    kept = {name: document[name] for name in _OF_ALL}  # what else a journal noted beside it is nobody's
    return {**kept, "stores": stores, "present": any(each["verdict"] == Verdict.PRESENT for each in stores)}


def _store_about(store: Mapping[str, Any], erasure_id: str) -> dict[str, Any]:
    places, allowed = (_places_about(store[name], erasure_id) for name in ("places", "allowed"))
    left_out = store["places_in_all"] - len(store["places"])
    verdict = store["verdict"]
    if verdict == Verdict.PRESENT and not places and not left_out:
        verdict = (Verdict.NOT_CHECKED if store["reason"] else Verdict.GONE).value
    return {**store, "verdict": verdict, "places": places, "places_in_all": len(places) + left_out, "allowed": allowed}


def _places_about(places: Iterable[Mapping[str, Any]], erasure_id: str) -> list[dict[str, Any]]:
    return [
        {**place, "erasures": [erasure_id], "erasures_in_all": 1}
        for place in places
        if erasure_id in place["erasures"] or place["erasures_in_all"] > len(place["erasures"])
    ]
