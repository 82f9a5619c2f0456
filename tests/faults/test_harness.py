"""A short part of `make faults` on both databases, and that the harness sees what it is there to see."""

import ast
import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, update

from service.platform import tables
from tests.conftest import require
from tests.factories.workers import Home, worker_of, working
from tests.faults.harness import page
from tests.faults.harness.history import History, Operation
from tests.faults.harness.judging import at_rest, judge, never_ahead
from tests.faults.harness.kills import API_POINTS, KILLINGS, LOADING, REPLAY_POINTS, compactor_points, worker_points
from tests.faults.harness.points import kill_points
from tests.faults.harness.rows import ROOT, ROWS
from tests.faults.harness.trial import Script, perform
from tests.faults.harness.world import Templates
from tests.postgres import PostgresServer, postgres_programs
from tests.unit.worker.waiting import eventually

SHORT = Script(
    [("die_at_a_point", "pause_worker", "kill_api"), ("redis_emptied", "redis_cut", "duplicates", "database_cut")],
    seconds=4,
    rate=40,
    pause_s=1.0,
)
SEED = 20


@pytest.fixture(scope="module")
def templates(request: pytest.FixtureRequest) -> Iterator[Templates]:
    """Homes to copy, and the run's own PostgreSQL."""
    require(postgres_programs(), "PostgreSQL (initdb, pg_ctl)")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with tempfile.TemporaryDirectory() as folder:
        yield Templates(Path(folder), server)


@pytest.mark.P1
@pytest.mark.P2
@pytest.mark.P3
@pytest.mark.P4
@pytest.mark.P5
@pytest.mark.P7
@pytest.mark.P9
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_trouble_of_several_kinds_breaks_no_promise(database: str, templates: Templates, tmp_path: Path) -> None:
    """The same seed makes the same choices again: `python -m tests.faults.harness --seed N`."""
    outcome = perform(SHORT, database, SEED, templates, keep=tmp_path)

    assert outcome.broken == [], f"seed {SEED}; its history is in {tmp_path}"
    assert outcome.erasures > 0
    assert outcome.answered > 0
    assert sum(outcome.happened.values()) > 0


def test_every_kill_point_of_the_code_is_killed_at() -> None:
    """A new fault point without a place in the harness fails here."""
    replay = {point for points in REPLAY_POINTS for point in points}
    assert {*worker_points(), *API_POINTS, LOADING, *replay, *compactor_points()} == set(kill_points())
    assert set(KILLINGS) == {"worker", "api", "replay", "compactor"}


def test_every_row_is_there_and_stands_for_something() -> None:
    """A1 to A13, B1 to B9, C1 to C7, D1 to D6, E1 to E8, F1 to F10; each point that a row names is one of the code."""
    counts = {"A": 13, "B": 9, "C": 7, "D": 6, "E": 8, "F": 10}
    assert list(ROWS) == [f"{part}{number}" for part, count in counts.items() for number in range(1, count + 1)]
    for row in ROWS.values():
        assert bool(row.impossible) != bool(row.kills or row.script or row.tests)
        assert set(row.kills) <= set(kill_points())


def test_every_test_that_a_row_names_is_there() -> None:
    """A test that was renamed would be left out without a word."""
    for row_id, row in ROWS.items():
        for node in row.nodes:
            file, _, name = node.partition("::")
            names = [each.name for each in ast.walk(ast.parse((ROOT / file).read_text())) if hasattr(each, "name")]
            assert any(each.startswith(name) for each in names), f"{row_id}: {node}"


def test_the_page_says_what_was_measured() -> None:
    """Whatever there is, also nothing yet."""
    made = page.document()

    assert {row["id"] for row in made["rows"]} == set(ROWS)
    assert set(made["kill_points"]) == set(kill_points())
    assert all(row["status"] in ("automated", "impossible") and row["reason"] for row in made["rows"])
    assert "## Kill points" in page.text_of(made)


def test_the_committed_page_is_what_the_cells_say() -> None:
    """Written by `make faults`, and by nobody else."""
    folder = ROOT / "docs" / "results"
    if not (folder / "faults.json").exists():
        pytest.skip("`make faults` was not run yet.")
    committed = json.loads((folder / "faults.json").read_text())

    assert page.document() | {"commit": committed["commit"]} == committed
    assert (folder / "faults.md").read_text() == page.text_of(committed)


# -- the judge sees what is broken


def erased(home: Home) -> tuple[History, str, tuple[int, int]]:
    """A history of one erasure, forgotten in truth, and of a read before it."""
    pair = home.learnt[0]
    history = History()
    history.add(Operation(0, "history", 1.0, 2.0, "ok", 200, {"user": pair[0]}, {"items": [pair[1]]}))
    erasure_id = home.accept(pair)
    asked = {"interactions": [pair], "users": [], "items": [], "key": "k"}
    got = {"id": erasure_id, "status": "accepted", "due_at": "d"}
    history.add(Operation(0, "erase", 3.0, 4.0, "ok", 202, asked, got))
    with working(worker_of(home)):
        eventually(lambda: at_rest(home) and home.status(erasure_id) == "forgotten")
    return history, erasure_id, pair


Lie = Callable[[Home, History, str, tuple[int, int]], None]


def stale(home: Home, history: History, _: str, pair: tuple[int, int]) -> None:
    history.add(Operation(0, "history", 5.0, 6.0, "ok", 200, {"user": pair[0]}, {"items": [pair[1]]}))


def stale_list(home: Home, history: History, _: str, pair: tuple[int, int]) -> None:
    got = {"items": [[pair[1]]], "version": 1}
    history.add(Operation(0, "recommend", 5.0, 6.0, "ok", 200, {"users": [pair[0]]}, got))


def come_back(home: Home, history: History, _: str, pair: tuple[int, int]) -> None:
    history.add(Operation(0, "record", 5.0, 6.0, "ok", 200, {"pairs": [pair]}, {"taken": [0]}))


def lost(home: Home, history: History, _: str, pair: tuple[int, int]) -> None:
    asked = {"interactions": [pair], "users": [], "items": [], "key": "other"}
    got = {"id": "gone", "status": "accepted", "due_at": "d"}
    history.add(Operation(0, "erase", 5.0, 6.0, "ok", 202, asked, got))


def twice(home: Home, history: History, erasure_id: str, pair: tuple[int, int]) -> None:
    (first,) = history.named("erase")
    again = copy.deepcopy(first)
    again.got["id"] = home.accept(pair)
    history.add(again)
    with working(worker_of(home)):
        eventually(lambda: at_rest(home))


def never_published(home: Home, history: History, _: str, pair: tuple[int, int]) -> None:
    history.add(Operation(0, "recommend", 5.0, 6.0, "ok", 200, {"users": [pair[0]]}, {"items": [[]], "version": 99}))


def defect(home: Home, history: History, _: str, pair: tuple[int, int]) -> None:
    history.add(Operation(0, "page", 5.0, 6.0, "info", 500, {}, {"code": "internal_error"}))


def back(home: Home, history: History, erasure_id: str, pair: tuple[int, int]) -> None:
    for at, status in ((5.0, "forgotten"), (7.0, "accepted")):
        got = {"status": status, "due_at": "d"}
        history.add(Operation(0, "state", at, at + 1, "ok", 200, {"id": erasure_id}, got))


def moved(home: Home, history: History, erasure_id: str, pair: tuple[int, int]) -> None:
    got = {"status": "forgotten", "due_at": "another"}
    history.add(Operation(0, "state", 5.0, 6.0, "ok", 200, {"id": erasure_id}, got))


def forked(home: Home, history: History, erasure_id: str, pair: tuple[int, int]) -> None:
    history.add(Operation(0, "checkpoint", 5.0, 6.0, "ok", 200, {}, {"size": 1, "root": "AAAA"}))


def receipts_differ(home: Home, history: History, erasure_id: str, pair: tuple[int, int]) -> None:
    for whole in ("a", "b"):
        history.add(
            Operation(0, "receipt", 5.0, 6.0, "ok", 200, {"id": erasure_id}, {"statement": "s", "whole": whole})
        )


def log_cut(home: Home, history: History, erasure_id: str, pair: tuple[int, int]) -> None:
    home.database.transact(
        lambda write: write.execute(delete(tables.audit_entries).where(tables.audit_entries.c.seq == 1))
    )


def still_recorded(home: Home, history: History, erasure_id: str, pair: tuple[int, int]) -> None:
    row = {"user_key": pair[0] + 1, "item_key": pair[1] + 1, "recorded_at": home.erasure(erasure_id).received_at}
    home.database.transact(lambda write: write.execute(insert(tables.interactions), [row]))


def too_old(home: Home, history: History, erasure_id: str, pair: tuple[int, int]) -> None:
    at_base = update(tables.aliases).where(tables.aliases.c.name == "live").values(version=1)
    home.database.transact(lambda write: write.execute(at_base))


@pytest.mark.parametrize(
    ("lie", "promise"),
    [
        (stale, "P3"),
        (stale_list, "P3"),
        (come_back, "P4"),
        (lost, "P1"),
        (twice, "P2"),
        (never_published, "P5"),
        (defect, "P5"),
        (back, "P9"),
        (moved, "P9"),
        (forked, "P7"),
        (receipts_differ, "P7"),
        (log_cut, "P7"),
        (still_recorded, "P4"),
        (too_old, "P6"),
    ],
)
def test_the_judge_sees_each_broken_promise(lie: Lie, promise: str, place: Home) -> None:
    """And none where none was broken."""
    history, erasure_id, pair = erased(place)
    assert judge(history, place).broken == []

    lie(place, history, erasure_id, pair)

    assert any(text.startswith(promise) for text in judge(history, place).broken)


def test_what_is_ahead_of_the_truth_is_seen_at_any_instant(place: Home) -> None:
    """Called forgotten, and held by the live version."""
    erased(place)
    assert never_ahead(place) == []

    too_old(place, History(), "", (0, 0))

    assert any(text.startswith("P9") for text in never_ahead(place))
    assert place.rows(select(tables.aliases.c.version).where(tables.aliases.c.name == "live"))[0].version == 1
