"""Ten minutes of one erasure a second, heavy users included: how long each takes to be forgotten, and what it costs.

    EXPUNGE_DATA_DIR=... python -m benchmarks.soak [--seconds N] [--rate R] [--fresh]

`expunge serve` as it comes, on ML-100K with the product's own training and encoder; single pairs over REST, in turns of
one of the tenth of the users who have most, and of any other. Writes benchmarks/results/soak.json; a rehearsal of other
length or rate writes into .cache/benchmarks. A run that is cut off goes on where it stopped, on the same home.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import cells
from benchmarks.processes import Service, all_in_one
from benchmarks.serving import Caller, Pair, erasure_path
from service.cli.context import open_home
from service.interactions.readers import read_dataset
from service.platform.auth import ensure_first_key
from service.platform.clock import SystemClock
from service.settings import load_settings

DATASET = "ml-100k"
SECONDS, RATE = 600, 1.0
SEED = 20
POLL_S = 0.01
FORGOTTEN_WITHIN_S = 60.0
TOKEN = "soak-token"  # noqa: S105  # the name of a file


@dataclass
class Soak:
    """One run: its folder holds the home that is served and a line for each erasure that ended.

    Args:
        folder: kept between runs.
        seconds: in which erasures are sent.
        rate: erasures a second.
    """

    folder: Path
    seconds: float
    rate: float
    done: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Erasures in the whole run."""
        return round(self.seconds * self.rate)

    def run(self) -> dict[str, Any]:
        """Send what was not sent yet; returns the figures of the whole run."""
        pairs = _pairs(self.total)
        lines = self.folder / "erasures.jsonl"
        if lines.exists():
            self.done = {line["place"]: line for line in map(json.loads, lines.read_text().splitlines())}
        home = self.folder / "home"
        if not home.exists():
            shutil.copytree(_kept_home(), home)
        left = [place for place in range(self.total) if place not in self.done]
        memory: dict[str, Any] = {}
        if left:
            print(f"soak: {len(left)} of {self.total} erasures left", flush=True)
            with all_in_one(home) as service, lines.open("a") as log:
                token = (home / TOKEN).read_text()
                before = _memory(service)
                self._send(Caller(service.port, token), [(place, pairs[place]) for place in left], log)
                memory = {"before": before, "after": _memory(service), "erasures": len(left)}
            cells.write_json(self.folder / "memory.json", memory)
        memory = memory or json.loads((self.folder / "memory.json").read_text())
        return _figures([self.done[place] for place in sorted(self.done)], memory, home) | {
            "seconds": self.seconds,
            "rate": self.rate,
        }

    def _send(self, call: Caller, erasures: Sequence[tuple[int, tuple[Pair, bool]]], log: Any) -> None:
        started, rest = time.perf_counter(), list(erasures)
        pending: dict[str, dict[str, Any]] = {}
        while rest or pending:
            now = time.perf_counter()
            if rest and now >= started + (len(erasures) - len(rest)) / self.rate:
                place, (pair, heavy) = rest.pop(0)
                accepted = call("DELETE", erasure_path(pair))
                answered = time.perf_counter()
                pending[accepted["id"]] = {"place": place, "heavy": heavy, "sent": now, "accept": answered - now}
            for erasure_id, line in list(pending.items()):
                state = call("GET", f"/v1/erasures/{erasure_id}")
                waited = time.perf_counter() - line["sent"] - line["accept"]
                if state["status"] == "accepted" and waited < FORGOTTEN_WITHIN_S:
                    continue
                del pending[erasure_id], line["sent"]
                stages = {name: facts["seconds"] for name, facts in state["stages"].items()}
                gate = state["gate"] or {}
                line |= {"seconds": waited, "status": state["status"], "needs": state["needs"], "stages": stages}
                line |= {"epochs": gate.get("fine_tune_epochs", 0)}
                self.done[line["place"]] = line
                print(json.dumps(line), file=log, flush=True)
            time.sleep(POLL_S)


