"""One version, loaded: its ranker, its vocabulary, and who and what it knows."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store import Array, ModelStore
from service.platform.database import Database
from service.recommendations import repository
from service.recommendations.ranker import (
    LARGEST,
    NO_ROW,
    SHORTEST,
    EmbeddingRanker,
    Ranker,
    Rows,
    Scores,
    largest_score,
    lengths,
)
from service.recommendations.repository import Keys

EMBEDDINGS = "embeddings.safetensors"


class UnusableVersion(Exception):
    """The tensors of a version are sound and do not fit together."""

    def __init__(self, version: int, why: str) -> None:
        super().__init__(
            f"Version {version} is refused: {why}. What was loaded before goes on serving; publish a sound version."
        )


@dataclass(frozen=True)
class ItemVocabulary:
    """Outside ids and titles by item row, bounded by the version's items; None where an item's id is no longer kept."""

    ids: list[str | None]
    titles: list[str | None]
    row_of_digest: dict[bytes, int]

    def rows(self, digests: Iterable[bytes]) -> list[int]:
        """Return the rows of the items behind some digests, leaving out those that the version does not hold."""
        return [row for digest in digests if (row := self.row_of_digest.get(digest)) is not None]


@dataclass(frozen=True)
class LoadedModel:
    """A version that can answer: immutable, so a request keeps the one it began with while another takes its place."""

    version: int
    base: int
    ranker: Ranker
    vocabulary: ItemVocabulary
    user_keys: Keys  # (n_users,) ascending
    item_keys: Keys  # (n_items,) ascending
    user_degrees: NDArray[np.int32]  # (n_users,)
    popularity: Scores  # (n_items,) interactions of each item that the version was made from
    blank_users: NDArray[np.bool_]  # (n_users,) rows that hold nothing: all of it was erased, or never learnt
    blank_items: Rows  # item rows that hold nothing: nobody can be scored by them
    in_catalogue: NDArray[np.bool_]  # (n_items,) items that may be recommended: a degree above 0 and an id
    barred: Rows  # the other rows

    def user_row(self, user_key: int | None) -> int:
        """Return the row of a user, or `NO_ROW` where the version holds no interaction or no vector of theirs."""
        if user_key is None:
            return NO_ROW
        row = int(np.searchsorted(self.user_keys, user_key))
        if row == len(self.user_keys) or self.user_keys[row] != user_key:
            return NO_ROW
        return row if self.user_degrees[row] > 0 and not self.blank_users[row] else NO_ROW

    def item_rows(self, keys: Keys) -> Rows:
        """Return the rows of the items behind some surrogate keys, leaving out those that the version does not hold."""
        rows = np.searchsorted(self.item_keys, keys)
        rows[rows == len(self.item_keys)] = 0
        found: Rows = rows[self.item_keys[rows] == keys]
        return found


def load_model(store: ModelStore, database: Database, version: int) -> LoadedModel:
    """Open a version, verify all of it, and read the ids of its items: tens of milliseconds, so run it in a thread.

    Raises:
        StoreError: the files are missing or damaged.
        UnusableVersion: the tensors do not fit together, or a score could be beyond float32.
        Problem: the database does not answer.
    """
    tensors = store.open("versions", version, EMBEDDINGS)
    _check(tensors, version)
    user_lengths, item_lengths = lengths(tensors["users"]), lengths(tensors["items"])
    if not largest_score(user_lengths, item_lengths) <= LARGEST:
        raise UnusableVersion(version, "its scores would not be finite")
    item_keys = np.array(tensors["item_keys"])
    vocabulary = _vocabulary(database, item_keys)
    degrees = np.array(tensors["item_degrees"])
    in_catalogue = (degrees > 0) & np.array([id is not None for id in vocabulary.ids], bool)
    return LoadedModel(
        version=version,
        base=store.manifest("versions", version).facts.parent or version,
        ranker=EmbeddingRanker(tensors["users"], tensors["items"], degrees),
        vocabulary=vocabulary,
        user_keys=np.array(tensors["user_keys"]),
        item_keys=item_keys,
        user_degrees=np.array(tensors["user_degrees"]),
        popularity=degrees.astype(np.float32),
        blank_users=user_lengths < SHORTEST,
        blank_items=np.flatnonzero(item_lengths < SHORTEST),
        in_catalogue=in_catalogue,
        barred=np.flatnonzero(~in_catalogue),
    )


def _vocabulary(database: Database, item_keys: Keys) -> ItemVocabulary:
    found = database.query(lambda connection: repository.vocabulary(connection, item_keys))
    return ItemVocabulary(
        ids=[None if item is None else item.id for item in found],
        titles=[None if item is None else item.title for item in found],
        row_of_digest={item.digest: row for row, item in enumerate(found) if item is not None},
    )


def _check(tensors: dict[str, Array], version: int) -> None:
    names = ("users", "items", "user_keys", "item_keys", "user_degrees", "item_degrees")
    missing = [name for name in names if name not in tensors]
    if missing:
        raise UnusableVersion(version, f"it has no tensor '{missing[0]}'")
    n_users, n_items = len(tensors["user_keys"]), len(tensors["item_keys"])
    d = tensors["items"].shape[-1]
    expected = {
        "users": ("float32", (n_users, d)),
        "items": ("float32", (n_items, d)),
        "user_keys": ("int64", (n_users,)),
        "item_keys": ("int64", (n_items,)),
        "user_degrees": ("int32", (n_users,)),
        "item_degrees": ("int32", (n_items,)),
    }
    for name, (dtype, shape) in expected.items():
        if (tensors[name].dtype.name, tensors[name].shape) != (dtype, shape):
            raise UnusableVersion(version, f"the tensor '{name}' is not {dtype} of shape {shape}")
    for name in ("user_keys", "item_keys"):
        if np.any(np.diff(tensors[name]) <= 0):
            raise UnusableVersion(version, f"the tensor '{name}' does not ascend")
    if n_items == 0:
        raise UnusableVersion(version, "it holds no items")
