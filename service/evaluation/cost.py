"""What a call takes: seconds, and memory beyond what was there before it."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

Value = TypeVar("Value")

REPEATS = 5
REPEAT_BELOW_S = 1.0
"""A call that takes less is repeated: the first one also warms caches up."""

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Cost:
    """Seconds, and bytes of memory beyond what was there before; None where this machine cannot tell."""

    seconds: float
    peak_bytes: int | None


def measured(call: Callable[[], Value], device: torch.device, *, repeat: bool = False) -> tuple[Value, Cost]:
    """Calls, and says what it took.

    Memory is that of the device on CUDA; on Linux the growth of the resident memory to its highest point during the
    call, which counts what lies in pages that were there before as nothing; elsewhere it is not known.

    Args:
        call: what to measure.
        device: where it computes.
        repeat: a call shorter than a second is made five times more, and the seconds are the median of those. The
            value and the memory are those of the first.
    """
    memory = _Memory(device)
    value, seconds = _timed(call, device)
    peak = memory.peak()
    if repeat and seconds < REPEAT_BELOW_S:
        seconds = statistics.median(_timed(call, device)[1] for _ in range(REPEATS))
    return value, Cost(seconds, peak)


def _timed(call: Callable[[], Value], device: torch.device) -> tuple[Value, float]:
    _wait(device)
    started = time.perf_counter()
    value = call()
    _wait(device)
    return value, time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Memory:
    """Memory in use when it was made; `peak` is how far it has grown since."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        gc.collect(1)  # a full one takes longer than what is measured
        self.before = self._restart()

    def _restart(self) -> int | None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device)
        if not sys.platform.startswith("linux"):
            return None
        # Memory that the allocator holds back for later would hide what the call needs.
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        try:
            _CLEAR_REFS.write_text("5")
        except OSError:
            return None
        return _resident("VmRSS")

    def peak(self) -> int | None:
        if self.before is None:
            return None
        now = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else _resident("VmHWM")
        return None if now is None else max(now - self.before, 0)


def _resident(name: str) -> int | None:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
