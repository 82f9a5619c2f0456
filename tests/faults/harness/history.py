"""What was asked and answered, when: the only thing that is judged, besides what is there in the end."""

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["ok", "fail", "info"]
"""ok: it was done. fail: it was refused, nothing was done. info: nobody knows; both must be allowed for."""


@dataclass
class Operation:
    """One request. Instants are monotonic seconds of the one process that asks, so they are ordered in truth."""

    caller: int
    name: str
    begun: float
    ended: float = 0.0
    outcome: Outcome = "info"
    status: int = 0
    asked: dict[str, Any] = field(default_factory=dict)
    got: dict[str, Any] = field(default_factory=dict)


class History:
    """All operations, from all callers."""

    def __init__(self) -> None:
        self._operations: list[Operation] = []
        self._lock = threading.Lock()

    def add(self, operation: Operation) -> None:
        """Record an operation that has ended."""
        with self._lock:
            self._operations.append(operation)

    def __len__(self) -> int:
        return len(self._operations)

    def __iter__(self) -> Iterator[Operation]:
        return iter(list(self._operations))

    def named(self, *names: str) -> list[Operation]:
        """Operations of these names, in the order in which they ended."""
        return [each for each in self if each.name in names]

    def write(self, path: Path) -> None:
        """One JSON object a line."""
        with path.open("w") as file:
            for operation in self:
                print(json.dumps(asdict(operation)), file=file)
