"""Proof that something is not in the training data that a root commits to. docs/receipt-format.md specifies it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from service.audit.tlog.encoding import strict_base64
from service.audit.tlog.errors import Unverified
from service.audit.tlog.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from service.evidence.training_key import VALUE_BYTES

USERS, ITEMS = "users", "items"
LOWEST, HIGHEST = b"\x00" * VALUE_BYTES, b"\xff" * VALUE_BYTES
"""Stand before the first value and behind the last one."""
SHORT_BYTES = 16
"""How much of a value stands in the list of another one."""
PARTNERS_MAX = 1 << 20
_MEMBERS = {"tree", "index", "low", "high", "list_hash", "list", "hashes"}
_INDEX_MAX = 1 << 62
_HASHES_MAX = 63


@dataclass(frozen=True)
class AbsenceProof:
    """One leaf of a tree: after `low` the next value is `high`, and what `low` was trained with hashes to `list_hash`.

    So nothing between the two is in the tree; and where `partners` is given, all that `low` was trained with.

    Attributes:
        tree: `users` or `items`.
        index: place of the leaf, from 0.
        low, high: values, 32 bytes each, `low` < `high`.
        list_hash: SHA-256 of the partners of `low`, 32 bytes.
        partners: first 16 bytes of the value of each partner of `low`, ascending, without a gap; None: not shown.
        hashes: inclusion proof of the leaf, 32 bytes each.
    """

    tree: str
    index: int
    low: bytes
    high: bytes
    list_hash: bytes
    partners: bytes | None
    hashes: tuple[bytes, ...]

    @classmethod
    def read(cls, value: Any) -> AbsenceProof:
        """From its JSON value; raises Unverified (wrong_absence)."""
        if not isinstance(value, Mapping) or set(value) != _MEMBERS or value["tree"] not in (USERS, ITEMS):
            raise wrong("it has other members than the format")
        index, hashes, partners = value["index"], value["hashes"], value["list"]
        if type(index) is not int or not 0 <= index < _INDEX_MAX:
            raise wrong("its index is no number of a leaf")
        if not isinstance(hashes, list) or len(hashes) > _HASHES_MAX:
            raise wrong("its hashes are no list of at most 63")
        shown = None if partners is None else _bytes(partners, None)
        low, high, list_hash = (_bytes(value[name], VALUE_BYTES) for name in ("low", "high", "list_hash"))
        proof = tuple(_bytes(each, HASH_BYTES) for each in hashes)
        return cls(value["tree"], index, low, high, list_hash, shown, proof)

    def document(self) -> dict[str, Any]:
        """Its JSON value."""
        return {
            "tree": self.tree,
            "index": self.index,
            "low": _text(self.low),
            "high": _text(self.high),
            "list_hash": _text(self.list_hash),
            "list": None if self.partners is None else _text(self.partners),
            "hashes": [_text(each) for each in self.hashes],
        }

    def verify(self, size: int, root: bytes) -> None:
        """Check it against the root of its tree of `size` leaves; raises Unverified (wrong_absence)."""
        if not self.low < self.high:
            raise wrong("there is nothing between its two values")
        if self.partners is not None:
            self._verify_partners(self.partners)
        leaf = leaf_hash(leaf_of(self.low, self.high, self.list_hash))
        try:
            verify_inclusion(leaf, self.index, size, self.hashes, root)
        except Unverified:
            raise wrong("its hashes do not lead to the root of the training data") from None

    def excludes(self, value: bytes) -> bool:
        """Whether it shows that a value (32 bytes) is not in its tree."""
        return self.low < value < self.high

    def excludes_pair(self, user: bytes, item: bytes) -> bool:
        """Whether it shows, by the user's list, that a user and an item were not trained together."""
        return self.tree == USERS and self.low == user and self.partners is not None and item not in self

    def __contains__(self, value: bytes) -> bool:
        """Whether its list has a value."""
        partners, short = self.partners or b"", value[:SHORT_BYTES]
        return any(partners[at : at + SHORT_BYTES] == short for at in range(0, len(partners), SHORT_BYTES))

    def _verify_partners(self, partners: bytes) -> None:
        each = [partners[at : at + SHORT_BYTES] for at in range(0, len(partners), SHORT_BYTES)]
        if len(partners) % SHORT_BYTES or any(a >= b for a, b in pairwise(each)):
            raise wrong("its list is not in order")
        if hashlib.sha256(partners).digest() != self.list_hash:
            raise wrong("its list is not the one that the leaf commits to")


def leaf_of(low: bytes, high: bytes, list_hash: bytes) -> bytes:
    """What a leaf is the hash of: 96 bytes."""
    return low + high + list_hash


def wrong(why: str) -> Unverified:
    """The refusal of a proof of absence."""
    return Unverified("wrong_absence", f"A proof that something was not trained on does not hold: {why}.")


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(value: Any, length: int | None) -> bytes:
    try:
        found = strict_base64(value)
    except (TypeError, ValueError):
        raise wrong("a value in it is not base64") from None
    if length is not None and len(found) != length:
        raise wrong(f"a value in it has not {length} bytes")
    if len(found) > PARTNERS_MAX * SHORT_BYTES:
        raise wrong("its list is too long")
    return found
