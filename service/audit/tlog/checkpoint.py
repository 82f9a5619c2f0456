"""Checkpoints (C2SP tlog-checkpoint): a log's head as the text of a signed note."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass

from service.audit.tlog.encoding import strict_base64
from service.audit.tlog.errors import Unverified
from service.audit.tlog.merkle import HASH_BYTES
from service.audit.tlog.note import SignedNote, VerifierKey

_SIZE = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class LogCheckpoint:
    """The head of a log: its name, its number of entries, the root over them (32 bytes)."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: str) -> LogCheckpoint:
        """Read a note's text; extension lines are passed over; raises Unverified (malformed_checkpoint)."""
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] or not all(lines[:-1]) or not _SIZE.fullmatch(lines[1]):
            raise _malformed("its lines are the log's name, its size and its root")
        try:
            root = strict_base64(lines[2])
        except ValueError:
            raise _malformed("the root is not base64") from None
        if len(root) != HASH_BYTES:
            raise _malformed("the root has not 32 bytes")
        return cls(lines[0], int(lines[1]), root)

    @classmethod
    def verified(cls, note: str, keys: Iterable[VerifierKey], origin: str | None = None) -> LogCheckpoint:
        """Read a signed checkpoint and check that one of these keys signed it.

        Raises:
            Unverified: what SignedNote.parse and verify raise; malformed_checkpoint; other_log where `origin` is given
                and the checkpoint is of another log.
        """
        signed = SignedNote.parse(note)
        signed.verify(keys)
        checkpoint = cls.parse(signed.text)
        if origin is not None and checkpoint.origin != origin:
            raise Unverified("other_log", f"The checkpoint is of the log {checkpoint.origin}, not of {origin}.")
        return checkpoint

    def text(self) -> str:
        """The text to sign."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def _malformed(why: str) -> Unverified:
    return Unverified("malformed_checkpoint", f"This is no checkpoint of a log: {why}.")
