"""Every figure of the docs: measured where it was not yet, written to benchmarks/results/main.json.

    EXPUNGE_DATA_DIR=... python -m benchmarks.main [--only NAME]... [--fresh] [--quick]

A run that is cut off goes on where it stopped. Missing a target is no failure of the run: the table says which.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import cells
from benchmarks.figures import CELLS, FIGURES, Figure, document


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; returns the exit status, 0 also where targets are missed."""
    asked = _asked(arguments)
    if asked.quick:
        cells.use_quick_folders()
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console()
    try:
        _measure(_wanted(asked.only), fresh=asked.fresh)
    except KeyboardInterrupt:
        console.print("Interrupted: whole cells are kept, the next run goes on from there.")
        return 130
    found = document(cells.machine(), cells.commit(), cells.stored, cells.provenance)
    path = cells.RESULTS / "main.json"
    cells.write_json(path, found, sort=False)
    _show(console, found["figures"], path)
    return 0


def _asked(arguments: list[str] | None) -> argparse.Namespace:
    names = sorted({*CELLS, *(figure.name for figure in FIGURES)})
    parser = argparse.ArgumentParser(prog="benchmarks.main", description="Measure every figure of the docs.")
    parser.add_argument("--only", action="append", metavar="NAME", choices=names, help="a cell or a figure; repeatable")
    parser.add_argument("--fresh", action="store_true", help="measure anew; trained models in .cache are kept")
    parser.add_argument("--quick", action="store_true", help="rehearse on little generated data, into .cache")
    return parser.parse_args(arguments)


def _wanted(only: list[str] | None) -> list[str]:
    """The cells that are asked for, in the order in which they are measured."""
    if not only:
        return list(MEASURES)
    of_figures = {figure.name: figure.cell for figure in FIGURES}
    asked = {of_figures.get(name, name) for name in only}
    return [cell for cell in MEASURES if cell in asked]


def _measure(wanted: list[str], *, fresh: bool) -> None:
    _leave_settings_aside()
    if cells.is_quick():
        from benchmarks import rehearsal

        rehearsal.prepare()
    for name in wanted:
        measured = cells.provenance(name)
        if fresh or not _of_this_machine(measured):
            cells.drop(name)
        if cells.stored(name) is not None:
            print(f"{name}: kept from {measured['at']}, commit {measured['commit'][:10]}; --fresh measures anew")
            continue
        started = time.monotonic()
        MEASURES[name](name)
        print(f"{name}: done in {time.monotonic() - started:,.0f} s", flush=True)


def _of_this_machine(measured: Mapping[str, Any]) -> bool:
    """Whether a cell is of such a machine as this one; what came with the repository mostly is not."""
    there, here = measured.get("machine", {}), cells.machine()
    return all(there.get(part) == here[part] for part in ("cpu", "cores", "system"))


def _leave_settings_aside() -> None:
    # What a shell sets for a service in use must not reach the ones measured here.
    for name in [name for name in os.environ if name.startswith("EXPUNGE_") and name != "EXPUNGE_DATA_DIR"]:
        del os.environ[name]


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _learning(cell: str) -> None:
    from benchmarks import learning

    getattr(learning, cell)()


def _serving(cell: str) -> None:
    from benchmarks import serving

    getattr(serving, cell)()


def _proofs(cell: str) -> None:
    from benchmarks import proofs

    getattr(proofs, cell)()


def _compacting(_cell: str) -> None:
    from benchmarks import compacting

    compacting.compacting()


# Serving comes last: base and encoder are there by then.
MEASURES: dict[str, Callable[[str], None]] = {
    **dict.fromkeys(("training", "adversarial", "genuine", "timings"), _learning),
    **dict.fromkeys(("forgotten", "accept", "recommend", "rss"), _serving),
    **dict.fromkeys(("receipt", "inclusion"), _proofs),
    "compacting": _compacting,
}


def _show(console: Console, figures: dict[str, Any], path: Path) -> None:
    table = Table(title="Rehearsal: these figures mean nothing" if cells.is_quick() else None)
    for heading, justify in (("figure", "left"), ("value", "right"), ("target", "right"), ("met", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    missed = []
    for figure in FIGURES:
        found = figures.get(figure.name)
        if found is None:
            table.add_row(figure.name, "not measured", _target(figure), "")
            continue
        met = figure.target.met(found["value"])
        if not met:
            missed.append(figure.name)
        verdict = "" if not figure.target.facts() else "yes" if met else "NO"
        table.add_row(figure.name, _readable(found["value"], figure.unit), _target(figure), verdict)
    console.print(table)
    console.print(f"{len(missed)} missed: {', '.join(missed)}" if missed else "No target is missed.")
    console.print(f"Written to {os.path.relpath(path, cells.ROOT)}")


def _target(figure: Figure) -> str:
    signs = {"at_least": ">=", "at_most": "<="}
    facts = figure.target.facts()
    return ", ".join(f"{signs[side]} {_readable(bound, figure.unit)}" for side, bound in facts.items())


def _readable(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:,.0f} MB"
    digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:,.{min(digits, 4)}f}"
    return text if unit in ("ratio", "difference") else f"{text} {unit}"


if __name__ == "__main__":
    sys.exit(main())
