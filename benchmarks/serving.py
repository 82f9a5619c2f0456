"""How fast the service accepts, forgets and recommends, and the memory that it takes: real processes, real HTTP.

    EXPUNGE_DATA_DIR=... python -m benchmarks.main --only forgotten --only accept --only recommend --only rss

Everything goes over loopback to processes that serve a fresh copy of one home (see `benchmarks.homes`): ML-1M, the base
of the learning figures, its encoder, SQLite. Two rates are only ever compared within one run, in turns.
"""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import psutil
from sqlalchemy import create_engine

from benchmarks import cells, load
from benchmarks.application import ROWS
from benchmarks.homes import BenchmarkHome, dataset, fresh_home
from benchmarks.load import Address, Load, Plan, request
from benchmarks.processes import all_in_one, api_alone
from service.settings import load_settings

FORGOTTEN_WITHIN_S = 30.0
POLL_S = 0.005
N_ITEMS = 20

Pair = tuple[str, str]


@dataclass(frozen=True)
class Scale:
    """How much is measured. `seconds` bounds each round of load, `budget_s` the erasures sent one by one."""

    erasures: int = 200
    rounds: int = 7
    accepted_a_round: int = 4_000
    recommended_a_round: int = 8_000
    half_load_seconds: float = 30.0
    seconds: float = 30.0
    budget_s: float = 900.0
    answered_for_memory: int = 2_000
    batch_for_memory: int = 256
    share_for_memory: float = 0.01


FULL = Scale()
QUICK = Scale(
    erasures=5,
    rounds=3,
    accepted_a_round=800,
    recommended_a_round=1_500,
    half_load_seconds=3.0,
    batch_for_memory=32,
)


class Caller:
    """Calls one after the other over one connection."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def __call__(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The document of an answer; raises AssertionError where it is a problem."""
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, self._headers)
        answer = self._connection.getresponse()
        document: dict[str, Any] = json.loads(answer.read() or b"{}")
        assert answer.status < 300, f"{method} was answered {answer.status}: {document.get('detail')}"
        return document


def scale() -> Scale:
    """How much is measured in this run."""
    return QUICK if cells.is_quick() else FULL


def known_pairs(count: int, seed: int) -> list[Pair]:
    """Random recorded interactions, each once."""
    data = dataset()
    rows = np.random.default_rng(seed).choice(len(data.train), count, replace=False)
    return [(data.users.ids[user], data.items.ids[item]) for user, item in data.train[rows].tolist()]


def forgotten() -> dict[str, Any]:
    """Seconds from sending one DELETE to the first answer that says `forgotten`; one erasure after the other."""

    def measure() -> dict[str, Any]:
        with fresh_home() as home, all_in_one(home.folder) as service:
            call = Caller(service.port, home.token)
            ends = time.monotonic() + scale().budget_s
            erasures = []
            for pair in known_pairs(scale().erasures, seed=11):
                if time.monotonic() > ends:
                    break
                erasures.append(_forget_one(call, pair))
            return _summary(erasures)

    return cells.cell("forgotten", measure)


def _forget_one(call: Caller, pair: Pair) -> dict[str, Any]:
    started = time.perf_counter()
    accepted = call("DELETE", erasure_path(pair))
    answered = time.perf_counter()
    state: dict[str, Any] = accepted
    while state["status"] == "accepted" and time.perf_counter() - started < FORGOTTEN_WITHIN_S:
        time.sleep(POLL_S)
        state = call("GET", f"/v1/erasures/{accepted['id']}")
    is_forgotten = state["status"] == "forgotten"
    seconds = time.perf_counter() - started if is_forgotten else FORGOTTEN_WITHIN_S
    return {"seconds": seconds, "accept_seconds": answered - started, "forgotten": is_forgotten, "state": state}


