"""Recording interactions, showing them, and taking the snapshot that is learnt from."""

import asyncio
import threading

import numpy as np
import pytest

from service.interactions import service
from service.interactions.problems import AllSuppressed
from service.platform.cursor import write_cursor
from service.platform.database import Database
from service.platform.problem import InvalidCursor
from tests.factories.domains import Domains

PAIRS = (("u1", "a"), ("u1", "b"), ("u2", "a"), ("u3", "c"))


def test_new_interactions_are_recorded_once(database: Database) -> None:
    """Sent twice in one call or in two, a pair counts once."""
    domains = Domains(database)

    first = domains.record(("u1", "a"), ("u1", "a"), ("u1", "b"))
    second = domains.record(("u1", "b"), ("u1", "c"))

    assert (first.recorded, first.duplicates, first.refused) == (2, 1, ())
    assert (second.recorded, second.duplicates, second.refused) == (1, 1, ())
    assert sorted(domains.shown("u1")) == ["a", "b", "c"]


def test_ten_thousand_at_once_are_recorded(database: Database) -> None:
    """The most that one call takes."""
    domains = Domains(database)

    outcome = domains.record(*((f"u{number % 100}", f"i{number // 100}") for number in range(10_000)))

    assert outcome.recorded == 10_000
    assert len(domains.shown("u7", limit=30)) == 100


@pytest.mark.P4
def test_what_is_suppressed_is_refused_one_by_one(database: Database) -> None:
    """The rest is recorded; the refused ones are told by their place."""
    domains = Domains(database)
    domains.accept(("u1", "a"))
    domains.accept(users=["u2"])
    domains.accept(items=["c"])

    outcome = domains.record(("u1", "a"), ("u1", "b"), ("u2", "z"), ("u9", "c"), ("u9", "d"))

    assert (outcome.recorded, outcome.refused) == (2, (0, 2, 3))
    assert domains.shown("u1") == ["b"]
    assert domains.shown("u9") == ["d"]
    assert domains.shown("u2") == []


@pytest.mark.P4
def test_a_write_of_suppressed_pairs_alone_is_a_conflict_and_stores_nothing(database: Database) -> None:
    """Each is named by its place, none by its id."""
    domains = Domains(database)
    domains.accept(("u1", "a"))
    domains.accept(users=["u2"])

    with pytest.raises(AllSuppressed) as caught:
        domains.record(("u1", "a"), ("u2", "b"))

    assert [error.pointer for error in caught.value.errors] == ["#/interactions/0", "#/interactions/1"]
    assert domains.learnt() == set()


@pytest.mark.P4
def test_a_cancelled_erasure_refuses_no_more(database: Database) -> None:
    """Unless another one covers the pair too."""
    domains = Domains(database)
    first, second = domains.accept(("u1", "a")), domains.accept(("u1", "a"))

    domains.cancel(first.id)
    with pytest.raises(AllSuppressed):
        domains.record(("u1", "a"))
    domains.cancel(second.id)

    assert domains.record(("u1", "a")).recorded == 1


@pytest.mark.P4
def test_writes_and_erasures_of_the_same_pair_happen_one_after_the_other(database: Database) -> None:
    """However they race: either the erasure matched the pair, or the write was refused."""
    domains = Domains(database)
    wrong: list[str] = []

    def race(number: int) -> None:
        pair = (f"u{number}", "a")
        matched: list[int] = []
        eraser = threading.Thread(target=lambda: matched.append(domains.accept(pair).matched))
        eraser.start()
        try:
            recorded = domains.record(pair).recorded
        except AllSuppressed:
            recorded = 0
        eraser.join()
        if matched != [recorded]:
            wrong.append(f"{pair}: recorded {recorded}, matched {matched}")

    for number in range(25):
        race(number)

    assert wrong == []
    assert domains.learnt() == set()


