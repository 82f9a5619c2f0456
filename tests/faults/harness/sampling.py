"""Memory, descriptors and files over time, and how fast they grow."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tests.faults.harness.stage import Stage

SETTLED_S = 20.0
"""What a process takes in its first seconds is not growth: it loads what it works with."""
POINTS_KEPT = 240


class Sampler:
    """Looks at a stage's processes and files at an interval, from a thread of its own; 0: never."""

    def __init__(self, stage: Stage, interval_s: float) -> None:
        self._stage, self._interval_s = stage, interval_s
        self._begun = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler")
        self._processes: dict[tuple[str, int], list[tuple[float, int, int]]] = defaultdict(list)
        self._files: dict[str, list[tuple[float, int]]] = defaultdict(list)

    def __enter__(self) -> "Sampler":
        if self._interval_s:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._interval_s:
            self._thread.join()

    def result(self) -> dict[str, Any]:
        """Slopes per minute, by role and by kind of file, and the points that they come from, thinned."""
        roles: dict[str, Any] = {}
        for kind in ("api", "worker", "compactor"):
            lives = [points for (role, _), points in self._processes.items() if role.startswith(kind)]
            if lives:
                roles[kind] = {
                    "rss_slope_bytes_per_min": _slope([[(at, rss) for at, rss, _ in life] for life in lives]),
                    "descriptors_slope_per_min": _slope([[(at, fds) for at, _, fds in life] for life in lives]),
                    "rss_max_bytes": max(rss for life in lives for _, rss, _ in life),
                    "descriptors_max": max(fds for life in lives for _, _, fds in life),
                    "lives": len(lives),
                }
        files = {
            name: {
                "slope_bytes_per_min": _slope([points], settled_s=0),
                "max_bytes": max(size for _, size in points),
                "points": points[:: max(1, len(points) // POINTS_KEPT)],
            }
            for name, points in self._files.items()
        }
        return {"processes": roles, "files": files}

    def _run(self) -> None:
        while not self._over.wait(self._interval_s):
            at = round(time.monotonic() - self._begun, 1)
            for role, process in list(self._stage.processes.items()):
                with suppress(psutil.Error, OSError):
                    looked = psutil.Process(process.pid)
                    rss, descriptors = looked.memory_info().rss, looked.num_fds()
                    self._processes[role, process.pid or 0].append((at, rss, descriptors))
            home = self._stage.home
            for name, size in {
                "store": _size(home / "store"),
                "database": _size_of(home.glob("expunge.db")),
                "wal": _size_of(home.glob("expunge.db-wal")),
                "stream_log": _size(home / "valkey"),
                "log": _size_of([self._stage.log]),
            }.items():
                self._files[name].append((at, size))


def _slope(lives: Sequence[Sequence[tuple[float, float]]], settled_s: float = SETTLED_S) -> float:
    """Growth per minute by least squares, with a level of its own for each life: a process that dies starts anew."""
    over, under = 0.0, 0.0
    for life in lives:
        points = np.array([point for point in life if point[0] - life[0][0] >= settled_s], dtype=float)
        if len(points) >= 3:
            points -= points.mean(axis=0)
            over, under = over + float(points[:, 0] @ points[:, 1]), under + float(points[:, 0] @ points[:, 0])
    return round(60 * over / under, 1) if under else 0.0


def _size(folder: Path) -> int:
    return sum(_size_of(Path(at) / name for name in names) for at, _, names in os.walk(folder))


def _size_of(files: Any) -> int:
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.stat().st_size
    return total
