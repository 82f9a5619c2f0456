"""What is said of one place that can hold a person's data."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class DataKind(StrEnum):
    """What a place holds of a person."""

    ID = "id"
    DIGEST = "digest"
    KEY = "key"
    VECTOR = "vector"
    TEXT = "text"
    FACT = "fact"
    REQUEST = "request"
    COMMITMENT = "commitment"
    NOTHING = "nothing"


class GoesAt(StrEnum):
    """When what a place holds of a person goes."""

    FORGOTTEN = "forgotten"
    ERASED = "erased"
    RETENTION = "retention"
    NEVER = "never"


class DataStore(StrEnum):
    """What a place is part of."""

    DATABASE = "database"
    HOME = "home"
    STREAM = "stream"
    LOG = "log"
    METRICS = "metrics"
    OUTSIDE = "outside"


KINDS = {
    DataKind.ID: "an id as the outside knows it, in clear",
    DataKind.DIGEST: "a digest of an id or a secret: keyed, or of random bits; it recognises, it does not name",
    DataKind.KEY: "a surrogate key: a number that only the vocabulary (users, items) turns into an id",
    DataKind.VECTOR: "a vector or a figure that was learnt from a person's interactions",
    DataKind.TEXT: "free text, which may name anybody",
    DataKind.FACT: "a fact about a person, by the key, digest or request beside it: a time, a count",
    DataKind.REQUEST: "the random id of an erasure; it leads to a person only through erasures and erasure_targets",
    DataKind.COMMITMENT: "a salted or plain hash over many things: it confirms a guess to whoever holds the rest",
    DataKind.NOTHING: "nothing personal",
}
MOMENTS = {
    GoesAt.FORGOTTEN: "once the model has forgotten the erasure that covers it (seconds)",
    GoesAt.ERASED: "by the time the erasure that covers it is erased (its due_at)",
    GoesAt.RETENTION: "after a time or a number of its own",
    GoesAt.NEVER: "it stays: it names nobody, or the service does not hold it",
}


@dataclass(frozen=True)
class DataPlace:
    """One place and its rule.

    `name` is `table.column`, a path below the home (`*` for one name, `#` before a tensor), a key, a field, a label.
    `kept` is the rule in words; `gap` is what is not so today, None where the rule is carried out.
    """

    store: DataStore
    name: str
    holds: frozenset[DataKind]
    goes: GoesAt
    kept: str
    gap: str | None = None

    @property
    def personal(self) -> bool:
        """Whether it holds anything of a person."""
        return self.holds != {DataKind.NOTHING}


def places(
    store: DataStore,
    names: Iterable[str],
    holds: DataKind | tuple[DataKind, ...],
    goes: GoesAt,
    kept: str,
    gap: str | None = None,
) -> tuple[DataPlace, ...]:
    """Places with one rule."""
    kinds = frozenset({holds} if isinstance(holds, DataKind) else holds)
    return tuple(DataPlace(store, name, kinds, goes, kept, gap) for name in names)


def impersonal(store: DataStore, names: Iterable[str], kept: str = "Nothing personal.") -> tuple[DataPlace, ...]:
    """Places that hold nothing of a person."""
    return places(store, names, DataKind.NOTHING, GoesAt.NEVER, kept)
