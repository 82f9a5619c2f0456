"""A wall clock that steps, and a disk that is slow, while the service runs: its processes read from a file how much."""

import mmap
import os
import struct
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

SIZE = 16


class SteppedClock:
    """The harness's side: a file that holds how far off the clock is and how slow an fsync."""

    def __init__(self, path: Path) -> None:
        self.path, self._off_s, self._fsync_s = path, 0.0, 0.0
        path.write_bytes(bytes(SIZE))

    def step(self, seconds: float) -> None:
        """Have the wall clock be so far off from now on."""
        self._off_s = seconds
        self._write()

    def slow_fsync(self, seconds: float) -> None:
        """Have each fsync of Python's take so much longer from now on."""
        self._fsync_s = seconds
        self._write()

    def _write(self) -> None:
        with self.path.open("r+b") as file:
            file.write(struct.pack("dd", self._off_s, self._fsync_s))


def follow(path: Path) -> None:
    """The process's side: have the service's clock, and `time.time`, be off by what the file says.

    Durations stay right, as they do on a machine whose wall clock is set.
    """
    from service.platform.clock import SystemClock

    with path.open("r+b") as file:
        view = mmap.mmap(file.fileno(), SIZE)
    now, seconds, nanoseconds, fsync = SystemClock.now, time.time, time.time_ns, os.fsync

    def off() -> float:
        return float(struct.unpack("dd", view[:SIZE])[0])

    def slow(descriptor: Any) -> None:
        time.sleep(struct.unpack("dd", view[:SIZE])[1])
        fsync(descriptor)

    SystemClock.now = lambda self: now(self) + timedelta(seconds=off())  # type: ignore[method-assign]
    time.time = lambda: seconds() + off()
    os.fsync = slow  # type: ignore[assignment]
    time.time_ns = lambda: nanoseconds() + int(off() * 1e9)
