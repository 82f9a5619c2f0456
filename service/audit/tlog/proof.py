"""A proof in a file (C2SP tlog-proof): an entry's index, its inclusion proof, and the signed checkpoint."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass

from service.audit.tlog.checkpoint import LogCheckpoint
from service.audit.tlog.encoding import strict_base64
from service.audit.tlog.errors import Unverified
from service.audit.tlog.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from service.audit.tlog.note import VerifierKey

MAGIC = "c2sp.org/tlog-proof@v1"
HASHES_MAX = 63
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,17})")


@dataclass(frozen=True)
class LogProof:
    """That an entry is in a log. `hashes` is the inclusion proof; `checkpoint` a signed note; `extra` is not proven."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> LogProof:
        """Read the text form; raises Unverified (malformed_proof)."""
        head, blank, checkpoint = text.partition("\n\n")
        first, *lines = head.split("\n")
        if first != MAGIC or not blank:
            raise _malformed(f"it begins with {MAGIC} and holds a checkpoint behind an empty line")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = _unbase64(lines.pop(0).removeprefix("extra "))
        index = _INDEX.fullmatch(lines.pop(0)) if lines else None
        if index is None or len(lines) > HASHES_MAX:
            raise _malformed("an index and at most 63 hashes are needed")
        hashes = tuple(map(_unbase64, lines))
        if any(len(each) != HASH_BYTES for each in hashes):
            raise _malformed("a hash has not 32 bytes")
        return cls(int(index[1]), hashes, checkpoint, extra)

    def verify(self, entry: bytes, keys: Iterable[VerifierKey], origin: str | None = None) -> LogCheckpoint:
        """Check that the log behind these keys holds the entry; returns the head that says so.

        Raises:
            Unverified: what LogCheckpoint.verified and verify_inclusion raise.
        """
        checkpoint = LogCheckpoint.verified(self.checkpoint, keys, origin)
        verify_inclusion(leaf_hash(entry), self.index, checkpoint.size, self.hashes, checkpoint.root)
        return checkpoint

    def __str__(self) -> str:
        extra = [] if self.extra is None else [f"extra {base64.b64encode(self.extra).decode()}"]
        hashes = [base64.b64encode(each).decode() for each in self.hashes]
        return "\n".join([MAGIC, *extra, f"index {self.index}", *hashes, "", self.checkpoint])


def _unbase64(text: str) -> bytes:
    try:
        return strict_base64(text)
    except ValueError:
        raise _malformed("a line is not base64") from None


def _malformed(why: str) -> Unverified:
    return Unverified("malformed_proof", f"This is no proof of a log: {why}.")
