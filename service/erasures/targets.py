"""What an erasure names: distinct targets in one order, their digests, and the commitment to them."""

import hashlib
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from service.erasures.modes import Mode
from service.platform.canonical import canonical_json
from service.platform.identity import Identity

SALT_BYTES = 32
EVERY = b""
"""Stands in a suppression for every user or every item."""


class TargetKind(StrEnum):
    """What one target is."""

    INTERACTION = "interaction"
    USER = "user"
    ITEM = "item"


@dataclass(frozen=True)
class Target:
    """One target by its keyed digests; EVERY on the side that it does not name."""

    kind: TargetKind
    user_digest: bytes
    item_digest: bytes


@dataclass(frozen=True)
class Subjects:
    """The distinct targets of one erasure in outside ids, each tuple ordered by code point."""

    interactions: tuple[tuple[str, str], ...] = ()
    users: tuple[str, ...] = ()
    items: tuple[str, ...] = ()

    @classmethod
    def of(cls, interactions: Iterable[tuple[str, str]], users: Iterable[str], items: Iterable[str]) -> "Subjects":
        """Merge what is named twice and put the rest in order."""
        return cls(tuple(sorted(set(interactions))), tuple(sorted(set(users))), tuple(sorted(set(items))))

    def __len__(self) -> int:
        return len(self.interactions) + len(self.users) + len(self.items)

    def targets(self, identity: Identity) -> list[Target]:
        """The same in digests, in order: interactions, users, items."""
        return list(self._targets(identity))

    def commitment(self, salt: bytes) -> str:
        """SHA-256(salt || canonical JSON of the subjects), hex.

        The JSON is {"interactions": [{"item_id", "user_id"}, ...], "items": [...], "users": [...]}, RFC 8785, lists in
        the order of this class: whoever holds the salt and knows the subjects can compute it again.
        """
        document: dict[str, Any] = {
            "interactions": [{"item_id": item, "user_id": user} for user, item in self.interactions],
            "items": self.items,
            "users": self.users,
        }
        return hashlib.sha256(salt + canonical_json(document)).hexdigest()

    def _targets(self, identity: Identity) -> Iterator[Target]:
        for user, item in self.interactions:
            yield Target(TargetKind.INTERACTION, identity.user(user), identity.item(item))
        for user in self.users:
            yield Target(TargetKind.USER, identity.user(user), EVERY)
        for item in self.items:
            yield Target(TargetKind.ITEM, EVERY, identity.item(item))


def new_salt() -> bytes:
    """32 random bytes."""
    return secrets.token_bytes(SALT_BYTES)


def fingerprint(targets: list[Target], mode: Mode, reason: str | None) -> bytes:
    """What makes two requests the same one (32 bytes): targets in order, mode and reason.

    Over keyed digests, so that what is stored of a request's content says nothing to who lacks the secret.
    """
    whole = hashlib.sha256(f"{mode}\0{len(targets)}\0".encode())
    for target in targets:
        whole.update(f"{target.kind}\0".encode() + target.user_digest + target.item_digest)
    whole.update(b"\0" if reason is None else b"\1" + reason.encode())
    return whole.digest()
