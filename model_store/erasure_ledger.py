"""The ledger of erasures beside the database: what was accepted stays known though an older database is put back.

    <root>/ledger/000000000001.jsonl     segments, each named by the number of its first record
    <root>/ledger/.lock                  held while a record is written

One record a line, canonical JSON. Each names the seal of the record before it and carries its own, so that a record
that is changed, left out or put elsewhere is found. It holds keyed digests, never an id of a person.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store import files as fs
from model_store.errors import Damaged, Missing, Unwritable

FOLDER = "ledger"
SEGMENT_BYTES = 4 << 20
FORK = "database.restored"
"""Event of the record after which the database's log goes on from an earlier entry."""
_LOCK = ".lock"
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
_SEGMENT = re.compile(r"([0-9]{12})\.jsonl")
_CLAIMED = ("number", "previous", "seal", "seq", "leaf", "event")


@dataclass(frozen=True)
class LedgerRecord:
    """One record: its number (from 1), its seal (hex), and the audit entry that it tells of.

    `seq` and `leaf` (hex) are those of the audit entry; `facts` holds everything else that was written.
    """

    number: int
    seal: str
    event: str
    seq: int
    leaf: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class _Place:
    """How far the newest segment was read: its first number, the bytes of whole records in it, the last record."""

    segment: int
    end: int
    last: LedgerRecord


