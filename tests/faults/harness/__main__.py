"""`make faults`: run what was not run yet, then write docs/results/faults.json and its page.

    python -m tests.faults.harness                       everything but the soak
    python -m tests.faults.harness --only B              rows of a part, or one row, `kills`, `recovery`
    python -m tests.faults.harness --seed 7 --only E3    the same choices again
    python -m tests.faults.harness --soak --minutes 60 --requests 100000
    python -m tests.faults.harness --page                write the page from what is there

A run that is cut off goes on where it stopped. Everything that breaks a promise leaves its history and log in
benchmarks/results/faults/broken, and the exit status says so.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.harness import cells, page
from tests.faults.harness.disk import can_mount, small_disk
from tests.faults.harness.kills import KILLINGS, kill
from tests.faults.harness.recovery import recover
from tests.faults.harness.rows import ROWS, Row
from tests.faults.harness.soak import LENGTH, soak
from tests.faults.harness.stage import free_port
from tests.faults.harness.trial import perform
from tests.faults.harness.world import DATABASES, Templates
from tests.postgres import postgres_programs, running_postgres

TRIALS, KILLS, TESTS, DRILLS = 3, 50, 3, 3
SERVER_DISK_MIB, SERVER_FILES = 700, 100_000
DRILL = "tests/faults/test_restore_drill.py::test_a_restored_backup_brings_nobody_back"


@contextmanager
def templates() -> Iterator[Templates]:
    """Homes to copy, and the servers that they need; nothing is left at the end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="expunge-faults-")))
        if postgres_programs() is None:
            yield Templates(folder / "homes", None)
            return
        disks = [stack.enter_context(small_disk(folder / "pg", SERVER_DISK_MIB, SERVER_FILES))] if can_mount() else []
        (folder / "pg").mkdir(exist_ok=True)
        folder.chmod(0o755)
        server = stack.enter_context(running_postgres(free_port(), folder / "pg"))
        yield Templates(folder / "homes", server, disks)


def run_trials(row_id: str, row: Row, database: str, asked: argparse.Namespace, made: Templates) -> None:
    """The trials of a row on a database."""
    assert row.script is not None
    script, runs = row.script, 1 if row.script.seconds > 30 else asked.trials

    def measure() -> dict[str, Any]:
        outcomes = []
        for number in range(runs):
            seed = asked.seed + number
            outcome = perform(script, database, seed, made, keep=cells.KEPT / row_id)
            _say(f"{row_id} {database} seed {seed}", outcome.broken, f"{outcome.requests} requests", outcome.seconds)
            outcomes.append(outcome.as_dict())
        return {"row": row_id, "database": database, "outcomes": outcomes}

    code = cells.code_of(cells.ENGINE, more=repr(script))
    cells.cell(f"trial-{row_id}-{database}", code, runs, measure, fresh=asked.fresh)


def run_kills(name: str, database: str, asked: argparse.Namespace, made: Templates) -> None:
    """The kills of one kind on a database."""

    def measure() -> dict[str, Any]:
        outcome = kill(name, database, asked.seed, asked.kills, made)
        _say(f"kills {name} {database} seed {asked.seed}", outcome.broken, f"{outcome.kills.total()}", outcome.seconds)
        return {"database": database, **outcome.as_dict()}

    code = cells.code_of(("kills", "judging", "stage", "world", "points"))
    cells.cell(f"kills-{name}-{database}", code, asked.kills, measure, fresh=asked.fresh)


def run_tests(rows: dict[str, Row], asked: argparse.Namespace) -> None:
    """The tests that stand for rows, in one process of pytest; each row's cell is written from what it told."""
    pending = {}
    for row_id, row in rows.items():
        if not row.nodes:
            continue
        code = _code_of_tests(row.nodes)
        kept = cells.stored(f"tests-{row_id}")
        if asked.fresh or kept is None or kept["code"] != code or kept["asked"] < asked.tests:
            pending[row_id] = code
    if not pending:
        return
    nodes = sorted({node for row_id in pending for node in rows[row_id].nodes})
    began, told = time.monotonic(), pytest_runs(nodes, asked.tests)
    for row_id, code in pending.items():
        mine = [line for line in told if line["node"].startswith(tuple(rows[row_id].nodes))]
        result = {"row": row_id, "nodes": rows[row_id].nodes, "by_database": by_database(mine)}
        failed = [line["node"] for line in mine if line["outcome"] == "failed"]
        missing = [node for node in rows[row_id].nodes if not any(line["node"].startswith(node) for line in mine)]
        result["broken"] = [f"{node} failed" for node in failed] + [f"{node} did not run" for node in missing]
        cells.cell(f"tests-{row_id}", code, asked.tests, partial(dict, result), fresh=True)
        _say(f"{row_id} tests", result["broken"], f"{len(mine)} runs", time.monotonic() - began)


