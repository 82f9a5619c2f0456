"""From the log's entries about one erasure to its status."""

from collections.abc import Iterable, Mapping
from typing import Any

STATUS_AFTER = {
    "erasure.accepted": "accepted",
    "erasure.accepted_again": "accepted",
    "erasure.needs_attention": "needs_attention",
    "erasure.cancelled": "cancelled",
    "erasure.forgotten": "forgotten",
    "erasure.erased": "erased",
}
"""What an entry of the log makes of the erasure's status; other entries leave it."""


def history(entries: Iterable[Mapping[str, Any]]) -> tuple[str | None, dict[str, str]]:
    """The status that the entries about one erasure lead to, and when each status was reached: first for `accepted`,
    last for the others."""
    status, reached = None, dict[str, str]()
    for entry in entries:
        after = STATUS_AFTER.get(str(entry.get("event")))
        if after is None:
            continue
        status = after
        if after != "accepted" or after not in reached:
            reached[after] = str(entry.get("at"))
    return status, reached