class ErasureLedger:
    """The ledger of a store. Any number of processes may read; whoever holds `writing` appends.

    Args:
        root: the store's folder; made at the first record.
        key: seals the records; without one a seal is a checksum alone.
        segment_bytes: a segment of this size or more is not written to any more.
    """

    def __init__(self, root: Path, key: bytes | None = None, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder, self._root, self._key, self._segment_bytes = root / FOLDER, root, key, segment_bytes
        self._read_to: _Place | None = None

    def last(self) -> LedgerRecord | None:
        """The last whole record, or None where there is none; verifies what was written since the last call.

        Raises:
            Damaged: names the segment and the line.
        """
        known = self._read_to
        for first in reversed(self._segments()):
            at_hand = known if known is not None and known.segment == first else None
            if at_hand is not None and self._size(first) < at_hand.end:
                at_hand = None  # another file by now: it was taken away and written anew
            place = at_hand
            for record, end in self._parse(first, at_hand):
                place = _Place(first, end, record)
            if place is not None:
                self._read_to = place
                return place.last
        self._read_to = None
        return None

    def records(self) -> Iterator[LedgerRecord]:
        """Every whole record, in order, each verified against the one before it.

        Raises:
            Damaged: names the segment and the line.
        """
        last: LedgerRecord | None = None
        for first in self._segments():
            if first != (1 if last is None else last.number + 1):
                raise Damaged(_name(first), "does not follow the segment before it: one is missing")
            before = None if last is None else _Place(first, 0, last)
            for record, _ in self._parse(first, before):
                last = record
                yield record

    @contextlib.contextmanager
    def writing(self) -> Iterator[bool]:
        """Hold the right to append until the end, where no other process or thread has it: yields whether it is held.

        Raises:
            Unwritable: the folder cannot be made or locked.
        """
        try:
            self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self.folder / _LOCK, flags, 0o640)
        except OSError as cause:
            raise Unwritable(FOLDER, cause) from cause
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append records and force them to the disk; only while `writing` is held.

        What a crash left of a record is cut off first. Each record has `event`, `seq`, `leaf`, and further facts, all
        plain ASCII JSON.

        Raises:
            Damaged: what is there cannot be gone on from.
            Unwritable: the file system refused; the records that are whole stand.
        """
        last = self.last()
        try:
            self._cut()
            for record in records:
                last = self._append(record, last)
            self._sync()
        except OSError as cause:
            raise Unwritable(FOLDER, cause) from cause

    def set_aside(self) -> Path | None:
        """Take a ledger that cannot be read out of use, keeping its bytes; returns where it is. Raises Unwritable."""
        if not self._segments():
            return None
        number = 1
        while (aside := self._root / f"{FOLDER}.damaged-{number}").exists():
            number += 1
        try:
            os.rename(self.folder, aside)
            fs.sync_folder(self._root)
        except OSError as cause:
            raise Unwritable(FOLDER, cause) from cause
        self._read_to = None
        return aside

    def _append(self, record: Mapping[str, Any], last: LedgerRecord | None) -> LedgerRecord:
        number = 1 if last is None else last.number + 1
        page = {**record, "number": number, "previous": "" if last is None else last.seal}
        page["seal"] = self._seal(page)
        segment = self._open_segment(number)
        with contextlib.closing(_File(self._root / _name(segment))) as file:
            file.write(_canonical(page) + b"\n")
        return _record(page)

    def _open_segment(self, number: int) -> int:
        """The segment that the record of this number goes to."""
        segments = self._segments()
        if segments:
            path = self._root / _name(segments[-1])
            if path.stat().st_size < self._segment_bytes:
                return segments[-1]
            _sync_file(path)
        return number

    def _cut(self) -> None:
        """Take away what a crash left behind the last whole record of the newest segment."""
        segments = self._segments()
        if not segments:
            return
        path, data = self._root / _name(segments[-1]), self._read(segments[-1], 0)
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)
            _sync_file(path)
        if not whole:
            path.unlink()
            fs.sync_folder(self.folder)

    def _sync(self) -> None:
        segments = self._segments()
        if segments:
            _sync_file(self._root / _name(segments[-1]))
        fs.sync_folder(self.folder)
        fs.sync_folder(self._root)

    def _parse(self, first: int, after: _Place | None) -> Iterator[tuple[LedgerRecord, int]]:
        """The whole records of a segment after a place, each with the byte that it ends at; a torn tail is left out."""
        end, last = (0, None) if after is None else (after.end, after.last)
        for line in self._read(first, end).split(b"\n")[:-1]:
            last = self._verified(line, first, first if last is None else last.number + 1, last)
            end += len(line) + 1
            yield last, end

    def _verified(self, line: bytes, first: int, number: int, last: LedgerRecord | None) -> LedgerRecord:
        what = f"{_name(first)}, record {number}"
        try:
            page = json.loads(line)
            if not isinstance(page, dict) or any(name not in page for name in _CLAIMED):
                raise ValueError
            seal = str(page["seal"]).encode(errors="replace")  # of texts, only those in ASCII can be compared
            sound = hmac.compare_digest(seal, self._seal(page).encode()) and _canonical(page) == line
        except (ValueError, RecursionError) as cause:
            raise Damaged(what, "is not one") from cause
        if not sound:
            raise Damaged(what, "fails its seal, or is sealed with another key")
        if page["number"] != number or (last is not None and page["previous"] != last.seal):
            raise Damaged(what, "does not follow the record before it")
        return _record(page)

    def _seal(self, page: Mapping[str, Any]) -> str:
        data = _canonical({name: value for name, value in page.items() if name != "seal"})
        if self._key is None:
            return hashlib.sha256(data).hexdigest()
        return hmac.digest(self._key, b"ledger\0" + data, "sha256").hex()

    def _segments(self) -> list[int]:
        try:
            names = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(int(found[1]) for name in names if (found := _SEGMENT.fullmatch(name)))

    def _size(self, first: int) -> int:
        try:
            return os.stat(self._root / _name(first), follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0

    def _read(self, first: int, start: int) -> bytes:
        """The bytes of a segment from one on; copied, for a map of a file that is cut back kills who reads it."""
        name = _name(first)
        try:
            with fs.folder(self._root, FOLDER, what=name) as folder_fd:
                return fs.read_from(name.partition("/")[2], folder_fd, name, start)
        except Missing:
            return b""


class _File:
    """A segment, open to append to."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o640)

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def close(self) -> None:
        os.close(self._descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name(first: int) -> str:
    return f"{FOLDER}/{first:012d}.jsonl"


def _canonical(page: Mapping[str, Any]) -> bytes:
    # RFC 8785 of plain ASCII texts and whole numbers: names in order, no spaces.
    return _ENCODER.encode(page).encode()


def _record(page: Mapping[str, Any]) -> LedgerRecord:
    return LedgerRecord(page["number"], page["seal"], page["event"], page["seq"], page["leaf"], page)
