"""Two small files at the store's root that tie it to its database: whose key made it, and how far the two had come.

    <root>/key.check        a keyed digest of a constant, hex: it tells which key, and nothing of the key
    <root>/watermark.json   how far the database had come when it last settled something; it only ever rises

Both are replaced in one rename and forced to the disk. Neither holds an id of a person.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from model_store import files as fs
from model_store.errors import Damaged, Missing, Unwritable

KEY_CHECK, WATERMARK = "key.check", "watermark.json"
_MAX_BYTES = 1024
_LOCK = ".markers.lock"


@dataclass(frozen=True, order=True)
class Watermark:
    """How far a database had come: the size of its audit log and the hash of the last entry, its highest version number
    and the epoch of its lease. `leaf` is hex, empty where the log was. `erasure`: the hash of the last entry by then
    that the ledger must know, empty where there was none."""

    entries: int
    version: int
    epoch: int
    leaf: str
    erasure: str = ""


class StoreMarkers:
    """The markers of a store.

    Args:
        root: the store's folder; made at the first write.
        key: signs the watermark; without one it has a checksum alone.
    """

    def __init__(self, root: Path, key: bytes | None = None) -> None:
        self.root, self._key = root, key

    def key_check(self) -> bytes | None:
        """The check value of the key that the store was made with, or None where none was kept; raises Damaged."""
        data = self._read(KEY_CHECK)
        if data is None:
            return None
        if not re.fullmatch(rb"[0-9a-f]{64}\n", data):
            raise Damaged(KEY_CHECK, "does not hold a check value")
        return bytes.fromhex(data.decode())

    def keep_key_check(self, value: bytes) -> bytes:
        """Keep a check value of 32 bytes where there is none yet; returns the one that stands. Raises Unwritable."""
        with self._locked(KEY_CHECK):
            found = self.key_check()
            if found is None:
                self._write(KEY_CHECK, f"{value.hex()}\n".encode())
        return value if found is None else found

    def watermark(self) -> Watermark | None:
        """The watermark, or None where none was written yet; raises Damaged."""
        data = self._read(WATERMARK)
        return None if data is None else self._parse(data)

    def raise_watermark(self, mark: Watermark, *, anew: bool = False) -> None:
        """Write a watermark that is above the one that stands; a lower one changes nothing unless `anew`.

        Raises:
            Unwritable: the file system refused; the old one stands.
            Damaged: the one that stands cannot be read, and `anew` was not asked for.
        """
        with self._locked(WATERMARK):
            found = None if anew else self.watermark()
            if found is None or mark > found:
                self._write(WATERMARK, self._page(mark))

    def clean(self) -> None:
        """Take away what an interrupted write left at the store's root; raises Unwritable."""
        with self._locked("store"):
            pass

    def _parse(self, data: bytes) -> Watermark:
        try:
            page = json.loads(data)
            known = [field.name for field in fields(Watermark) if field.name in page]  # one of 0.1.0 has no `erasure`
            facts = {name: page[name] for name in known}
            mark = Watermark(**facts)
            sound = hmac.compare_digest(str(page["checksum"]), self._checksum(facts))
        except (ValueError, KeyError, TypeError, RecursionError) as cause:
            raise Damaged(WATERMARK, "is not one") from cause
        if not sound:
            raise Damaged(WATERMARK, "fails its checksum, or is signed with another key")
        return mark

    def _page(self, mark: Watermark) -> bytes:
        page = asdict(mark)
        return json.dumps(page | {"checksum": self._checksum(page)}, sort_keys=True).encode() + b"\n"

    def _checksum(self, page: dict[str, Any]) -> str:
        data = json.dumps(page, sort_keys=True).encode()
        if self._key is None:
            return hashlib.sha256(data).hexdigest()
        return hmac.digest(self._key, b"watermark\0" + data, "sha256").hex()

    def _read(self, name: str) -> bytes | None:
        try:
            with fs.folder(self.root, what=name) as folder_fd:
                return bytes(fs.read_map(name, folder_fd, name)[:_MAX_BYTES])
        except Missing:
            return None

    def _write(self, name: str, data: bytes) -> None:
        with fs.aside(self.root, name) as aside:
            fs.write_new(aside / name, data)
            os.rename(aside / name, self.root / name)
        fs.sync_folder(self.root)

    @contextlib.contextmanager
    def _locked(self, what: str) -> Iterator[None]:
        """One writer at a time, in whatever process; what a killed one left aside is taken away."""
        try:
            self.root.mkdir(mode=0o750, parents=True, exist_ok=True)
            descriptor = os.open(self.root / _LOCK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                for left in fs.leftovers(self.root):
                    fs.erase_folder(left)
                yield
            finally:
                os.close(descriptor)
        except OSError as cause:
            raise Unwritable(what, cause) from cause