def run_drill(asked: argparse.Namespace) -> None:
    """The restore drill as an operator does it, with worker and API, on both databases."""

    def measure() -> dict[str, Any]:
        lines = pytest_runs([DRILL], asked.drills)
        return {"by_database": by_database(lines)}

    code = _code_of_tests([DRILL])
    done = cells.cell("drill", code, asked.drills, measure, fresh=asked.fresh)
    _say("restore drill", [text for each in done["by_database"].values() for text in each["broken"]], "", 0)


def pytest_runs(nodes: Sequence[str], runs: int) -> list[dict[str, Any]]:
    """Run tests several times; returns what became of each run."""
    files = sorted({node.partition("::")[0] for node in nodes})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        told = {"FAULTS_NODES": json.dumps(list(nodes)), "FAULTS_RUNS": str(runs), "FAULTS_OUT": str(out)}
        command = [sys.executable, "-m", "pytest", "-p", "tests.faults.harness.repeat", "-p", "no:cacheprovider"]
        command += ["-m", "slow or not slow", "--timeout", "600", *files]
        subprocess.run(command, cwd=cells.ROOT, env={**os.environ, **told}, check=False, stdout=subprocess.DEVNULL)
        return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def by_database(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Runs and failures for each database; tests that name none stand for both."""
    found: dict[str, Any] = {}
    for database in DATABASES:
        other = next(each for each in DATABASES if each != database)
        mine = [line for line in lines if f"{other}" not in line["node"].partition("[")[2]]
        ran = [line for line in mine if line["outcome"] != "skipped"]
        failed = [line for line in ran if line["outcome"] == "failed"]
        found[database] = {
            "runs": len(ran),
            "violations": len(failed),
            "broken": [f"{line['node']}: {line['text']}" for line in failed][:5],
        }
    return found


def _code_of_tests(nodes: Sequence[str]) -> str:
    files = {cells.ROOT / node.partition("::")[0] for node in nodes}
    return cells.code_of(files=files, more=repr(sorted(nodes)))


def _say(what: str, broken: Sequence[str], amount: str, seconds: float) -> None:
    held = "held" if not broken else f"BROKEN: {dict(Counter(broken))}"
    print(f"{time.strftime('%H:%M:%S')}  {what}: {held}  ({amount}, {seconds:.0f} s)", flush=True)


def main() -> int:
    """Run; returns 1 where a promise was broken."""
    asked = _arguments()
    # Told to end, it ends as it does by itself: no disk stays mounted, no server runs on.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    if not asked.page:
        rows = {
            row_id: row
            for row_id, row in ROWS.items()
            if asked.only is None or row_id == asked.only or (len(asked.only) == 1 and row_id.startswith(asked.only))
        }
        print(f"seed {asked.seed}: the same seed makes the same choices again", flush=True)
        with templates() as made:
            if asked.soak:
                for database in asked.databases:
                    soak(database, asked.seed, asked.minutes, asked.requests, made)
            else:
                _everything(rows, asked, made)
    broken = page.write(cells.ROOT / "docs" / "results")
    print(f"Written to docs/results/faults.json and faults.md; {broken} violations.")
    return int(broken > 0)


def _everything(rows: dict[str, Row], asked: argparse.Namespace, made: Templates) -> None:
    if asked.only in (None, "kills"):
        for name in KILLINGS:
            for database in asked.databases:
                run_kills(name, database, asked, made)
    for row_id, row in rows.items():
        for database in asked.databases if row.script is not None else ():
            run_trials(row_id, row, database, asked, made)
    if asked.only in (None, "recovery"):
        for database in asked.databases:
            recover(database, asked.seed, made, fresh=asked.fresh)
    run_tests(rows, asked)
    if asked.only in (None, "drill"):
        run_drill(asked)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.faults.harness", description="Break the service in every way.")
    parser.add_argument("--only", help="a row (B3), a part (B), kills, recovery or drill")
    parser.add_argument("--seed", type=int, default=1, help="of the first trial; the next ones count on")
    parser.add_argument("--trials", type=int, default=TRIALS, help=f"of a row on a database [{TRIALS}]")
    parser.add_argument("--kills", type=int, default=KILLS, help=f"at each point on a database [{KILLS}]")
    parser.add_argument("--tests", type=int, default=TESTS, help=f"runs of each test [{TESTS}]")
    parser.add_argument("--drills", type=int, default=DRILLS, help=f"runs of the restore drill [{DRILLS}]")
    parser.add_argument("--databases", nargs="+", default=list(DATABASES), choices=DATABASES)
    parser.add_argument("--soak", action="store_true", help="the soak instead of the rows")
    parser.add_argument("--minutes", type=float, default=LENGTH, help=f"of the soak, each database [{LENGTH:g}]")
    parser.add_argument("--requests", type=int, default=100_000, help="of the soak, each database [100000]")
    parser.add_argument("--fresh", action="store_true", help="measure anew what was measured")
    parser.add_argument("--page", action="store_true", help="only write the page from what was measured")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