def _summary(erasures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    seconds = [erasure["seconds"] for erasure in erasures]
    stages: dict[str, list[float]] = {}
    for erasure in erasures:
        for stage, facts in erasure["state"].get("stages", {}).items():
            stages.setdefault(stage, []).append(facts["seconds"])
    return {
        "n": len(seconds),
        "p50_s": _quantile(seconds, 50),
        "p90_s": _quantile(seconds, 90),
        "p99_s": _quantile(seconds, 99),
        "max_s": max(seconds),
        "accept_p50_s": _quantile([erasure["accept_seconds"] for erasure in erasures], 50),
        "stage_median_s": {stage: statistics.median(every) for stage, every in stages.items()},
        "not_forgotten": sum(not erasure["forgotten"] for erasure in erasures),
        "arrivals": "one after the other, each sent when the last was forgotten; polled every 5 ms",
        "not_forgotten_count_as_s": FORGOTTEN_WITHIN_S,
        "seconds": [round(each, 4) for each in seconds],
    }


def accept() -> dict[str, Any]:
    """Erasures accepted a second, 16 clients, over rows inserted a second by an endpoint of the same app."""

    def measure() -> dict[str, Any]:
        size = scale().accepted_a_round
        pairs = known_pairs(size * (scale().rounds + 1), seed=12)
        with fresh_home() as home, api_alone(_with_rows(home)) as service:
            erase = [request("DELETE", erasure_path(pair), home.token) for pair in pairs]
            insert = [request("DELETE", _row_path("rows", pair), home.token) for pair in pairs]
            lean = [request("DELETE", _row_path("rows-lean", pair), home.token) for pair in pairs]

            def part(messages: Sequence[bytes], place: int) -> Plan:
                return Plan(messages[place * size : (place + 1) * size], seconds=scale().seconds)

            kinds = {"accept": erase, "insert": insert, "insert_lean": lean}
            plans = {name: lambda place, kind=kind: part(kind, place) for name, kind in kinds.items()}
            compared = _in_turns(service.address, plans)
            waiting = Caller(service.port, home.token)("GET", "/v1/erasures?limit=1")["erasures"][0]["status"]
        return compared | {"last_status": waiting, "worker": "none runs: accepting is the API's work alone"}

    return cells.cell("accept", measure)


def recommend() -> dict[str, Any]:
    """Recommendations a second over fixed lists a second at 16 connections; latency at half load."""

    def measure() -> dict[str, Any]:
        users = dataset().users.ids
        random = np.random.default_rng(13)
        with fresh_home() as home, api_alone(home.folder) as service:
            paths = [f"/v1/users/{quote(user, safe='')}/recommendations?n={N_ITEMS}" for user in users]
            ask = [request("GET", path, home.token) for path in paths]
            size = _set_fixed(service.address, home.token, ask)
            head = [quote(user, safe="") for user in users]
            fixed = [request("GET", f"/benchmark/fixed/{user}", home.token) for user in head]
            lean = [request("GET", f"/benchmark/fixed-lean/{user}", home.token) for user in head]

            def part(messages: Sequence[bytes], count: int, rate: float | None = None) -> Plan:
                chosen = random.integers(len(messages), size=count)
                return Plan([messages[place] for place in chosen], rate=rate, seconds=scale().seconds * 2)

            count = scale().recommended_a_round
            kinds = {"recommend": ask, "fixed": fixed, "fixed_lean": lean}
            plans = {name: lambda _, kind=kind: part(kind, count) for name, kind in kinds.items()}
            compared = _in_turns(service.address, plans)
            rate = compared["rate"]["recommend"] / 2
            calm = load.run(service.address, part(ask, round(rate * scale().half_load_seconds), rate))
        return compared | {"half_load": asdict(calm) | {"wanted_rate": rate}, "answer_bytes": size}

    return cells.cell("recommend", measure)


def _set_fixed(address: Address, token: str, ask: Sequence[bytes]) -> int:
    """Give the fixed endpoints a typical answer to return: the one of median length of a hundred; its length."""
    answers = sorted((load.ask(address, message) for message in ask[:100]), key=len)
    typical = answers[len(answers) // 2]
    load.ask(address, request("PUT", "/benchmark/fixed", token, typical))
    return len(typical)


def rss() -> dict[str, Any]:
    """Memory of the API after 2,000 answers, and of the worker after single erasures, a full batch and 1 % of all."""

    def measure() -> dict[str, Any]:
        size = scale()
        users = dataset().users.ids
        large = round(size.share_for_memory * len(dataset().train))
        pairs = known_pairs(size.batch_for_memory + large, seed=14)
        with fresh_home() as home, all_in_one(home.folder) as service:
            call = Caller(service.port, home.token)
            memory: dict[str, Any] = {"api_started": _memory(service.api), "worker_started": _memory(service.worker)}
            paths = [f"/v1/users/{quote(user, safe='')}/recommendations?n={N_ITEMS}" for user in users]
            asked = [request("GET", paths[place % len(paths)], home.token) for place in range(size.answered_for_memory)]
            load.run(service.address, Plan(asked))
            memory["api_answered"] = _memory(service.api)
            batch = pairs[: size.batch_for_memory]
            load.run(service.address, Plan([request("DELETE", erasure_path(pair), home.token) for pair in batch]))
            _all_settled(call)
            memory["worker_batch"] = _memory(service.worker)
            named = [{"user_id": user, "item_id": item} for user, item in pairs[size.batch_for_memory :]]
            call("POST", "/v1/erasures", {"interactions": named})
            _all_settled(call)
            load.run(service.address, Plan(asked))  # the API has loaded the versions since
            return memory | {"api": _memory(service.api), "worker": _memory(service.worker), "pairs_at_once": large}

    return cells.cell("rss", measure)


def _all_settled(call: Caller) -> None:
    ends = time.monotonic() + 2 * FORGOTTEN_WITHIN_S
    while call("GET", "/v1/erasures?status=accepted&limit=1")["erasures"]:
        assert time.monotonic() < ends, "The erasures were not forgotten in time."
        time.sleep(0.1)


def _memory(process: psutil.Process) -> dict[str, int]:
    """Resident bytes of a process now, and its highest since it started."""
    peak = next(
        line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return {"rss_bytes": process.memory_info().rss, "peak_bytes": int(peak.split()[1]) * 1024}


def _in_turns(address: Address, plans: Mapping[str, Callable[[int], Plan]]) -> dict[str, Any]:
    """Run each kind of load in each round; rates are medians over rounds, ratios medians of the rounds' own ratios."""
    for plan in plans.values():
        load.run(address, plan(0))  # not counted: connections, caches, statements
    rounds: list[dict[str, Load]] = []
    for place in range(1, scale().rounds + 1):
        rounds.append({name: load.run(address, plan(place)) for name, plan in plans.items()})
        told = ", ".join(f"{name} {measured.rate:,.0f}/s" for name, measured in rounds[-1].items())
        print(f"  round {place} of {scale().rounds}: {told}", flush=True)
    first, *others = plans
    return {
        "n": len(rounds),
        "rate": {name: statistics.median(each[name].rate for each in rounds) for name in plans},
        "cpu_us": {name: statistics.median(each[name].cpu_us for each in rounds) for name in plans},
        "p99_ms": {name: statistics.median(each[name].p99_ms for each in rounds) for name in plans},
        "over": {name: statistics.median(each[first].rate / each[name].rate for each in rounds) for name in others},
        "ratios": {name: [each[first].rate / each[name].rate for each in rounds] for name in others},
        "connections": 16,
    }


def _quantile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def erasure_path(pair: Pair) -> str:
    """The path of the DELETE of one interaction."""
    user, item = (quote(id, safe="") for id in pair)
    return f"/v1/users/{user}/interactions/{item}"


def _row_path(table: str, pair: Pair) -> str:
    user, item = (quote(id, safe="") for id in pair)
    return f"/benchmark/{table}/{user}/{item}"


def _with_rows(home: BenchmarkHome) -> Path:
    """The home's folder, with the table of the reference endpoint in its database."""
    engine = create_engine(load_settings(home=home.folder).sql_url)
    ROWS.create(engine)
    engine.dispose()
    return home.folder
