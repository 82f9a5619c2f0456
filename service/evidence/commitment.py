"""A commitment to training data by which absence is shown for one user, item or pair without showing the others.

Each user has a value, HMAC(key, id), and each item. The values of all users in order make the leaves of a Merkle tree:
a leaf says which value follows which, and hashes the values of the items that the former was trained with. So one
leaf with its inclusion proof shows that nothing lies between two values, or all that one user was trained with. Items
have a tree likewise. It takes a hash a user and an item, and a sort of the interactions.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.audit.tlog.merkle import MerkleLevels, leaf_hash
from service.evidence.absence import HIGHEST, ITEMS, LOWEST, SHORT_BYTES, USERS, AbsenceProof, leaf_of
from service.evidence.training_key import VALUE_BYTES, TrainingKey
from service.platform.problem import Problem

_NOBODY = hashlib.sha256(b"").digest()
Values = NDArray[np.uint8]
Rows = NDArray[np.int64]


class StillTrainedOn(Problem):
    """What is said to be absent is in the training data: the base must not be said to be without it."""

    code = "still_trained_on"
    status = 500
    title = "What is to be erased is in the training data"
    next_step = "Nothing was called erased. Run another compaction, and report this as a defect."


class TrainingCommitment:
    """Commits to the users, items and interactions that a base was trained on."""

    def __init__(self, key: TrainingKey, users: _Side, items: _Side) -> None:
        """Use `of`."""
        self.key, self._users, self._items = key, users, items

    @classmethod
    def of(
        cls, user_ids: Sequence[str], item_ids: Sequence[str], edges: NDArray[np.int32], key: TrainingKey
    ) -> TrainingCommitment:
        """Commit to training data.

        Args:
            user_ids: id of each row of users, distinct.
            item_ids: the same of items.
            edges: (2, m) rows of users and of items, each pair once.
            key: of this base.
        """
        users, items = _values(user_ids, key.user), _values(item_ids, key.item)
        of_users, of_items = edges.reshape(2, -1).astype(np.int64)
        return cls(key, _Side(USERS, users, of_users, items, of_items), _Side(ITEMS, items, of_items, users, of_users))

    def document(self) -> dict[str, Any]:
        """What is published of it: the key's hash, and root (hex) and number of leaves of both trees."""
        return {
            "key": self.key.commitment,
            **{side.tree: {"root": side.leaves.root().hex(), "size": side.leaves.size} for side in self._sides},
        }

    def absence_of_user(self, id: str) -> AbsenceProof:
        """That it holds no such user; raises StillTrainedOn."""
        return self._users.absence(self.key.user(id))

    def absence_of_item(self, id: str) -> AbsenceProof:
        """That it holds no such item; raises StillTrainedOn."""
        return self._items.absence(self.key.item(id))

    def absence_of_pair(self, user: str, item: str) -> AbsenceProof:
        """That it holds no interaction of the two: one of them is absent, or the user's list lacks the item.

        Raises:
            StillTrainedOn: it holds the interaction.
        """
        of_user, of_item = self.key.user(user), self.key.item(item)
        for side, value in ((self._users, of_user), (self._items, of_item)):
            if not side.has(value):
                return side.absence(value)
        proof = self._users.partners(of_user)
        if of_item in proof:
            raise StillTrainedOn("An interaction that is to be erased is in the training data.")
        return proof

    @property
    def _sides(self) -> tuple[_Side, _Side]:
        return self._users, self._items


class _Side:
    """The users, or the items, with what each was trained with on the other side."""

    def __init__(self, tree: str, values: Values, own: Rows, others: Values, theirs: Rows) -> None:
        """`own` and `theirs` are the rows of the interactions, (m,) each; values (n, 32)."""
        self.tree = tree
        order, of_others = _order(values), _order(others)
        rank, theirs_rank = _inverse(order)[own], _inverse(of_others)[theirs]
        by_own = np.argsort(rank * max(len(others), 1) + theirs_rank, kind="stable")
        self._partners = theirs_rank[by_own].astype(np.int32)
        self._starts = np.concatenate(([0], np.cumsum(np.bincount(rank, minlength=len(values)))))
        self._short = np.ascontiguousarray(others[of_others, :SHORT_BYTES])
        self._values = [each.tobytes() for each in values[order]]
        bounds = [LOWEST, *self._values, HIGHEST]
        self._hashes = [_NOBODY, *(hashlib.sha256(self._list(at)).digest() for at in range(len(self._values)))]
        entries = zip(bounds, bounds[1:], self._hashes, strict=False)
        self.leaves = MerkleLevels([leaf_hash(leaf_of(*entry)) for entry in entries])

    def has(self, value: bytes) -> bool:
        at = bisect_left(self._values, value)
        return at < len(self._values) and self._values[at] == value

    def absence(self, value: bytes) -> AbsenceProof:
        if self.has(value):
            raise StillTrainedOn(f"One of the {self.tree} that are to be erased is in the training data.")
        return self._proof(bisect_left(self._values, value), None)

    def partners(self, value: bytes) -> AbsenceProof:
        at = bisect_left(self._values, value)
        return self._proof(at + 1, self._list(at))

    def _proof(self, leaf: int, partners: bytes | None) -> AbsenceProof:
        low = self._values[leaf - 1] if leaf else LOWEST
        high = self._values[leaf] if leaf < len(self._values) else HIGHEST
        hashes = tuple(self.leaves.inclusion_proof(leaf))
        return AbsenceProof(self.tree, leaf, low, high, self._hashes[leaf], partners, hashes)

    def _list(self, at: int) -> bytes:
        return self._short[self._partners[self._starts[at] : self._starts[at + 1]]].tobytes()


def _values(ids: Sequence[str], value_of: Callable[[str], bytes]) -> Values:
    """(n, 32) values of ids."""
    return np.frombuffer(b"".join(map(value_of, ids)), np.uint8).reshape(-1, VALUE_BYTES)


def _order(values: Values) -> Rows:
    """(n,) rows in ascending order of their values."""
    words = np.ascontiguousarray(values).view(">u8")
    order: Rows = np.lexsort(words.T[::-1])
    return order


def _inverse(order: Rows) -> Rows:
    """(n,) rank of each row."""
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank
