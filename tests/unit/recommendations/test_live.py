"""The holder of the live version, with loads that the tests control."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from model_store import ChecksumMismatch, ModelStore
from service.platform.database import Database
from service.platform.problem import ModelUnavailable
from service.platform.tables import aliases, audit_entries, erasures, versions
from service.recommendations.live import BACKOFF_FIRST_S, LiveRanker
from tests.factories.domains import Domains, SteppedClock
from tests.factories.worlds import AT


class Loads:
    """Stands for loading: records what was asked, refuses what it is told to, waits where it is told to."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.bad: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def __call__(self, version: int) -> Any:
        self.asked.append(version)
        self.begun.set()
        assert self.gate.wait(10)
        if version in self.bad:
            raise ChecksumMismatch(f"versions/{version:06d}", "fails its checksum")
        return type("Loaded", (), {"version": version})()


class Holder:
    """A holder over a database in which tests move the alias."""

    def __init__(self, database: Database) -> None:
        self.database, self.loads, self.clock = database, Loads(), SteppedClock()
        self.live = LiveRanker(database, ModelStore(Path("/nowhere")), self.clock, load=self.loads)

    def point(self, number: int) -> int:
        """Point `live` at a version, making its row where there is none."""
        row = {"kind": "base", "status": "ready", "base": number, "erasure_seq": 0, "manifest": {}, "created_at": AT}
        with self.database.write() as connection:
            known = {one for (one,) in connection.execute(versions.select().with_only_columns(versions.c.version))}
            if number not in known:
                connection.execute(insert(versions).values(version=number, **row))
            connection.execute(aliases.delete())
            connection.execute(insert(aliases).values(name="live", version=number, moved_at=AT))
        return number

    def forgotten_with(self, number: int) -> None:
        """Accept the erasure of a recorded pair, and have it forgotten with a version."""
        domains = Domains(self.database)
        domains.record(("u1", "a"))
        erasure = domains.accept(("u1", "a"))
        settled = {"status": "forgotten", "version_after": number}
        with self.database.write() as connection:
            connection.execute(update(erasures).where(erasures.c.id == erasure.id).values(settled))

    def told(self) -> list[tuple[str, int]]:
        """Events about versions in the audit log."""
        entry = audit_entries.c
        wanted = select(entry.event, entry.version).where(entry.version.is_not(None)).order_by(entry.seq)
        return self.database.query(lambda connection: [tuple(row) for row in connection.execute(wanted)])


@pytest.fixture
def holder(sqlite: Database) -> Holder:
    return Holder(sqlite)


