"""Resumable measurements: one JSON file a cell, kept once it is whole."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CACHE = ROOT / ".cache" / "benchmarks"


def cell(name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The cell of this name: read where it exists, else measured and written.

    Args:
        name: file name below `benchmarks/results/cells`, without its ending.
        measure: gives plain JSON values.
    """
    path = RESULTS / "cells" / f"{name}.json"
    if path.exists():
        stored: dict[str, Any] = json.loads(path.read_text())
        return stored
    print(f"measuring {name}", flush=True)
    result = measure()
    write_json(path, result)
    return result


def write_json(path: Path, value: object) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
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
