"""Resumable measurements: one JSON file a cell, kept once it is whole."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CACHE = ROOT / ".cache" / "benchmarks"
MEASURED = "_measured"
"""Key in a cell's file, beside the result: when, at which commit, on which machine and in how many seconds."""


def use_quick_folders() -> None:
    """Keep models and figures of this process away from those that count; call it before anything else is imported."""
    global RESULTS, CACHE
    CACHE = ROOT / ".cache" / "benchmarks-quick"
    RESULTS = CACHE / "results"


def is_quick() -> bool:
    """Whether this run is only a rehearsal on little data."""
    return RESULTS != ROOT / "benchmarks" / "results"


def cell(name: str, measure: Callable[[], dict[str, Any]], *, beside: Path | None = None) -> dict[str, Any]:
    """The cell of this name: read where it exists, else measured and written.

    Args:
        name: file name below `benchmarks/results/cells`, without its ending.
        measure: gives plain JSON values.
        beside: a file that `measure` writes too; where it is gone, the cell is measured anew.
    """
    kept = stored(name)
    if kept is not None and (beside is None or beside.exists()):
        return kept
    print(f"measuring {name}", flush=True)
    started = time.perf_counter()
    result = measure()
    seconds = round(time.perf_counter() - started, 1)
    measured = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(), "machine": machine()}
    write_json(cell_path(name), result | {MEASURED: measured | {"seconds": seconds}})
    print(f"measured {name} in {seconds:,.0f} s", flush=True)
    return result


def stored(name: str) -> dict[str, Any] | None:
    """The result of a cell that was measured; None where it was not."""
    content = _content(name)
    return None if content is None else {key: value for key, value in content.items() if key != MEASURED}


def provenance(name: str) -> dict[str, Any]:
    """When, where and at which commit a cell was measured; empty where that is not known."""
    measured: dict[str, Any] = (_content(name) or {}).get(MEASURED, {})
    return measured


def drop(name: str) -> None:
    """Have a cell measured anew the next time."""
    cell_path(name).unlink(missing_ok=True)


def cell_path(name: str) -> Path:
    """Where a cell lies."""
    return RESULTS / "cells" / f"{name}.json"


def _content(name: str) -> dict[str, Any] | None:
    path = cell_path(name)
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def write_json(path: Path, value: object, *, sort: bool = True) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(value, indent=2, sort_keys=sort) + "\n")
    aside.replace(path)


def data_dir() -> Path:
    """The folder of data sets that EXPUNGE_DATA_DIR names.

    Raises:
        SystemExit: the variable is not set or names no folder.
    """
    folder = Path(os.environ.get("EXPUNGE_DATA_DIR", ""))
    if not os.environ.get("EXPUNGE_DATA_DIR") or not folder.is_dir():
        raise SystemExit("Set EXPUNGE_DATA_DIR to the folder that holds ml-1m; the benchmarks need real data.")
    return folder


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import numpy as np
    import torch

    cpu = next((line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next((int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpu": cpu or platform.processor(),
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def commit() -> str:
    """The commit that is checked out, with `+changes` where the tree differs from it."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    changes = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no", "--", "service", "model_store"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