def run(steps: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(steps(), 20)

    return asyncio.run(bounded())


def test_a_loaded_version_is_not_loaded_again(holder: Holder):
    """Following the version that answers already costs nothing."""
    holder.point(1)

    async def steps() -> list[int]:
        return [(await holder.live.follow(1)).version for _ in range(3)]

    assert run(steps) == [1, 1, 1]
    assert holder.loads.asked == [1]


@pytest.mark.P5
def test_a_moved_alias_is_followed_before_the_answer(holder: Holder):
    """Who read that version 2 is live is answered by version 2."""
    holder.point(1)

    async def steps() -> list[int]:
        first = await holder.live.follow(1)
        second = await holder.live.follow(holder.point(2))
        back = await holder.live.follow(holder.point(1))
        return [first.version, second.version, back.version]

    assert run(steps) == [1, 2, 1]


@pytest.mark.P5
def test_all_who_wait_for_a_version_share_one_load(holder: Holder):
    """A hundred requests in the instant of a swap load the new version once."""
    holder.point(1)

    async def steps() -> set[int]:
        await holder.live.follow(1)
        holder.point(2)
        found = await asyncio.gather(*(holder.live.follow(2) for _ in range(100)))
        return {model.version for model in found}

    assert run(steps) == {2}
    assert holder.loads.asked == [1, 2]


@pytest.mark.P5
def test_an_alias_that_moves_during_a_load_is_followed_too(holder: Holder):
    """Joining a load that began for an older version is not enough."""
    holder.point(1)

    async def steps() -> tuple[int, int]:
        holder.loads.gate.clear()
        early = asyncio.create_task(holder.live.follow(1))
        await asyncio.to_thread(holder.loads.begun.wait, 10)
        late = asyncio.create_task(holder.live.follow(holder.point(2)))
        await asyncio.sleep(0)
        holder.loads.gate.set()
        return (await early).version, (await late).version

    assert run(steps) == (1, 2)


@pytest.mark.P5
def test_a_reading_that_is_behind_does_not_bring_an_old_version_back(holder: Holder):
    """Two requests whose readings crossed: the later truth stands."""
    holder.point(1)

    async def steps() -> int:
        await holder.live.follow(1)
        await holder.live.follow(holder.point(2))
        return (await holder.live.follow(1)).version

    assert run(steps) == 2
    assert holder.loads.asked == [1, 2]


@pytest.mark.P5
def test_a_bad_version_leaves_the_old_one_answering_and_says_so(holder: Holder):
    """Nothing half-loaded ever answers."""
    holder.point(1)
    holder.loads.bad = {2}

    async def steps() -> list[Any]:
        await holder.live.follow(1)
        answered = await holder.live.follow(holder.point(2))
        return [answered.version, holder.live.status()]

    version, status = run(steps)
    assert version == 1
    assert (status.version, status.problem) == (1, "version_damaged")


@pytest.mark.P10
def test_a_bad_version_is_tried_again_after_a_growing_pause(holder: Holder):
    """Requests do not hammer a broken file, and a mended one is found."""
    holder.point(1)
    holder.loads.bad = {2}

    async def steps() -> list[int]:
        await holder.live.follow(1)
        holder.point(2)
        tries = []
        for pause in (0, 0, BACKOFF_FIRST_S, 0, BACKOFF_FIRST_S, BACKOFF_FIRST_S):
            holder.clock.step(pause)
            await holder.live.follow(2)
            tries.append(holder.loads.asked.count(2))
        holder.loads.bad = set()
        holder.clock.step(4 * BACKOFF_FIRST_S)
        tries.append((await holder.live.follow(2)).version)
        return tries

    assert run(steps) == [1, 1, 2, 2, 2, 3, 2]
    assert holder.live.status().problem is None


def test_another_version_is_tried_at_once_after_a_bad_one(holder: Holder):
    """Rolling back from a bad version does not wait for its pause."""
    holder.point(1)
    holder.loads.bad = {1}

    async def steps() -> int:
        with pytest.raises(ModelUnavailable):
            await holder.live.follow(1)
        return (await holder.live.follow(holder.point(2))).version

    assert run(steps) == 2


@pytest.mark.P5
def test_a_process_that_starts_beside_a_damaged_version_answers_from_another(holder: Holder):
    """The newest whole one; the worker is told once, however often it is tried."""
    for version in (1, 2, 3, 4):
        holder.point(version)
    holder.loads.bad = {3, 4}

    async def steps() -> list[int]:
        answered = []
        for _ in range(3):
            answered.append((await holder.live.follow(4)).version)
            holder.clock.step(60)
        return answered

    assert run(steps) == [2, 2, 2]
    assert holder.live.status().problem == "version_damaged"
    assert holder.told() == [("version.damaged", 4)]


@pytest.mark.P4
@pytest.mark.P5
def test_no_version_that_holds_a_forgotten_pair_answers_for_a_damaged_one(holder: Holder):
    """What was forgotten with version 2 is in version 1: better no answer."""
    for version in (1, 2):
        holder.point(version)
    holder.forgotten_with(2)
    holder.loads.bad = {2}

    async def steps() -> None:
        with pytest.raises(ModelUnavailable):
            await holder.live.follow(2)

    run(steps)
    assert holder.loads.asked == [2]


def test_without_any_version_the_caller_is_told_to_come_back(holder: Holder):
    """No model is a state with a name, not a crash."""

    async def steps() -> None:
        await holder.live.start()
        try:
            with pytest.raises(ModelUnavailable, match="expunge train"):
                await holder.live.follow(None)
            assert holder.live.status().problem == "model_unavailable"
        finally:
            await holder.live.stop()

    run(steps)


def test_a_caller_that_goes_away_does_not_stop_the_load(holder: Holder):
    """The next caller finds the version loaded."""
    holder.point(1)

    async def steps() -> list[int]:
        holder.loads.gate.clear()
        leaving = asyncio.create_task(holder.live.follow(1))
        await asyncio.to_thread(holder.loads.begun.wait, 10)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        holder.loads.gate.set()
        return [(await holder.live.follow(1)).version]

    assert run(steps) == [1]
    assert holder.loads.asked == [1]


def test_a_database_without_a_schema_does_not_stop_the_start(tmp_path):
    """The process starts, says what is wrong, and answers once the schema is there."""
    database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    live = LiveRanker(database, ModelStore(tmp_path / "store"))

    async def steps() -> str | None:
        await live.start()
        problem = live.status().problem
        await live.stop()
        return problem

    assert run(steps) == "version_unreadable"
    database.close()


@pytest.mark.P5
def test_a_version_is_found_without_any_request(holder: Holder, monkeypatch: pytest.MonkeyPatch):
    """An idle process lets go of an old version too."""
    monkeypatch.setattr("service.recommendations.live.WATCH_SECONDS", 0.01)
    holder.point(1)

    async def steps() -> None:
        await holder.live.start()
        holder.point(2)
        holder.loads.begun.clear()
        await asyncio.to_thread(holder.loads.begun.wait, 10)
        while holder.live.status().version != 2:
            await asyncio.sleep(0.001)
        await holder.live.stop()

    run(steps)
    assert holder.live.status().version is None
