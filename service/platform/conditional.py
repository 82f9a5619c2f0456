"""Entity tags in conditional requests (RFC 9110, section 13.1)."""

import re
from collections.abc import Iterable
from typing import Any

ANY = "*"
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The answer is one of those that If-None-Match names."}
}
"""The `responses=` of a route that answers with an ETag."""

_TAG = re.compile(r'\s*(W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')


def none_match(fields: Iterable[str], etag: str) -> bool:
    """Whether If-None-Match names this tag, so that the answer is 304: `*`, or a list, compared weakly."""
    given = ", ".join(fields)
    if given.strip() == ANY:
        return True
    opaque = etag.removeprefix("W/")
    return any(tag == opaque for _, tag in _tags(given))


def strong_tags(field: str) -> frozenset[str]:
    """The tags that If-Match names and that may match: weak ones never do (RFC 9110, section 8.8.3.2)."""
    return frozenset(tag for weak, tag in _tags(field) if not weak)


def _tags(field: str) -> list[tuple[str, str]]:
    """(weakness, quoted tag) each; nothing where the field is malformed, which matches nothing."""
    found, place = [], 0
    while place < len(field):
        tag = _TAG.match(field, place)
        if tag is None:
            return []
        found.append((tag[1] or "", tag[2]))
        place = tag.end()
    return found
