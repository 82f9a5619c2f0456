"""What a compaction costs: DELETE to `erased` over one training, and what callers feel of it meanwhile.

    EXPUNGE_DATA_DIR=... python -m benchmarks.main --only compacting
    EXPUNGE_DATA_DIR=... python -m benchmarks.compacting      the same in minutes, on ML-100K; a cell of its own

ML-1M, imported, trained and served by the command line with its own settings throughout. Once, nothing else is asked
for: the seconds from a DELETE to `erased` by a compaction asked for at once, over those that `expunge train` took just
before; callers come only when it has trained, to feel it purge and search. Once more they ask for recommendations and
erasures at the same rates, before another one and while that trains.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from benchmarks import cells, load
from benchmarks.load import Load, Plan, request
from benchmarks.processes import Service, all_in_one
from benchmarks.serving import Caller, Pair, erasure_path
from service.cli.context import open_home
from service.interactions.readers import read_dataset
from service.platform.auth import ensure_first_key
from service.platform.clock import SystemClock
from service.settings import load_settings

COMPACTIONS = "/v1/models/compactions"
RECOMMENDATIONS_A_SECOND, ERASURES_A_SECOND = 100.0, 5.0
N_ITEMS = 20
POLL_S = 0.25
ERASED_WITHIN_S = 3600.0
TRAINED, TOKEN = "trained.json", "token"  # names of files
AFTER_TRAINING = ("moving", "purging", "scanning", "finishing")


@dataclass(frozen=True)
class CompactingScale:
    """How long callers ask, each time, and of which data set."""

    dataset: str = "ml-1m"
    seconds: float = 60.0
    purging_s: float = 15.0
    settle_s: float = 5.0


FULL = CompactingScale()
QUICK = CompactingScale(seconds=5.0, purging_s=3.0, settle_s=1.0)
SMALL = CompactingScale("ml-100k", seconds=12.0, purging_s=6.0)


def compacting(scale: CompactingScale | None = None) -> dict[str, Any]:
    """Seconds to `erased`, and latencies before, while it trains, and while it purges and searches."""
    if scale is None:
        scale = QUICK if cells.is_quick() else FULL
    name = "compacting" if scale.dataset == FULL.dataset else f"compacting-{scale.dataset}"
    return cells.cell(name, lambda: _measure(scale))


def _measure(scale: CompactingScale) -> dict[str, Any]:
    kept = _kept_home(scale.dataset)
    trained: dict[str, Any] = json.loads((kept / TRAINED).read_text())
    callers = _Callers(scale)
    with _copy_of(kept) as (service, call):
        erased, purging = _erase_by_compaction(service, call, callers, scale.purging_s)
    with _copy_of(kept) as (service, call):
        time.sleep(scale.settle_s)
        idle = callers.ask(service, call.token, scale.seconds)
        compaction = call("POST", COMPACTIONS, {})["id"]
        _until(call, compaction, lambda state: state["step"] == "training" and state["progress"]["share"] > 0)
        training = callers.ask(service, call.token, scale.seconds)
        still = call("GET", f"{COMPACTIONS}/{compaction}")
        assert still["step"] == "training", "the training ended before the callers did: ask for less"
        call("DELETE", f"{COMPACTIONS}/{compaction}")
    return {
        "train": trained,
        "erased": erased,
        "idle": idle,
        "training": training,
        "purging": purging,
        "recommendations_a_second": RECOMMENDATIONS_A_SECOND,
        "erasures_a_second": ERASURES_A_SECOND,
        "dataset": scale.dataset,
    }


class _Caller(Caller):
    """A caller that knows its key."""

    def __init__(self, port: int, token: str) -> None:
        super().__init__(port, token)
        self.port, self.token = port, token

    def __call__(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """As any caller, over a connection of its own: between calls others are waited for longer than one is kept."""
        super().__init__(self.port, self.token)
        return super().__call__(method, path, body)


class _Callers:
    """Who asks meanwhile: for recommendations of anybody, and for erasures of pairs, each once."""

    def __init__(self, wanted: CompactingScale) -> None:
        data = read_dataset(cells.data_dir() / wanted.dataset)
        random = np.random.default_rng(17)
        rows = data.train[random.permutation(len(data.train))]
        self._pairs: Iterator[Pair] = ((data.users.ids[user], data.items.ids[item]) for user, item in rows.tolist())
        self._users, self._random = data.users.ids, random

    def pair(self) -> Pair:
        """A recorded pair that was not given out yet."""
        return next(self._pairs)

    def ask(self, service: Service, token: str, seconds: float) -> dict[str, Any]:
        """Both loads at once, for so long; returns what each measured."""
        n_asked, n_erased = (round(rate * seconds) for rate in _RATES)
        chosen = self._random.integers(len(self._users), size=n_asked)
        paths = [f"/v1/users/{quote(self._users[row], safe='')}/recommendations?n={N_ITEMS}" for row in chosen]
        plans = {
            "recommend": Plan([request("GET", path, token) for path in paths], rate=_RATES[0], seconds=600.0),
            "accept": Plan(
                [request("DELETE", erasure_path(self.pair()), token) for _ in range(n_erased)],
                rate=_RATES[1],
                seconds=600.0,
            ),
        }
        measured: dict[str, Load] = {}

        def run(name: str) -> None:
            measured[name] = load.run(service.address, plans[name])

        threads = [threading.Thread(target=run, args=(name,)) for name in plans]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {name: asdict(measured[name]) for name in plans}


_RATES = (RECOMMENDATIONS_A_SECOND, ERASURES_A_SECOND)


def _erase_by_compaction(
    service: Service, call: _Caller, callers: _Callers, purging_s: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One pair, from its DELETE to `erased`, by a compaction that is asked for at once; and what callers felt of its
    steps after the training.
    """
    started = time.perf_counter()
    erasure = call("DELETE", erasure_path(callers.pair()))["id"]
    _await(call, f"/v1/erasures/{erasure}", lambda state: state["status"] == "forgotten")
    forgotten = time.perf_counter() - started
    compaction = call("POST", COMPACTIONS, {})["id"]
    _until(call, compaction, lambda state: state["step"] in AFTER_TRAINING)
    felt: dict[str, Any] = {}
    asking = threading.Thread(target=lambda: felt.update(callers.ask(service, call.token, purging_s)))
    asking.start()
    state = _until(call, compaction, lambda state: state["status"] == "done")
    _await(call, f"/v1/erasures/{erasure}", lambda state: state["status"] == "erased")
    seconds = time.perf_counter() - started
    asking.join()
    measured = {
        "seconds": seconds,
        "seconds_forgotten": forgotten,
        "steps": {name: step["seconds"] for name, step in state["steps"].items()},
        "facts": state["facts"],
    }
    return measured, felt


