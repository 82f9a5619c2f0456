"""Looking for a text in bytes, in every form in which it might have been written there."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus


def forms(text: str) -> dict[str, bytes]:
    """The forms of a text, by name."""
    raw = text.encode()
    return {
        "raw": raw,
        "json": json.dumps(text)[1:-1].encode(),
        "json utf-8": json.dumps(text, ensure_ascii=False)[1:-1].encode(),
        "repr": repr(text)[1:-1].encode(),
        "percent": quote(text, safe="").encode(),
        "percent of paths": quote(text).encode(),
        "percent, lower": "".join(
            char if char.isalnum() and char.isascii() else _percent(char) for char in text
        ).encode(),
        "form": quote_plus(text).encode(),
        "utf-16-le": text.encode("utf-16-le"),
        "utf-16-be": text.encode("utf-16-be"),
        "latin-1": text.encode("latin-1", "replace"),
        **forms_of_bytes(raw),
    }


def forms_of_bytes(raw: bytes) -> dict[str, bytes]:
    """The forms of some bytes, by name. Base64 of what they are in the middle of has three alignments."""
    found = {"bytes": raw, "hex": raw.hex().encode(), "hex, upper": raw.hex().upper().encode()}
    for shift in range(3):
        # What shares a character with its neighbours is left out at both ends.
        text = base64.b64encode(b"\0" * shift + raw)[(0, 2, 3)[shift] :]
        inner = text[: (len(raw) + shift) // 3 * 4 - (0, 2, 3)[shift]]
        found[f"base64, {shift}"] = inner
        found[f"base64url, {shift}"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def found_in(data: bytes, needles: Mapping[str, Mapping[str, bytes]]) -> list[tuple[str, str]]:
    """Names of the needles and forms that the data hold."""
    return [(name, form) for name, known in needles.items() for form, needle in known.items() if needle in data]


def found_in_all(places: Iterable[tuple[str, bytes]], needles: Mapping[str, Mapping[str, bytes]]) -> Iterator[str]:
    """Where needles are, as `place: needle (form)`."""
    for place, data in places:
        yield from (f"{place}: {name} ({form})" for name, form in found_in(data, needles))


def _percent(char: str) -> str:
    return "".join(f"%{byte:02x}" for byte in char.encode())
