"""A compactor that is killed at each of its steps in turn: the next one goes on, and every promise stays true."""

from pathlib import Path
from typing import Any

import pytest

from service.settings import load_settings
from tests.factories.compactions import asked, state
from tests.factories.workers import OPEN_GATE, QUICK, Home, fill, opened, teach, worker_of, working
from tests.faults.worker_processes import WorkerProcesses, died, stopped
from tests.unit.worker.waiting import eventually

BEFORE_LIVE = (
    "compactor.after_mark",
    "compactor.after_snapshot",
    "compactor.after_training",
    "compactor.after_gating",
    "compactor.after_pretraining",
)
BEFORE_ERASED = (
    "compactor.after_point",
    "compactor.after_moving",
    "compactor.after_gather",
    "purge.versions_marked",
    "purge.after_rows",
    "purge.after_files",
    "compactor.after_purging",
    "compactor.after_scanning",
)
COMPACTING: dict[str, Any] = {
    "compaction_check_seconds": 0.05,
    "compaction_min_quality": 1e-9,
    "compaction_share": None,
    "compaction_nice": 0,
}


def settings_of(home: Path, url: str, redis_url: str) -> Any:
    given = {**QUICK, **OPEN_GATE, **COMPACTING, "redis_url": redis_url, "stream": f"test:{home.name}"}
    return load_settings(home=home, database_url=url, **given)


def learnt_by(place: Home, version: int) -> set[tuple[int, int]]:
    """Numbers of the pairs that a base has learnt or held out."""
    keys = place.store.open("versions", version, "embeddings.safetensors")
    base = place.store.open("versions", version, "base.safetensors")
    pairs = [pair for name in ("edges", "validation") for pair in base[name].T]
    return {(int(keys["user_keys"][u]) - 1, int(keys["item_keys"][i]) - 1) for u, i in pairs}


def shown(place: Home, user: int) -> int:
    """How many interactions of a user the live version holds; 0 for one that it does not know."""
    live = place.store.open("versions", place.alias() or 0, "embeddings.safetensors")
    at = [row for row, key in enumerate(live["user_keys"]) if key == user + 1]
    return int(live["user_degrees"][at[0]]) if at else 0


@pytest.mark.P1
@pytest.mark.P4
@pytest.mark.P8
@pytest.mark.P9
def test_killed_at_every_step_it_is_taken_up_and_nobody_comes_back(
    database_url: str, home: Path, redis_url: str
) -> None:
    """What was accepted before is erased; what was accepted meanwhile is forgotten in all that serves; each once."""
    settings = settings_of(home, database_url, redis_url)
    # PostgreSQL at every other point: the steps are the same, their transactions are what differs.
    stride = 2 if database_url.startswith("postgresql") else 1
    with opened(settings) as place, WorkerProcesses(settings, home / "processes.log") as processes:
        fill(place)
        teach(place)
        pair, late = place.learnt[0], place.learnt[60]
        with working(worker_of(place)):
            before = {place.accept(pair), place.accept(users=[3])}
            eventually(lambda: {place.status(each) for each in before} == {"forgotten"})
            compaction = asked(place)
            for point in BEFORE_LIVE[stride - 1 :: stride]:
                assert died(processes.start(f"{point}:kill", program="compactor")), point
                assert state(place, compaction).status == "running"
                assert shown(place, 3) == 0
                if point == "compactor.after_snapshot":
                    meanwhile = place.accept(late)
            for point in BEFORE_ERASED[::stride]:
                assert died(processes.start(f"{point}:kill", program="compactor")), point
                assert {place.status(each) for each in before} == {"forgotten"}, point
                assert shown(place, 3) == 0
            assert died(processes.start("compactor.after_part_erased:kill", program="compactor"))
            assert {place.status(each) for each in before} == {"erased"}
            last = processes.start(program="compactor")
            eventually(lambda: state(place, compaction).status == "done")
            eventually(lambda: place.status(meanwhile) == "forgotten")
            assert stopped(last) == 0

        done = state(place, compaction)
        assert done.base_after is not None
        assert (done.erasures, done.attempt, done.problem) == (2, 1, None)
        for each in before:
            assert place.events(each).count("erasure.erased") == 1
        learnt = learnt_by(place, done.base_after)
        assert pair not in learnt
        assert not {user for user, _ in learnt} & {3}
        live = place.alias() or 0
        assert place.store.manifest("versions", live).facts.parent == done.base_after
        assert late not in place.recorded()
        assert place.erasure(meanwhile).erased_at is None
        for folder in ("checkpoints", "purge"):
            assert list((home / folder).glob("*")) == []
