"""From the log's entries about one erasure to its status, and to what was decided about it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

ERASED = "erased"
STATUS_AFTER = {
    "erasure.accepted": "accepted",
    "erasure.accepted_again": "accepted",
    "erasure.needs_attention": "needs_attention",
    "erasure.cancelled": "cancelled",
    "erasure.forgotten": "forgotten",
    "erasure.erased": ERASED,
    "erasure.refused": "refused",
}
"""What an entry of the log makes of the erasure's status; other entries leave it."""
OUTCOMES = {"erasure.refused": "refused", "erasure.refused_in_part": "partial"}
HOLDS = {"erasure.hold_set": True, "erasure.hold_lifted": False}
OVER = (ERASED, "cancelled", "refused")


@dataclass
class ErasureHistory:
    """Where the entries lead to.

    `reached`: when each status was reached, first for `accepted`, last for the others. `extension` {at, ground, until},
    `decision` {at, ground, outcome}: None where there is none. `legal_hold`: whether one is set.
    """

    status: str | None = None
    reached: dict[str, str] = field(default_factory=dict)
    extension: dict[str, Any] | None = None
    decision: dict[str, Any] | None = None
    legal_hold: bool = False
    erased: Mapping[str, Any] | None = None
    """The body of the entry by which it is erased, where it is."""

    @property
    def final(self) -> bool:
        """Whether nothing more is to come of it."""
        return self.status in OVER or self.decision is not None


def history(entries: Iterable[Mapping[str, Any]]) -> ErasureHistory:
    """Read the entries about one erasure, in their order."""
    found = ErasureHistory()
    for entry in entries:
        event, at, body = str(entry.get("event")), str(entry.get("at")), entry.get("body") or {}
        after = STATUS_AFTER.get(event)
        if after is not None:
            found.status = after
            found.erased = body if after == ERASED else None
            if after != "accepted" or after not in found.reached:
                found.reached[after] = at
        if event == "erasure.extended":
            found.extension = {"at": at, "ground": body.get("ground"), "until": body.get("until")}
        if event in OUTCOMES:
            found.decision = {"at": at, "ground": body.get("ground"), "outcome": OUTCOMES[event]}
        found.legal_hold = HOLDS.get(event, found.legal_hold)
    return found
