"""Time, in its two kinds: instants for people, durations for everything else."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where the service reads the time, so that tests can set it."""

    def now(self) -> datetime:
        """The present instant, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never steps, so durations are differences of it."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """The present instant, aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some fixed moment; unaffected by steps of the wall clock."""
        return time.monotonic()


def rfc3339(instant: datetime) -> str:
    """Write an aware instant as the API does: UTC, microseconds, `Z`."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
