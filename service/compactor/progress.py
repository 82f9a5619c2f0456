"""How far a compaction is, by what those before it took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.compaction.repository import Compaction
from service.compaction.steps import STEPS, WORK
from service.platform.clock import rfc3339

SAID_FROM = 0.05
"""Of the whole: before so much is done, nothing can be said of the rest where none was done before."""


@dataclass(frozen=True)
class ExpectedTimes:
    """What each step is expected to take: `seconds` where it is known, else its part of a whole one."""

    work: Mapping[str, float]
    known: bool

    @classmethod
    def of(cls, done: Sequence[Compaction]) -> "ExpectedTimes":
        """Learnt from compactions that were done: the mean of each step's seconds, where any went through all of it."""
        took = {
            step.value: [
                float(each.steps[step]["seconds"])
                for each in done
                if step in each.steps and each.steps[step].get("seconds") is not None
            ]
            for step in STEPS
        }
        if not took["training"]:
            return cls({step.value: WORK[step] for step in STEPS}, known=False)
        return cls({step: sum(times) / len(times) if times else 0.0 for step, times in took.items()}, known=True)

    def seconds(self, step: str) -> float | None:
        """What a step is expected to take; None where nobody knows."""
        return self.work[step] if self.known else None

    def document(self, step: str, share: float, began: datetime | None, now: datetime, note: str) -> dict[str, Any]:
        """The progress of a compaction that began at an instant and has done `share` of a step, in [0, 1]."""
        order = [each.value for each in STEPS]
        before = sum(self.work[each] for each in order[: order.index(step)])
        whole = max(sum(self.work.values()), 1e-9)
        done = min((before + min(max(share, 0.0), 1.0) * self.work[step]) / whole, 1.0)
        elapsed = 0.0 if began is None else max((now - began).total_seconds(), 0.0)
        if self.known:
            left: float | None = (1 - done) * whole
        else:
            left = elapsed * (1 - done) / done if done >= SAID_FROM else None
        return {
            "share": round(done, 4),
            "left_s": None if left is None else round(left, 1),
            "expected_s": self.seconds(step),
            "note": note,
            "at": rfc3339(now),
        }
