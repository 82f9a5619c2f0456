"""The spellings in which a text or some bytes may stand in a file, a page or a column."""

import json
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

SHORTEST = 8
"""Bytes. What is shorter stands in any file by chance, or within another id: it is looked for by structure alone."""


def spellings_of_text(text: str) -> dict[str, bytes]:
    """The distinct spellings of a text, by name; one that two names would have goes by the first."""
    return _distinct(
        ("raw", text.encode()),
        ("json", json.dumps(text)[1:-1].encode()),
        ("json utf-8", json.dumps(text, ensure_ascii=False)[1:-1].encode()),
        ("percent", quote(text, safe="").encode()),
        ("percent of paths", quote(text).encode()),
        ("form", quote_plus(text).encode()),
        ("utf-16-le", text.encode("utf-16-le")),
        ("utf-16-be", text.encode("utf-16-be")),
    )


def spellings_of_bytes(data: bytes) -> dict[str, bytes]:
    """The distinct spellings of a digest or a salt: as it is, and in hexadecimal digits of both cases."""
    return _distinct(("raw", data), ("hex", data.hex().encode()), ("hex, upper", data.hex().upper().encode()))


def too_short(text: str) -> bool:
    """Whether a text is too short to be told from other bytes."""
    return len(text.encode()) < SHORTEST


def _distinct(*named: tuple[str, bytes]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    seen = set[bytes]()
    for name, spelled in _told_apart(named):
        if spelled not in seen:
            seen.add(spelled)
            found[name] = spelled
    return found


def _told_apart(named: tuple[tuple[str, bytes], ...]) -> Iterator[tuple[str, bytes]]:
    """UTF-16 of ASCII begins or ends with a zero byte that any neighbour may give: left out, both orders are found."""
    for name, spelled in named:
        if name == "utf-16-le" and spelled.endswith(b"\0"):
            yield name, spelled[:-1]
        elif name == "utf-16-be" and spelled.startswith(b"\0"):
            yield name, spelled[1:]
        else:
            yield name, spelled