def _pairs(count: int) -> list[tuple[Pair, bool]]:
    """Recorded pairs, each once, and whether their user is one of the tenth who have most; in turns."""
    data = read_dataset(cells.data_dir() / DATASET)
    degrees = np.bincount(data.train[:, 0], minlength=len(data.users))
    heavy = degrees >= np.quantile(degrees, 0.9)
    random = np.random.default_rng(SEED)
    chosen = []
    for wanted in (True, False):
        rows = data.train[heavy[data.train[:, 0]] == wanted]
        chosen.append(rows[random.permutation(len(rows))[: (count + 1) // 2]])
    mixed = [
        (rows, wanted) for both in zip(*chosen, strict=True) for rows, wanted in zip(both, (True, False), strict=True)
    ]
    return [((data.users.ids[user], data.items.ids[item]), wanted) for (user, item), wanted in mixed[:count]]


def _kept_home() -> Path:
    """A home that was imported, trained and pre-trained by the command line, with its own settings throughout."""
    home = cells.CACHE / "soak-home"
    if (home / TOKEN).exists():
        return home
    shutil.rmtree(home, ignore_errors=True)
    for step in (["import", "--data", str(cells.data_dir() / DATASET)], ["train"], ["pretrain"]):
        print(f"  {step[0]}", flush=True)
        command = [sys.executable, "-m", "service.cli", "--home", str(home), *step]
        subprocess.run(command, cwd=cells.ROOT, check=True, stdout=subprocess.DEVNULL)
    with open_home(load_settings(home=home), upgrade=True) as opened:
        at = SystemClock().now()
        key = opened.database.transact(lambda connection: ensure_first_key(connection, at))
    assert key is not None, "a new home has no key yet"
    (home / TOKEN).write_text(key.token)
    return home


def _memory(service: Service) -> dict[str, int]:
    return {
        "api_bytes": service.api.memory_info().rss,
        "worker_bytes": service.worker.memory_info().rss,
        "server_bytes": sum(_rss(child) for child in service.process.children(recursive=True) if _is_server(child)),
    }


def _rss(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


def _is_server(process: psutil.Process) -> bool:
    return "valkey" in process.name() or "redis" in process.name()


def _figures(lines: Sequence[dict[str, Any]], memory: dict[str, Any], home: Path) -> dict[str, Any]:
    heavy = [line for line in lines if line["heavy"]]
    stages: dict[str, list[float]] = {}
    for line in lines:
        for stage, seconds in line["stages"].items():
            stages.setdefault(stage, []).append(seconds)
    return {
        "n": len(lines),
        "accepted_to_forgotten_s": _percentiles([line["seconds"] for line in lines]),
        "heavy_users_s": _percentiles([line["seconds"] for line in heavy]),
        "accept_s": _percentiles([line["accept"] for line in lines]),
        "stage_median_s": {stage: statistics.median(every) for stage, every in stages.items()},
        "stage_p99_s": {stage: _percentiles(every)["p99"] for stage, every in stages.items()},
        "statuses": dict(Counter(line["status"] for line in lines)),
        "refused_by_the_gate": sum(line["needs"] == "gate_refused" for line in lines),
        "fine_tuned": sum(line["epochs"] > 0 for line in lines),
        "memory": memory,
        "database_bytes": sum(path.stat().st_size for path in home.glob("expunge.db*")),
        "store_bytes": sum(path.stat().st_size for path in (home / "store").rglob("*") if path.is_file()),
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if len(values) < 2:
        return dict.fromkeys(("p50", "p90", "p99", "max"), max(values, default=0.0))
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98], "max": max(values)}


def main() -> int:
    """Run, or go on with, a soak; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description="One erasure a second, for ten minutes.")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--rate", type=float, default=RATE, help="erasures a second")
    parser.add_argument("--fresh", action="store_true", help="begin anew; the trained home is kept")
    asked = parser.parse_args()
    folder = cells.CACHE / f"soak-{asked.seconds:g}-{asked.rate:g}"
    if asked.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    figures = Soak(folder, asked.seconds, asked.rate).run()
    counts = (asked.seconds, asked.rate) == (SECONDS, RATE)
    path = (cells.RESULTS if counts else folder) / "soak.json"
    cells.write_json(path, {"machine": cells.machine(), "commit": cells.commit(), **figures})
    print(json.dumps(figures, indent=2))
    print(f"Written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
