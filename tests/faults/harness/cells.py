"""What was measured: one JSON file a cell, written when it is whole, kept until the code that measures it changes."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import cells

HERE = Path(__file__).parent
ROOT = cells.ROOT
RESULTS = cells.RESULTS / "faults"
KEPT = cells.RESULTS / "faults" / "broken"
"""Histories and logs of what did not hold; not committed."""
ENGINE = ("trial", "nemesis", "callers", "judging", "stage", "world", "clock", "disk", "proxy", "sampling")


def code_of(modules: Iterable[str] = (), files: Iterable[Path] = (), more: str = "") -> str:
    """A digest of the code that a cell is measured with: modules of this package, other files, a text."""
    digest = hashlib.sha256(more.encode())
    for file in (*(HERE / f"{module}.py" for module in sorted(modules)), *sorted(files)):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def cell(name: str, code: str, runs: int, measure: Callable[[], dict[str, Any]], *, fresh: bool = False) -> Any:
    """The cell of this name: as it was measured with the same code and at least so many runs, else measured now.

    One in which something was broken is measured again: the service may have been mended.
    """
    kept = None if fresh else stored(name)
    if kept is not None and kept["code"] == code and kept["asked"] >= runs and not _is_broken(kept):
        return kept
    result = {"code": code, "asked": runs, "commit": cells.commit(), **measure()}
    cells.write_json(RESULTS / f"{name}.json", result)
    return result


def _is_broken(kept: dict[str, Any]) -> bool:
    return bool(kept.get("broken")) or any(outcome["broken"] for outcome in kept.get("outcomes", ()))


def stored(name: str) -> dict[str, Any] | None:
    """A cell as it lies there; None where it was not measured."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def all_named(prefix: str) -> Iterator[dict[str, Any]]:
    """Every cell whose name begins so."""
    for path in sorted(RESULTS.glob(f"{prefix}*.json")):
        yield json.loads(path.read_text())
