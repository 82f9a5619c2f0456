"""The words of a compaction: why it runs, how it stands, and the steps it goes through, in order."""

from enum import StrEnum
from typing import Final


class CompactionTrigger(StrEnum):
    """Why a compaction runs."""

    SHARE = "share"
    DEADLINE = "deadline"
    INTERVAL = "interval"
    REFUSAL = "refusal"
    OPERATOR = "operator"


class CompactionStatus(StrEnum):
    """How a compaction stands. `refused`: the new base was not good enough, the old one serves on."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"


class CompactionStep(StrEnum):
    """What is done when; each is journalled before it begins, and may be done again from its beginning."""

    SNAPSHOT = "snapshot"
    TRAINING = "training"
    GATING = "gating"
    PRETRAINING = "pretraining"
    MOVING = "moving"
    PURGING = "purging"
    SCANNING = "scanning"
    FINISHING = "finishing"


STEPS: Final = tuple(CompactionStep)
BEFORE_MOVING: Final = STEPS[: STEPS.index(CompactionStep.MOVING)]
"""While one of these is under way nothing that serves has changed: the compaction may be cancelled."""
OPEN: Final = (CompactionStatus.WAITING, CompactionStatus.RUNNING)
NOT_DONE: Final = (CompactionStatus.REFUSED, CompactionStatus.FAILED, CompactionStatus.CANCELLED)

WORK: Final = {
    CompactionStep.SNAPSHOT: 0.01,
    CompactionStep.TRAINING: 0.44,
    CompactionStep.GATING: 0.01,
    CompactionStep.PRETRAINING: 0.45,
    CompactionStep.MOVING: 0.03,
    CompactionStep.PURGING: 0.03,
    CompactionStep.SCANNING: 0.02,
    CompactionStep.FINISHING: 0.01,
}
"""Each step's part of a whole one, where none was done before from which to learn it; ML-1M on two cores."""
