"""kill -9 at each named point, many times: enumerated, not sampled. Each cell is one home that dies over and over."""

import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from service.compaction.steps import STEPS
from service.erasures.ledger_keeping import append_missing
from service.platform import tables
from tests.factories.backups import Backup
from tests.factories.compactions import asked, state
from tests.factories.workers import Home
from tests.faults.harness.history import History, Operation
from tests.faults.harness.judging import Verdict, at_rest, judge, never_ahead
from tests.faults.harness.points import kill_points
from tests.faults.harness.stage import NotInTime, Stage, staged, wait_for
from tests.faults.harness.world import MEDIUM, SMALL, Pair, Templates, World

LEASE_S = 0.4
DEATH_S = 30.0
TRAINED_S = 180.0
"""For a step that trains: its process loads torch first."""
REST_S = 60.0
WITHIN: dict[str, tuple[str, ...]] = {
    "moving": ("compactor.after_point",),
    "purging": (
        "compactor.after_gather",
        "purge.versions_marked",
        "purge.after_versions",
        "purge.rows_chunk",
        "purge.after_rows",
        "purge.after_stream",
        "purge.after_files",
        "purge.after_bytes",
    ),
    "finishing": ("compactor.after_part_erased",),
}
"""Points that lie within a step."""
COMPACTING: dict[str, Any] = {
    "compaction_check_seconds": 0.1,
    "compaction_min_quality": 1e-9,
    "compaction_share": 1.0,
    "compaction_on_refusal": False,
    "compaction_threads": 1,
}
LOADING = "api.during_load"
API_POINTS = ("api.before_commit", "api.after_commit", "relay.after_xadd")
REPLAY_POINTS = (
    ("replay.chunk", "replay.before_ledger", "replay.after_fork"),
    # Once the ledger goes on from the restored database there is nothing left to replay: that step has its own restore.
    ("replay.before_watermark",),
)


def worker_points() -> tuple[str, ...]:
    """The points that a worker passes in every batch, and the relay's."""
    return tuple(point for point in kill_points() if point.startswith(("worker.", "relay.")))


def compactor_points() -> tuple[str, ...]:
    """The points that a compaction passes, in the order in which it does."""
    order = ["compactor.after_mark"]
    for step in STEPS:
        order += WITHIN.get(step, ())
        order.append(f"compactor.after_{step}")
    return tuple(order)


