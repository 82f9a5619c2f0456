"""Versions and aliases in SQL, on both databases: numbering, recording, the fence, what may be purged."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from model_store import Manifest
from service.models import repository
from service.models import service as models
from service.models.problems import VersionFenced, VersionNotReady, VersionTaken, VersionUnknown
from service.platform.database import Database
from service.platform.tables import aliases, audit_entries, versions
from service.settings import load_settings
from tests.factories.worlds import AT, World

SCORES = [[1.0, 2.0]]
LATER = AT + timedelta(hours=1)


@pytest.fixture
def world(database: Database, home) -> World:
    return World(load_settings(home=home), database, [], [])


def version(world: World, number: int, base: int | None = None, seq: int = 0, status: str = "ready") -> int:
    """Put a version on record: a base, or one that was forgotten from `base`."""
    row = {
        "version": number,
        "kind": "base" if base is None else "forgotten",
        "status": status,
        "base": number if base is None else base,
        "parent": base,
        "erasure_seq": seq,
        "manifest": {},
        "created_at": AT,
    }
    with world.database.write() as connection:
        connection.execute(insert(versions).values(**row))
    return number


def move(world: World, number: int, *, fenced: bool = True, name: str = "live") -> tuple[int | None, int]:
    return world.database.transact(lambda c: models.move_alias(c, name, number, AT, fenced=fenced))


def pointers(world: World) -> dict[str, int]:
    with world.database.read() as connection:
        return {row.name: row.version for row in connection.execute(select(aliases))}


def events(world: World) -> list[tuple[str, int | None]]:
    with world.database.read() as connection:
        rows = connection.execute(select(audit_entries).order_by(audit_entries.c.seq))
        return [(row.event, row.version) for row in rows]


def point(world: World, **wanted: int) -> None:
    with world.database.write() as connection:
        for name, number in wanted.items():
            repository.point(connection, name, number, AT)


def read(world: World, unit: Callable[[Connection], Any]) -> Any:
    return world.database.query(unit)


def test_the_next_number_is_above_all_that_were_ever_given(world: World):
    """Numbers of purged versions and of unfinished ones are not used again."""
    assert read(world, lambda c: models.next_number(c, world.store)) == 1
    version(world, 3, status="purged")
    world.publish(5, SCORES)

    assert read(world, lambda c: models.next_number(c, world.store)) == 6


def test_a_recorded_version_is_what_its_manifest_says(world: World):
    """Kind, base, parent and gate come from the manifest; the log tells it."""
    world.register(world.publish(1, SCORES))
    world.register(world.publish(2, SCORES, kind="forgotten", parent=1, gate={"auc": 0.5}), erasure_seq=9)

    base, forgotten = read(world, lambda c: (repository.find(c, 1), repository.find(c, 2)))
    assert (base.kind, base.base, base.parent, base.gate) == ("base", 1, None, None)
    assert (forgotten.kind, forgotten.base, forgotten.parent) == ("forgotten", 1, 1)
    assert (forgotten.gate, forgotten.erasure_seq, forgotten.created_at) == ({"auc": 0.5}, 9, AT)
    assert Manifest.from_dict(forgotten.manifest) == world.store.manifest("versions", 2)
    assert events(world) == [("version.published", 1), ("version.published", 2)]


@pytest.mark.P2
def test_recording_the_same_version_again_changes_nothing(world: World):
    """A replay is a no-op; other content under the number is refused."""
    manifest = world.publish(1, SCORES)
    world.register(manifest)
    world.register(manifest)

    other = Manifest(manifest.collection, 1, manifest.facts, manifest.files, checksum="0" * 64)
    with pytest.raises(VersionTaken):
        world.register(other)
    assert events(world) == [("version.published", 1)]


def test_moving_live_remembers_the_previous_version_and_tells_the_log(world: World):
    """One entry a move; moving it where it is already is none."""
    version(world, 1)
    version(world, 2, base=1)

    assert [move(world, 1), move(world, 2), move(world, 2)] == [(None, 1), (1, 2), (2, 2)]
    assert pointers(world) == {"live": 2, "previous": 1}
    assert events(world) == [("alias.moved", 1), ("alias.moved", 2)]


@pytest.mark.parametrize("status", ["held", "retired", "purged"])
def test_only_a_version_that_is_ready_may_serve(world: World, status: str):
    """The gate's refusal, retirement and purging are final for `live`, fenced or not."""
    version(world, 1, status=status)

    for fenced in (True, False):
        with pytest.raises(VersionNotReady, match=f"Version 1 is {status}"):
            move(world, 1, fenced=fenced)
    with pytest.raises(VersionUnknown):
        move(world, 2)
    assert pointers(world) == {}


def fence(world: World, number: int, *, fenced: bool = True) -> bool:
    """Whether the fence refuses a version; tries it without keeping the outcome."""

    class Undone(Exception):
        pass

    def unit(connection: Connection) -> None:
        models.move_alias(connection, "live", number, AT, fenced=fenced)
        raise Undone

    try:
        world.database.transact(unit)
    except VersionFenced:
        return True
    except Undone:
        return False
    return False


