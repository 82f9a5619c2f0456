"""What a purge did and what it could not do: counts and sentences, nothing of a person."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class PurgeStepReport:
    """One step. `undone`: what could not be done, a sentence each; `counts`: what was done; `seconds` that it took."""

    undone: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class PurgeReport:
    """A purge: `steps` by name, in order; `hard` whether pages were written anew."""

    compaction_id: str
    hard: bool
    steps: Mapping[str, PurgeStepReport]

    @property
    def done(self) -> bool:
        """Whether all of it was done."""
        return not any(step.undone for step in self.steps.values())

    @property
    def undone(self) -> Sequence[str]:
        """Everything that could not be done."""
        return [sentence for step in self.steps.values() for sentence in step.undone]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it: the steps by name, each with `done`, `undone` (sentences), `counts` and `seconds`."""
        steps = {
            name: {
                "done": not step.undone,
                "undone": list(step.undone),
                "counts": dict(step.counts),
                "seconds": round(step.seconds, 3),
            }
            for name, step in self.steps.items()
        }
        seconds = round(sum(step.seconds for step in self.steps.values()), 3)
        return {
            "compaction": self.compaction_id,
            "done": self.done,
            "hard": self.hard,
            "seconds": seconds,
            "steps": steps,
        }
