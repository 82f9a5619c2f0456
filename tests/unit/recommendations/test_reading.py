"""The one read of a recommendation, on both databases."""

import numpy as np
import pytest
from sqlalchemy import delete, event, insert

from service.platform.database import Database
from service.platform.tables import items, suppressions
from service.recommendations.repository import read_items, read_user, vocabulary
from service.settings import load_settings
from tests.factories.worlds import AT, World

USERS, ITEMS = ["u1", "u 2/é😀", "u3"], ["i1", "i2", "i3", "i4x"]
EVERY = b""


@pytest.fixture
def world(database: Database, home) -> World:
    world = World(load_settings(home=home), database, USERS, ITEMS)
    world.record([("u1", "i1"), ("u1", "i3"), ("u 2/é😀", "i2")])
    return world


def suppress(world: World, user: bytes, item: bytes, seq: int = 1) -> None:
    erasure = world.erasure(seq)
    with world.database.write() as connection:
        row = {"user_digest": user, "item_digest": item, "erasure_id": erasure, "created_at": AT}
        connection.execute(insert(suppressions).values(**row))


def read(world: World, user: str):
    return world.database.query(lambda c: read_user(c, user, world.identity.user(user)))


def test_a_reading_holds_the_history_and_nothing_else_of_a_plain_user(world: World):
    """Surrogate keys of what the user interacted with; no version, nothing suppressed."""
    found = read(world, "u1")

    assert sorted(found.history.tolist()) == [1, 3]
    assert found.history.dtype == np.int64
    assert (found.user_key, found.live, found.hidden, found.withdrawn, found.erased) == (1, None, (), (), False)
    assert read(world, "u 2/é😀").history.tolist() == [2]


def test_a_user_without_history_and_one_that_is_unknown_have_empty_readings(world: World):
    """Neither is an error."""
    assert (read(world, "u3").user_key, len(read(world, "u3").history)) == (3, 0)
    assert (read(world, "nobody").user_key, len(read(world, "nobody").history)) == (None, 0)


@pytest.mark.P3
def test_a_reading_tells_every_kind_of_suppression_apart(world: World):
    """Pairs by item, whole users by a flag, withdrawn items for everybody."""
    digest = world.identity
    suppress(world, digest.user("u1"), digest.item("i3"))
    suppress(world, EVERY, digest.item("i2"), 2)
    suppress(world, digest.user("u3"), EVERY, 3)

    assert (read(world, "u1").hidden, read(world, "u1").erased) == ((digest.item("i3"),), False)
    assert read(world, "u3").erased
    assert {read(world, user).withdrawn for user in USERS} == {(digest.item("i2"),)}
    assert world.database.query(read_items).withdrawn == (digest.item("i2"),)


@pytest.mark.P3
def test_a_reading_knows_what_is_suppressed_of_ids_that_are_gone(world: World):
    """Suppressions outlive the erasure of the id: they are found by digest."""
    gone = world.identity.item("never seen")
    suppress(world, world.identity.user("nobody"), gone)

    assert read(world, "nobody").hidden == (gone,)


def test_a_reading_names_the_live_version(world: World):
    """One snapshot says who may see what and which version answers."""
    world.serve(7, [[1.0] * 4] * 3)

    assert read(world, "u1").live == 7
    assert world.database.query(read_items).live == 7


def test_a_reading_is_one_statement(world: World):
    """One round trip, whatever there is to find."""
    if world.database.is_sqlite:
        pytest.skip("SQLite is asked past the layer that tells statements.")
    seen: list[str] = []

    def note(_connection, _cursor, statement, *_rest) -> None:
        seen.append(statement)

    event.listen(world.database.engine, "before_cursor_execute", note)
    read(world, "u1")
    assert len(seen) == 1


def test_the_vocabulary_of_a_version_is_its_items_and_no_others(world: World):
    """Ids and titles by row; None where the id is no longer kept; items that the version lacks are left out."""
    with world.database.write() as connection:
        connection.execute(delete(items).where(items.c.id == "i4x"))

    found = world.database.query(lambda c: vocabulary(c, np.array([1, 2, 4, 99], np.int64)))

    assert [item and (item.id, item.title) for item in found] == [("i1", "Film i1"), ("i2", "Film i2"), None, None]
    assert found[0] is not None
    assert found[0].digest == world.identity.item("i1")