@dataclass
class KillOutcome:
    """What came of many kills on one home."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    resurrected: int = 0
    drills: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**self.__dict__, "kills": dict(self.kills), "broken": self.broken[:20]}


def kill_workers(done: KillOutcome, database: str, rounds: int, templates: Templates) -> None:
    """Erasures are accepted, a worker dies at a point, the next one takes over and dies at another.

    So each recovery is interrupted in its turn. After each death the live version is whole and nothing is called
    forgotten that it holds; in the end all is forgotten, once.
    """
    chosen = random.Random(done.seed)
    with staged(templates, database, MEDIUM, lease_seconds=LEASE_S) as stage, stage.place() as place:
        callers = _Direct(place, chosen)
        for _ in range(rounds):
            points = list(worker_points())
            chosen.shuffle(points)
            for point in points:
                callers.accept()
                _count(done, point, stage.start("worker-0", f"{point}:kill"))
                done.broken += never_ahead(place)
        stage.start("worker-0")
        _judge(done, place, callers.history)


def kill_apis(done: KillOutcome, database: str, rounds: int, templates: Templates) -> None:
    """A caller asks, with one key, an API that dies before the commit; one that dies after it; one that publishes
    and dies before it notes so. The key has one erasure in the end, and was told of no other."""
    chosen = random.Random(done.seed)
    with staged(templates, database, MEDIUM, lease_seconds=LEASE_S) as stage, stage.place() as place:
        client = _Client(stage, MEDIUM, chosen)
        for number in range(rounds):
            _count(done, LOADING, stage.start("api-0", f"{LOADING}:kill"))
            asked = client.new(f"k{number}")
            for point in API_POINTS:
                stored = len(_ids(place))
                process = stage.start("api-0", f"{point}:kill")
                client.wait(process)
                answered = client.erase(asked)
                if point == "relay.after_xadd":  # it answers, and dies soon after
                    wait_for(lambda process=process: not process.is_alive(), DEATH_S, point)
                _count(done, point, process)
                expected = {"api.before_commit": 0, "api.after_commit": 1}.get(point, 0)
                if len(_ids(place)) != stored + expected:
                    done.broken.append(f"{point}: {len(_ids(place)) - stored} erasures were stored, not {expected}")
                if answered and point != "relay.after_xadd":
                    done.broken.append(f"{point}: a caller was answered by a process that had died")
        stage.start("api-0")
        stage.start("worker-0")
        _judge(done, place, client.history)
        client.close()


def kill_replays(done: KillOutcome, database: str, rounds: int, templates: Templates) -> None:
    """A backup is restored from before an erasure; the process that cleans it dies at each step of that, in turn.

    The next one goes on, and until the last is through nobody is answered. Nothing of what was erased is back.
    """
    chosen = random.Random(done.seed)
    with staged(templates, database, SMALL) as stage, tempfile.TemporaryDirectory() as folder:
        client = _Client(stage, SMALL, chosen)
        for number in range(rounds):
            backup = Backup(stage.settings.sql_url, Path(folder), f"backup-{number}")
            with stage.place() as place:
                callers = _Direct(place, chosen)
                erased = [callers.accept() for _ in range(2)]
                with place.store.ledger.writing() as held:
                    assert held, "Nobody else writes the ledger."
                    append_missing(place.database, place.store.ledger)
            for points in REPLAY_POINTS:
                backup.restore()
                for point in points:
                    _count(done, point, stage.start("api-0", f"{point}:kill"))
            process = stage.start("api-0")
            client.wait(process)
            wait_for(lambda: stage.ask("api-0", "/readyz") == 200, REST_S, "ready after a restore")
            back = sum(client.is_back(pair) for _, pair in erased)
            done.drills, done.resurrected = done.drills + 1, done.resurrected + back
            if back:
                done.broken.append(f"P4: {back} erased interactions came back with a backup")
            with stage.place() as place:
                lost = {erasure_id for erasure_id, _ in erased} - set(_ids(place))
                if lost:
                    done.broken.append(f"P1: {len(lost)} erasures are not on record after a restore")
            stage.kill("api-0")
            Path(folder, f"backup-{number}").unlink(missing_ok=True)
        client.close()


def kill_compactors(done: KillOutcome, database: str, rounds: int, templates: Templates) -> None:
    """A compaction whose compactor dies at every point that it passes; each time the next one goes on from there.

    In the end it is done, once, and live comes from its base.
    """
    chosen = random.Random(done.seed)
    with staged(templates, database, MEDIUM, lease_seconds=LEASE_S, **COMPACTING) as stage, stage.place() as place:
        callers = _Direct(place, chosen)
        stage.start("worker-0")
        for _ in range(rounds):
            for _ in range(2):
                callers.accept()
            wait_for(lambda: at_rest(place), REST_S, "forgotten")
            compaction = asked(place)
            for point in compactor_points():
                _count(done, point, stage.start("compactor-0", f"{point}:kill"), TRAINED_S)
            stage.start("compactor-0")
            wait_for(partial(_is_over, place, compaction), TRAINED_S, "a compaction's end")
            stage.kill("compactor-0")
            row = state(place, compaction)
            if row.status != "done":
                done.broken.append(f"P1: a compaction ended as {row.status} ({row.problem})")
            done.broken += never_ahead(place)
        _judge(done, place, callers.history)


class _Direct:
    """Accepts erasures as the API does, in this process, and remembers them."""

    def __init__(self, place: Home, chosen: random.Random) -> None:
        self.history, self._place, self._left = History(), place, place.learnt
        chosen.shuffle(self._left)

    def accept(self) -> tuple[str, Pair]:
        """One interaction that the model has learnt and that was not erased yet."""
        pair = self._left.pop()
        begun = time.monotonic()
        asked: dict[str, Any] = {"interactions": [pair], "users": [], "items": [], "key": f"k{len(self.history)}"}
        erasure_id = self._place.accept(pair)
        got = {"id": erasure_id, "status": "accepted", "due_at": ""}
        self.history.add(Operation(0, "erase", begun, time.monotonic(), "ok", 202, asked, got))
        return erasure_id, pair


class _Client:
    """Asks one API process after the other, over HTTP."""

    def __init__(self, stage: Stage, world: World, chosen: random.Random) -> None:
        self.history, self._stage, self._world = History(), stage, world
        self._left = list(world.pairs)
        chosen.shuffle(self._left)
        headers = {"Authorization": f"Bearer {stage.token}"}
        url = f"http://127.0.0.1:{stage.ports['api-0']}"
        self._http = httpx.Client(base_url=url, headers=headers, timeout=10)

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def wait(self, process: BaseProcess) -> None:
        """Wait until the API answers, or has died."""

        def told() -> bool:
            return not process.is_alive() or self._stage.ask("api-0", "/livez") == 200

        wait_for(told, DEATH_S, "an API that answers")

    def new(self, key: str) -> dict[str, Any]:
        """What to erase next."""
        return {"interactions": [self._left.pop()], "users": [], "items": [], "key": key}

    def erase(self, asked: dict[str, Any]) -> bool:
        """Erase; whether it was answered."""
        ((user, item),) = asked["interactions"]
        path = f"/v1/users/{self._world.user(user)}/interactions/{self._world.item(item)}"
        operation = Operation(0, "erase", time.monotonic(), asked=asked)
        try:
            answer = self._http.delete(path, headers={"Idempotency-Key": asked["key"]})
            operation.status = answer.status_code
            if answer.is_success:
                body = answer.json()
                operation.outcome = "ok"
                operation.got = {name: body[name] for name in ("id", "status", "due_at")}
        except httpx.TransportError:
            pass
        operation.ended = time.monotonic()
        self.history.add(operation)
        return operation.outcome == "ok"

    def is_back(self, pair: Pair) -> bool:
        """Whether an interaction is shown again, or can be written again."""
        user, item = self._world.user(pair[0]), self._world.item(pair[1])
        shown = self._http.get(f"/v1/users/{user}/interactions", params={"limit": 200}).json()["interactions"]
        late = self._http.post("/v1/interactions", json={"interactions": [{"user_id": user, "item_id": item}]})
        return item in {each["item_id"] for each in shown} or late.status_code < 400


def _count(done: KillOutcome, point: str, process: BaseProcess, limit_s: float = DEATH_S) -> None:
    """Count the death of a process at a point, or note that it did not come to it."""
    process.join(limit_s)
    if process.exitcode == -signal.SIGKILL:
        done.kills[point] += 1
        return
    process.kill()
    process.join()
    done.broken.append(f"{point}: the process did not come to it")


def _is_over(place: Home, compaction: str) -> bool:
    return state(place, compaction).finished_at is not None


def _ids(place: Home) -> list[str]:
    return [row.id for row in place.rows(select(tables.erasures.c.id))]


def _judge(done: KillOutcome, place: Home, history: History) -> None:
    try:
        wait_for(lambda: at_rest(place), REST_S, "rest")
    except NotInTime as error:
        done.broken.append(f"P1: {error}")
    verdict: Verdict = judge(history, place)
    done.broken += verdict.broken


Killing = Callable[[KillOutcome, str, int, Templates], None]
KILLINGS: dict[str, Killing] = {
    "worker": kill_workers,
    "api": kill_apis,
    "replay": kill_replays,
    "compactor": kill_compactors,
}


def kill(name: str, database: str, seed: int, rounds: int, templates: Templates) -> KillOutcome:
    """The kills of one kind. What does not come about in time is broken, too, and ends them."""
    begun, done = time.monotonic(), KillOutcome(seed)
    try:
        KILLINGS[name](done, database, rounds, templates)
    except (NotInTime, httpx.HTTPError) as error:
        done.broken.append(f"P1: {type(error).__name__}: {error}")
    done.seconds = round(time.monotonic() - begun, 1)
    return done
