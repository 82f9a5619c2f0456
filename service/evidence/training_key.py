"""The key of a base's training commitment: an id becomes a value that nobody else can tell it by."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.platform.identity import Identity

VALUE_BYTES = 32
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, repr=False)
class TrainingKey:
    """Whoever holds it can tell which value belongs to an id that they know or guess, for this base and no other.

    Attributes:
        secret: 32 bytes.
    """

    secret: bytes

    @classmethod
    def derived(cls, identity: Identity, base: int, dataset_hash: str) -> TrainingKey:
        """The key of a base; derived each time, stored nowhere."""
        return cls(identity.derive(f"training commitment\0{base}\0{dataset_hash}"))

    @classmethod
    def parse(cls, text: str) -> TrainingKey:
        """Read 64 hexadecimal digits; raises ValueError."""
        bare = text.strip().lower()
        if _HEX.fullmatch(bare) is None:
            msg = "A training key is 64 hexadecimal digits."
            raise ValueError(msg)
        return cls(bytes.fromhex(bare))

    @property
    def commitment(self) -> str:
        """SHA-256 of the key, hex: published, so that no other key passes for it."""
        return hashlib.sha256(self.secret).hexdigest()

    def user(self, id: str) -> bytes:
        """HMAC-SHA256(key, "user" 0x00 id), 32 bytes."""
        return hmac.digest(self.secret, b"user\0" + id.encode(), "sha256")

    def item(self, id: str) -> bytes:
        """HMAC-SHA256(key, "item" 0x00 id), 32 bytes."""
        return hmac.digest(self.secret, b"item\0" + id.encode(), "sha256")

    def __str__(self) -> str:
        return self.secret.hex()