def test_users_that_register_the_same_ids_at_once_all_succeed(database: Database) -> None:
    """In whatever order they name them."""
    domains = Domains(database)
    ids = [f"i{number}" for number in range(40)]
    outcomes: list[int] = []

    def write(user: str, items: list[str]) -> None:
        outcomes.append(domains.record(*((user, item) for item in items)).recorded)

    threads = [
        threading.Thread(target=write, args=(f"u{number}", ids if number % 2 else ids[::-1])) for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes == [40] * 6


@pytest.mark.P3
def test_a_person_is_not_shown_what_is_being_erased(database: Database) -> None:
    """A pair, an item, then all of it, each from the moment of its acceptance."""
    domains = Domains(database)
    domains.record(("u1", "a"), ("u1", "b"), ("u1", "c"), ("u2", "a"))

    domains.accept(("u1", "a"))
    without_pair = domains.shown("u1")
    domains.accept(items=["b"])
    without_item = domains.shown("u1")
    domains.accept(users=["u1"])

    assert (without_pair, without_item) == (["b", "c"], ["c"])
    assert domains.shown("u1") == []
    assert domains.shown("u2") == ["a"]


def test_somebody_unknown_has_nothing(database: Database) -> None:
    """As somebody who was erased."""
    assert Domains(database).shown("nobody") == []


def test_pages_hold_every_interaction_once(database: Database) -> None:
    """Whatever their size, also while more is recorded."""
    domains = Domains(database)
    items = [f"i{number}" for number in range(25)]
    domains.record(*(("u1", item) for item in items))

    assert domains.shown("u1", limit=1) == domains.shown("u1", limit=7) == domains.shown("u1", limit=100)
    assert sorted(domains.shown("u1", limit=7)) == sorted(items)


def test_a_cursor_of_another_list_is_refused(database: Database) -> None:
    """Only what was given out here comes back."""
    domains = Domains(database)
    foreign = write_cursor(domains.identity, "erasures", 1)

    for cursor in (foreign, "x", "", foreign[:-4], "a" * 32):
        with pytest.raises(InvalidCursor):
            asyncio.run(service.of_user(domains.services, "u1", cursor, 10))


def test_the_snapshot_holds_what_is_recorded_in_rows(database: Database) -> None:
    """Keys ascending, edges sorted, every row used."""
    domains = Domains(database)
    domains.record(*PAIRS)

    with database.read() as connection:
        snapshot = service.snapshot(connection)
        user_keys = service.user_keys(connection, domains.identity, ["u1", "u2", "u3", "nobody"])
        item_keys = service.item_keys(connection, domains.identity, ["a", "b", "c"])

    assert np.array_equal(snapshot.user_keys, np.sort(user_keys[:3]))
    assert user_keys[3] == -1
    assert snapshot.edges.dtype == np.int32
    assert snapshot.edges.T.tolist() == sorted(snapshot.edges.T.tolist())
    expected = {(user_keys[u], item_keys[i]) for u, i in ((0, 0), (0, 1), (1, 0), (2, 2))}
    assert domains.learnt() == expected


@pytest.mark.P4
def test_the_snapshot_leaves_out_what_is_suppressed(database: Database) -> None:
    """Pairs, users and items, and with them the rows that nothing is left of; `seq` tells up to which erasure."""
    domains = Domains(database)
    domains.record(*PAIRS, ("u4", "b"))
    domains.accept(("u1", "a"))
    domains.accept(users=["u3"], items=["b"])

    with database.read() as connection:
        snapshot = service.snapshot(connection)
        user_keys = service.user_keys(connection, domains.identity, ["u2"])

    assert snapshot.user_keys.tolist() == user_keys.tolist()
    assert snapshot.edges.tolist() == [[0], [0]]
    assert snapshot.seq == 2


def test_the_snapshot_of_nothing_is_empty(database: Database) -> None:
    """Shapes hold."""
    with database.read() as connection:
        snapshot = service.snapshot(connection)

    assert snapshot.edges.shape == (2, 0)
    assert (len(snapshot.user_keys), len(snapshot.item_keys), snapshot.seq) == (0, 0, 0)
