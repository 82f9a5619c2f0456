"""What the compactor has a child process do, and what comes back; plain JSON between the two."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

JobKind = Literal["training", "pretraining"]


@dataclass(frozen=True)
class TrainingJob:
    """One training or pre-training of a compaction.

    `epoch`: under which the compactor holds its lease. `attempt`: from 1; each has a seed of its own. `recipe`: of a
    training, the manifest's `config` of the base in use; of a pre-training, that of its encoder, as far as known.
    `base` and `mode`: what is pre-trained.
    """

    kind: JobKind
    compaction: str
    epoch: int
    attempt: int
    recipe: Mapping[str, Any] = field(default_factory=dict)
    base: int | None = None
    mode: str | None = None

    def line(self) -> str:
        """As a line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def read(cls, line: str) -> "TrainingJob":
        """What `line` wrote."""
        return cls(**json.loads(line))


Report = Callable[[float, str], None]
"""Told how far a job is: its share in [0, 1], and what it is at."""


class Trainer(Protocol):
    """What does the jobs."""

    def run(self, job: TrainingJob, report: Report, check: Callable[[], None]) -> None:
        """Do a job to its end: its base or encoder is on record when this returns.

        Calls `check` every second or so, which raises where it is to be left.

        Raises:
            AttemptRefused, HopelessTraining, TrainingTrouble, TrainingDied.
        """
        ...

    def close(self) -> None:
        """Let go of what the jobs needed; more may come all the same."""
        ...


class AttemptRefused(Exception):
    """What was trained must not serve; another seed may do better. `facts` are plain figures and reasons."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.facts = dict(facts)


class HopelessTraining(Exception):
    """It would end in the same way with every seed; `code` is that of a problem."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class TrainingTrouble(Exception):
    """Something around it failed (database, store, disk); `code` says what. It is worth trying again."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class TrainingDied(Exception):
    """The child ended without saying why: killed, out of memory, a defect."""