def _until(call: _Caller, compaction: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    return _await(call, f"{COMPACTIONS}/{compaction}", reached)


def _await(call: _Caller, path: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + ERASED_WITHIN_S
    while time.monotonic() < deadline:
        state = call("GET", path)
        if reached(state):
            return state
        assert state["status"] not in ("refused", "failed", "cancelled"), f"{path} ended as {state['status']}"
        time.sleep(POLL_S)
    msg = f"{path} did not get there in {ERASED_WITHIN_S:g} s."
    raise AssertionError(msg)


@contextmanager
def _copy_of(kept: Path) -> Iterator[tuple[Service, _Caller]]:
    """A service on a copy of the home, which is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="compacting-", dir=cells.CACHE, ignore_cleanup_errors=True) as folder:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        with all_in_one(Path(folder)) as service:
            yield service, _Caller(service.port, (kept / TOKEN).read_text())


def _kept_home(dataset: str) -> Path:
    """A home as an operator makes one; what its training took is in a file beside."""
    home = cells.CACHE / f"compacting-home-{dataset}"
    if (home / TOKEN).exists():
        return home
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    _command(home, "import", "--data", str(cells.data_dir() / dataset))
    started = time.perf_counter()
    _command(home, "train", "--json", str(home / TRAINED))
    wall = time.perf_counter() - started
    document = json.loads((home / TRAINED).read_text())
    seconds = {"training": document["seconds"], "pretraining": document["encoder"]["seconds"], "command": wall}
    with open_home(load_settings(home=home), upgrade=True) as opened:
        at = SystemClock().now()
        key = opened.database.transact(lambda connection: ensure_first_key(connection, at))
    assert key is not None, "a new home has no key yet"
    facts = {"seconds": seconds, "dimension": document["dimension"], "epochs": document["epochs"]}
    cells.write_json(home / TRAINED, facts)
    (home / TOKEN).write_text(key.token)
    return home


def _command(home: Path, *arguments: str) -> None:
    print(f"  {arguments[0]}", flush=True)
    command: Sequence[str] = [sys.executable, "-m", "service.cli", "--home", str(home), *arguments]
    subprocess.run(command, cwd=cells.ROOT, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    print(json.dumps(compacting(SMALL), indent=2))
