"""The layout for reading (C2SP tlog-tiles): names of tiles and bundles of entries."""

import re
from collections.abc import Iterable

from service.audit.tlog.errors import Unverified
from service.audit.tlog.merkle import TILE_WIDTH

ENTRY_BYTES_MAX = 2**16 - 1
_PATH = re.compile(r"(?P<index>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?")
_DIGITS_MAX = 18


def tile_path(index: int, width: int = TILE_WIDTH) -> str:
    """A tile's name below its level: index 1234067 is x001/x234/067; a partial one ends in .p/<width>."""
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return path if width == TILE_WIDTH else f"{path}.p/{width}"


def parse_tile_path(path: str) -> tuple[int, int] | None:
    """(index, width) of a name, width 256 for a full tile; None for what is no name of a tile."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    digits = found["index"].replace("x", "").replace("/", "")
    width = TILE_WIDTH if found["width"] is None else int(found["width"])
    if len(digits) > _DIGITS_MAX or (found["width"] is not None and width >= TILE_WIDTH):
        return None
    index = int(digits)
    return (index, width) if tile_path(index, width) == path else None


def bundle(entries: Iterable[bytes]) -> bytes:
    """Entries as a bundle: each with its length before it, two bytes, big-endian; ValueError over 65,535 bytes."""
    parts = bytearray()
    for entry in entries:
        if len(entry) > ENTRY_BYTES_MAX:
            msg = f"An entry of the log has {len(entry):,} bytes; a bundle takes {ENTRY_BYTES_MAX:,}."
            raise ValueError(msg)
        parts += len(entry).to_bytes(2) + entry
    return bytes(parts)


def unbundle(data: bytes) -> list[bytes]:
    """The entries of a bundle; raises Unverified (malformed_bundle)."""
    entries, at = [], 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2])
        if end > len(data) or at + 2 > len(data):
            raise Unverified("malformed_bundle", "A bundle of entries is cut short.")
        entries.append(data[at + 2 : end])
        at = end
    return entries
