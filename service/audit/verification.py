"""Checks a whole log without the service: every entry, in order, under the head that was signed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from service.audit.tlog.checkpoint import LogCheckpoint
from service.audit.tlog.errors import Unverified
from service.audit.tlog.merkle import EMPTY_ROOT, leaf_hash, node_hash
from service.audit.tlog.note import VerifierKey

FORMAT = "expunge-audit/v1"
"""A file of a log: a line `{"checkpoint": note, "format": FORMAT}`, then each entry's canonical JSON in a line."""
LINE_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class VerifiedLog:
    """A log that holds: its head, and how many of its entries told of what."""

    checkpoint: LogCheckpoint
    events: dict[str, int]


class GrowingTree:
    """The root over leaves that come one by one; keeps one hash a level."""

    def __init__(self) -> None:
        self.size = 0
        self._roots: list[bytes] = []  # of perfect subtrees, the largest first

    def append(self, leaf: bytes) -> None:
        """Add a leaf's hash."""
        self._roots.append(leaf)
        self.size += 1
        size = self.size
        while not size & 1:
            right = self._roots.pop()
            self._roots[-1] = node_hash(self._roots[-1], right)
            size >>= 1

    def root(self) -> bytes:
        """The root over all leaves so far."""
        if not self._roots:
            return EMPTY_ROOT
        *rest, found = self._roots
        for left in reversed(rest):
            found = node_hash(left, found)
        return found


def verify_log(
    note: str, entries: Iterable[bytes], keys: Iterable[VerifierKey], *, older: str | None = None
) -> VerifiedLog:
    """Check that these are all entries of the log behind a signed head, from the first on, and that it only grew.

    Args:
        note: the signed head.
        entries: canonical JSON of each, in order.
        keys: public keys of the log that are trusted.
        older: a signed head that was kept from before; the log must continue it.

    Raises:
        Unverified: wrong_root, wrong_index, malformed_entry, not_append_only, or what LogCheckpoint.verified raises.
    """
    keys = tuple(keys)
    head = LogCheckpoint.verified(note, keys)
    before = None if older is None else LogCheckpoint.verified(older, keys, head.origin)
    tree, events = GrowingTree(), dict[str, int]()
    _continues(before, tree)
    for text in entries:
        event = _event(text, tree.size)
        events[event] = events.get(event, 0) + 1
        tree.append(leaf_hash(text))
        _continues(before, tree)
    if before is not None and before.size > tree.size:
        raise Unverified("not_append_only", f"The log shrank from {before.size} to {tree.size} entries.")
    if tree.size != head.size:
        raise Unverified("wrong_root", f"The head is of {head.size} entries, and {tree.size} are there.")
    if tree.root() != head.root:
        raise Unverified("wrong_root", "The entries are not those that the head was signed for: one was changed.")
    return VerifiedLog(head, events)


def write_log(note: str, entries: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a file of a log."""
    yield json.dumps({"checkpoint": note, "format": FORMAT}).encode() + b"\n"
    for text in entries:
        yield text + b"\n"


def read_log(lines: Iterable[bytes]) -> tuple[str, Iterator[bytes]]:
    """The signed head of a file of a log, and its entries as they come; raises Unverified (malformed_log)."""
    rest = iter(lines)
    head = _object(next(rest, b"")[:LINE_BYTES_MAX])
    if head is None or head.get("format") != FORMAT or not isinstance(head.get("checkpoint"), str):
        raise Unverified("malformed_log", f"This is no file of a log: its first line does not name {FORMAT}.")
    return head["checkpoint"], (line.removesuffix(b"\n") for line in rest)


def _event(text: bytes, index: int) -> str:
    document = _object(text)
    if document is None or not isinstance(document.get("event"), str):
        raise Unverified("malformed_entry", f"Entry {index + 1} is no entry of a log.")
    if document.get("seq") != index + 1:
        raise Unverified("wrong_index", f"Entry {index + 1} says that it is another: one was dropped or moved.")
    return str(document["event"])


def _continues(before: LogCheckpoint | None, tree: GrowingTree) -> None:
    if before is not None and before.size == tree.size and before.root != tree.root():
        detail = f"The first {before.size} entries are not those of the older head: the log was forked."
        raise Unverified("not_append_only", detail)


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
