"""Writes docs/results from the cells that are there: `python -m benchmarks.evaluation.main [--no-plots] [--check]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cells import RESULTS, ROOT
from benchmarks.evaluation import plots
from benchmarks.evaluation.load import Results, load
from benchmarks.evaluation.page import pages

CELLS = RESULTS / "evaluation"
DOCS = ROOT / "docs" / "results"
CASES = "cases.json"


def main(arguments: list[str] | None = None) -> int:
    """Write the pages and plots, or with `--check` say whether the pages are current (exit status 1 if not)."""
    asked = _asked(arguments)
    results = load(asked.cells)
    stale = _stale(asked.docs, pages(results, _cases(asked.cells)))
    if asked.check:
        if stale:
            sys.stderr.write(f"{', '.join(stale)} out of date: run `make results-render` and commit.\n")
        return 1 if stale else 0
    _write(asked.docs, stale)
    if not asked.no_plots:
        _draw(results, asked.docs / "plots")
    sys.stdout.write(f"{asked.docs}: {len(results.cells)} cells, {len(stale)} files changed\n")
    return 0


OF_OTHERS = frozenset({"faults.json", "faults.md"})
"""Pages in the same folder that other commands write (`make faults`)."""


def _asked(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.evaluation.main", description="Write docs/results from cells.")
    parser.add_argument("--cells", type=Path, default=CELLS, help="folder of the cells")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder to write")
    parser.add_argument("--no-plots", action="store_true", help="leave the plots as they are")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is out of date")
    return parser.parse_args(arguments)


def _cases(cells: Path) -> dict[str, Any] | None:
    path = cells / CASES
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _stale(docs: Path, texts: Mapping[str, str]) -> dict[str, str | None]:
    """Files that are not what the cells say, and what they should be; None: nothing, their cells are gone."""
    own = (path for path in docs.glob("*.*") if path.suffix in (".md", ".json") and path.name not in OF_OTHERS)
    there = {path.name: path.read_text() for path in own}
    changed = {name: text for name, text in texts.items() if there.get(name) != text}
    return changed | dict.fromkeys(name for name in sorted(there) if name not in texts)


def _write(docs: Path, stale: Mapping[str, str | None]) -> None:
    docs.mkdir(parents=True, exist_ok=True)
    for name, text in stale.items():
        if text is None:
            (docs / name).unlink()
        else:
            (docs / name).write_text(text)


def _draw(results: Results, folder: Path) -> None:
    planned = plots.every(results)
    plots.write(planned, folder)
    wanted = {f"{plot.name}.{ending}" for plot in planned for ending in plots.FORMATS}
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
