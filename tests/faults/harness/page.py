"""From the cells to docs/results/faults.json and the page beside it."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cells as measured
from tests.faults.harness import cells
from tests.faults.harness.points import kill_points
from tests.faults.harness.recovery import LIMITS_S
from tests.faults.harness.rows import ROWS, Row
from tests.faults.harness.world import DATABASES

MUTATION = measured.RESULTS / "mutation.json"
KILLS_WANTED = 50


def document() -> dict[str, Any]:
    """All that was measured, as docs/results/faults.json has it."""
    return {
        "commit": measured.commit(),
        "rows": [row for row_id in ROWS for row in _rows(row_id, ROWS[row_id])],
        "soak": _soak(),
        "kill_points": _kill_points(),
        "mutation": _mutation(),
        "restore_drill": {database: _drill(database) for database in DATABASES},
        "recovery": {cell["database"]: _recovery(cell) for cell in cells.all_named("recovery-")},
    }


def write(folder: Path) -> int:
    """Write the document and the page; returns how much is broken in it."""
    made = document()
    measured.write_json(folder / "faults.json", made, sort=False)
    (folder / "faults.md").write_text(text_of(made))
    soak = made["soak"]
    return (
        sum(row["violations"] for row in made["rows"])
        + sum(soak[name] or 0 for name in ("lost", "duplicated", "stale_reads"))
        + sum(each["resurrected"] for each in made["restore_drill"].values())
    )


def _rows(row_id: str, row: Row) -> Iterable[dict[str, Any]]:
    for database in DATABASES:
        head = {"id": row_id, "database": database}
        if row.impossible:
            yield head | {"runs": 0, "violations": 0, "status": "impossible", "reason": row.impossible}
            continue
        runs, broken = 0, []
        for part_runs, part_broken in _parts(row_id, row, database):
            runs, broken = runs + part_runs, broken + part_broken
        there = row.nodes or row.kills or row.script
        reason = row.what if runs else "not run yet" if there else f"tests/{row.tests[0]} is not there yet"
        status = "automated" if there else "impossible"
        yield head | {"runs": runs, "violations": len(broken), "status": status, "reason": reason}


def _parts(row_id: str, row: Row, database: str) -> Iterable[tuple[int, list[str]]]:
    """(runs, what was broken) of each kind of run that stands for a row."""
    trial = cells.stored(f"trial-{row_id}-{database}")
    if trial is not None:
        yield len(trial["outcomes"]), [text for outcome in trial["outcomes"] for text in outcome["broken"]]
    for cell in cells.all_named("kills-"):
        if cell["database"] == database and row.kills:
            runs = sum(cell["kills"].get(point, 0) for point in row.kills)
            # What was found in the end, when nobody knows which death it came from, counts for each row of the cell.
            broken = [text for text in cell["broken"] if text.startswith((*row.kills, "P"))]
            if runs:
                yield runs, broken
    tests = cells.stored(f"tests-{row_id}")
    if tests is not None:
        told = tests["by_database"][database]
        yield (
            told["runs"],
            [f"{text[:200]}" for text in told["broken"]]
            + [text for text in tests["broken"] if text.endswith("did not run")],
        )


def _kill_points() -> dict[str, int]:
    killed: Counter[str] = Counter()
    for cell in cells.all_named("kills-"):
        killed.update(cell["kills"])
    return {point: killed[point] for point in kill_points()}


def _soak() -> dict[str, Any]:
    """Both databases together; each by itself under its name."""
    found = {cell["database"]: cell for cell in cells.all_named("soak-")}
    each = {
        database: {
            "requests": cell["requests"],
            "lost": cell["lost"],
            "duplicated": cell["duplicated"],
            "stale_reads": cell["stale_reads"],
            "minutes": cell["minutes"],
            "seed": cell["seed"],
            "erasures": cell["erasures"],
            "broken": cell["broken"],
            "troubles": sum(cell["happened"].values()),
            "processes": cell["samples"]["processes"],
            "files": {
                name: {part: value for part, value in file.items() if part != "points"}
                for name, file in cell["samples"]["files"].items()
            },
        }
        for database, cell in found.items()
    }
    slopes = [
        role["rss_slope_bytes_per_min"] for cell in found.values() for role in cell["samples"]["processes"].values()
    ]
    return {
        "requests": min((cell["requests"] for cell in each.values()), default=0),
        "lost": sum(cell["lost"] for cell in each.values()) if each else None,
        "duplicated": sum(cell["duplicated"] for cell in each.values()) if each else None,
        "stale_reads": sum(cell["stale_reads"] for cell in each.values()) if each else None,
        "minutes": min((cell["minutes"] for cell in each.values()), default=0),
        "rss_slope_bytes_per_min": max(slopes, default=None),
        "databases": each,
    }


def _mutation() -> dict[str, Any]:
    if not MUTATION.exists():
        return {}
    found: dict[str, Any] = json.loads(MUTATION.read_text())
    return {
        module: {"killed": told["killed"], "total": told["total"]}
        for module, told in found.items()
        if isinstance(told, dict) and "killed" in told
    }


def _drill(database: str) -> dict[str, int]:
    runs, back = 0, 0
    for cell in cells.all_named(f"kills-replay-{database}"):
        runs, back = runs + cell["drills"], back + cell["resurrected"]
    drill = cells.stored("drill")
    if drill is not None:
        told = drill["by_database"][database]
        runs, back = runs + told["runs"], back + told["violations"]
    return {"runs": runs, "resurrected": back}


def _recovery(cell: dict[str, Any]) -> dict[str, Any]:
    return {name: {"max": max(cell[name]), "runs": len(cell[name])} for name in LIMITS_S}


# -- the page


def text_of(made: dict[str, Any]) -> str:
    """The page."""
    rows = made["rows"]
    automated = [row for row in rows if row["status"] == "automated"]
    broken = [row for row in rows if row["violations"]]
    parts = [
        "# Breaking it",
        "<!-- Written by `make faults` from benchmarks/results/faults; do not edit. -->",
        "What happens to the promises when processes die, files tear, disks fill, clocks step and callers misbehave. "
        "`make faults` does all of it again: real processes (two APIs, two workers, Valkey behind a proxy, SQLite and "
        "PostgreSQL), a nemesis and callers that choose by a seed, a history of every request, and a judge that knows "
        "the promises P1 to P10 and nothing of how they are kept. The numbers of the rows are those of "
        "`tests/faults/harness/rows.py`.",
        f"{len({row['id'] for row in automated if row['runs']})} of {len(ROWS)} rows are automated, "
        f"{sum(row['runs'] for row in automated):,} runs in all; "
        + (f"**{len(broken)} rows broke a promise.**" if broken else "no promise was broken."),
        "## Rows",
        _table(
            ("row", "fault", "database", "runs", "violations"),
            [
                (
                    row["id"],
                    ROWS[row["id"]].what,
                    row["database"],
                    f"{row['runs']:,}" if row["status"] == "automated" else "-",
                    str(row["violations"]) if row["status"] == "automated" else row["reason"],
                )
                for row in rows
            ],
        ),
        "## Kill points",
        "Every name in the code at which a process can be made to die, and how often it was killed there with "
        f"`kill -9`, on both databases together; {KILLS_WANTED} times at least are wanted.",
        _table(("point", "kills"), [(f"`{name}`", f"{count:,}") for name, count in made["kill_points"].items()]),
        *_soak_text(made["soak"]),
        "## Back again",
        "Both APIs, both workers and the stream server are killed at once in the middle of a batch, with the terms "
        "that the product comes with. *Ready*: both APIs say so. *Reclaimed*: the batch is settled by another worker.",
        _table(
            ("database", "times", "ready, at most (10 s)", "reclaimed, at most (15 s)"),
            [
                (
                    database,
                    str(told["ready_s"]["runs"]),
                    f"{told['ready_s']['max']:.1f} s",
                    f"{told['reclaimed_s']['max']:.1f} s",
                )
                for database, told in made["recovery"].items()
            ],
        ),
        "## A backup brings nobody back",
        "Backup, erase, restore, start; killed while it is cleaned, too.",
        _table(
            ("database", "runs", "resurrected"),
            [(name, str(told["runs"]), str(told["resurrected"])) for name, told in made["restore_drill"].items()],
        ),
        *_mutation_text(made["mutation"]),
    ]
    return "\n\n".join(parts) + "\n"


def _soak_text(soak: dict[str, Any]) -> list[str]:
    if not soak["databases"]:
        return ["## Soak", "Not run yet: `make faults ARGS=--soak`."]
    figures = [
        (
            database,
            f"{told['requests']:,}",
            f"{told['minutes']:g}",
            f"{told['erasures']:,}",
            str(told["troubles"]),
            str(told["lost"]),
            str(told["duplicated"]),
            str(told["stale_reads"]),
        )
        for database, told in soak["databases"].items()
    ]
    growth = [
        (
            database,
            role,
            _bytes(of["rss_slope_bytes_per_min"]),
            f"{of['descriptors_slope_per_min']:+.2f}",
            _bytes(of["rss_max_bytes"]),
        )
        for database, told in soak["databases"].items()
        for role, of in told["processes"].items()
    ]
    files = [
        (database, name.replace("_", " "), _bytes(of["slope_bytes_per_min"]), _bytes(of["max_bytes"]))
        for database, told in soak["databases"].items()
        for name, of in told["files"].items()
    ]
    return [
        "## Soak",
        "Load and trouble of every kind together. *Lost*: accepted and not forgotten in the end. *Duplicated*: its "
        "effect or its entry in the log twice. *Stale*: a read that showed what had been erased when it was asked.",
        _table(
            ("database", "requests", "minutes", "erasures", "troubles", "lost", "duplicated", "stale reads"), figures
        ),
        "Growth by least squares, each process from 20 s after its start on, with a level of its own.",
        _table(("database", "process", "memory a minute", "descriptors a minute", "memory, at most"), growth),
        _table(("database", "files", "bytes a minute", "at most"), files),
    ]


def _mutation_text(mutation: dict[str, Any]) -> list[str]:
    if not mutation:
        return []
    rows = [
        (f"`{module}`", f"{told['killed']:,}", f"{told['total']:,}", f"{told['killed'] / max(1, told['total']):.1%}")
        for module, told in mutation.items()
    ]
    return ["## Mutants", _table(("module", "killed", "of", "share"), rows)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _bytes(value: float) -> str:
    size = abs(value)
    if not math.isfinite(size):
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if size < 1024 or unit == "MiB":
            return f"{math.copysign(size, value):.1f} {unit}"
        size /= 1024
    return ""