@pytest.fixture
def lineage(world: World) -> World:
    """Base 1 (trained at seq 10); versions 2 and 3 forgot erasures 11 and 12 from it."""
    version(world, 1, seq=10)
    version(world, 2, base=1, seq=11)
    version(world, 3, base=1, seq=12)
    world.erasure(11, status="forgotten", version_after=2)
    world.erasure(12, status="forgotten", version_after=3)
    return world


@pytest.mark.P4
@pytest.mark.parametrize("fenced", [True, False])
def test_a_version_from_before_a_settled_erasure_is_fenced(lineage: World, fenced: bool):
    """Nothing forgotten comes back by a rollback, not even where the fence for waiting ones is down."""
    assert [fence(lineage, number, fenced=fenced) for number in (1, 2, 3)] == [True, True, False]


@pytest.mark.P4
def test_an_erased_one_is_fenced_as_a_forgotten_one(world: World):
    """The state after forgotten does not open the fence."""
    version(world, 1, seq=10)
    version(world, 2, base=1, seq=11)
    world.erasure(11, status="erased", version_after=2)

    assert [fence(world, 1), fence(world, 2)] == [True, False]


@pytest.mark.parametrize("status", ["accepted", "needs_attention"])
def test_what_still_waits_is_fenced_for_operators_and_not_for_settling(world: World, status: str):
    """An operator waits for the next version; a batch settles beside erasures that came later."""
    version(world, 1, seq=10)
    world.erasure(11, status=status, received_at=LATER)

    assert (fence(world, 1), fence(world, 1, fenced=False)) == (True, False)


def test_a_base_trained_without_an_interaction_covers_its_erasure(world: World):
    """What was accepted before the training was kept out of it."""
    version(world, 1, seq=10)
    world.erasure(9, status="accepted")
    world.erasure(10, status="forgotten", version_after=None)

    assert fence(world, 1) is False


@pytest.mark.P4
def test_an_erasure_forgotten_while_a_new_base_was_trained_is_not_covered_by_it(lineage: World):
    """Base 4 was trained from a snapshot at seq 11 and holds erasure 12; version 5 has forgotten it from base 4 too."""
    version(lineage, 4, seq=11)
    version(lineage, 5, base=4, seq=12)

    assert [fence(lineage, number) for number in (3, 4, 5)] == [False, True, False]


def test_an_erasure_that_matched_nothing_fences_nothing(world: World):
    """A request about an unknown pair does not stop operations."""
    version(world, 1)
    world.erasure(11, status="forgotten", version_after=None, matched=0)
    world.erasure(12, status="accepted", matched=0, received_at=LATER)
    world.erasure(13, status="cancelled", received_at=LATER)

    assert fence(world, 1) is False


def test_a_refused_move_leaves_no_trace(lineage: World):
    """Neither pointers nor the log change."""
    move(lineage, 3)
    before = (pointers(lineage), events(lineage))

    with pytest.raises(VersionFenced, match="does not cover 1 of the accepted erasures"):
        move(lineage, 2)

    assert (pointers(lineage), events(lineage)) == before


def test_an_operator_who_goes_back_to_another_base_takes_the_base_along(world: World):
    """The next versions derive from the base that was chosen; within one base a promoted one stays promoted."""
    version(world, 1)
    version(world, 2, base=1)
    version(world, 3)
    move(world, 1)
    point(world, base=3)

    move(world, 2)
    assert pointers(world)["base"] == 3
    move(world, 3)
    move(world, 2)
    assert pointers(world)["base"] == 1
    point(world, base=3)
    move(world, 3, fenced=False)
    move(world, 2, fenced=False)
    assert pointers(world)["base"] == 3


def test_superseded_versions_are_those_that_nothing_needs(world: World):
    """Named ones, the newest of the others, the newest base and all their bases stay."""
    version(world, 1)
    for number in (2, 3, 4, 5):
        version(world, number, base=1)
    version(world, 6, status="purged")
    version(world, 7)
    version(world, 8, base=7)
    version(world, 9, base=7)
    point(world, live=9, previous=3)

    def superseded(keep: int) -> list[int]:
        return read(world, lambda c: models.superseded(c, keep))

    assert superseded(0) == [2, 4, 5, 8]
    assert superseded(1) == [2, 4, 5]
    assert superseded(9) == []
    point(world, previous=8)
    assert superseded(0) == [1, 2, 3, 4, 5]


def test_a_version_that_an_alias_names_is_not_marked_purged(world: World):
    """The mark comes before the bytes go, so it is where the race is decided."""
    version(world, 1)
    version(world, 2, base=1)
    point(world, live=2)

    marked = [world.database.transact(lambda c, n=n: models.mark_purged(c, n)) for n in (1, 2, 3)]

    assert marked == [True, False, False]
    assert read(world, lambda c: repository.find(c, 1)).status == "purged"


def test_live_is_none_before_anything_was_published(world: World):
    """An empty house has no live version."""
    assert read(world, models.live) is None
    version(world, 4)
    move(world, 4)
    assert read(world, models.live) == 4
