"""How far an erasure would reach, on both databases."""

import asyncio
import random
from typing import Any

import pytest

from service.erasures import service
from service.erasures.modes import Mode
from service.erasures.problems import ModeUnavailable, NoTargets, TooManyTargets
from service.erasures.reach import Reach
from service.erasures.targets import Subjects
from service.platform.database import Database
from tests.factories.domains import KEY_ID, Domains, Pair

PAIRS = (("u1", "a"), ("u1", "b"), ("u2", "a"), ("u3", "c"))


def reach(domains: Domains, *pairs: Pair, mode: Mode = Mode.FORGET, **whole: Any) -> Reach:
    """The preview of an erasure of these targets."""
    subjects = Subjects.of(pairs, whole.get("users", ()), whole.get("items", ()))
    return asyncio.run(service.preview(domains.services, service.NewErasure(subjects, mode, None, KEY_ID)))


@pytest.mark.parametrize(
    ("pairs", "users", "items", "matched", "affected"),
    [
        ([("u1", "a")], [], [], 1, (1, 1)),
        ([("u1", "c")], [], [], 0, (0, 0)),
        ([("nobody", "nothing")], ["no one"], ["none"], 0, (0, 0)),
        ([], ["u1"], [], 2, (1, 2)),
        ([], [], ["a"], 2, (2, 1)),
        ([("u1", "a")], ["u1"], ["a"], 3, (2, 2)),
        ([("u3", "c"), ("u2", "a")], ["nobody"], ["b"], 3, (3, 3)),
    ],
)
def test_each_interaction_is_counted_once(
    database: Database, pairs: list[Pair], users: list[str], items: list[str], matched: int, affected: tuple[int, int]
) -> None:
    """However many targets cover it, and with the users and items of what is covered."""
    domains = Domains(database)
    domains.record(*PAIRS)

    found = reach(domains, *pairs, users=users, items=items)

    assert found == Reach(matched, matched, *affected, recorded=4)


def test_what_is_hidden_already_is_told_apart(database: Database) -> None:
    """A pair, a user and an item that other erasures have hidden are matched, and not hidden by this one."""
    domains = Domains(database)
    domains.record(*PAIRS, ("u4", "d"), ("u5", "e"))
    domains.accept(("u1", "a"))
    domains.accept(users=["u3"])
    domains.accept(items=["d"])

    found = reach(domains, users=["u1", "u2", "u3", "u4", "u5"])

    assert (found.matched, found.hidden) == (6, 3)


def test_a_preview_stores_nothing(database: Database) -> None:
    """No erasure, no suppression, no entry in the log, nothing for the relay."""
    domains = Domains(database)
    domains.record(*PAIRS)
    before = domains.log()

    reach(domains, ("u1", "a"), users=["u2"], items=["c"])

    assert domains.suppressed() == set()
    assert domains.log() == before
    assert domains.relay.woken == 0
    assert asyncio.run(service.page(domains.services, None, None, 10)) == ([], None)


def test_it_tells_what_accepting_would_match(database: Database) -> None:
    """The same count as in the 202, for targets of every kind, and for thousands of them."""
    domains, draw = Domains(database), random.Random(7)
    domains.record(*{(f"u{draw.randrange(60)}", f"i{draw.randrange(60)}") for _ in range(900)})
    for size in (2, 30, 4000):
        pairs = [(f"u{draw.randrange(5000)}", f"i{draw.randrange(60)}") for _ in range(size)]
        users, items = [f"u{draw.randrange(70)}" for _ in range(5)], [f"i{draw.randrange(500)}" for _ in range(size)]

        found = reach(domains, *pairs, users=users, items=items)

        assert found.matched == domains.accept(*pairs, users=users, items=items).matched


def test_an_empty_service_has_no_reach(database: Database) -> None:
    """Nothing recorded, nothing reached."""
    assert reach(Domains(database), users=["u1"]) == Reach(0, 0, 0, 0, 0)


def test_what_could_not_be_accepted_has_no_preview(sqlite: Database) -> None:
    """With the same problem."""
    domains = Domains(sqlite)

    with pytest.raises(NoTargets):
        reach(domains)
    with pytest.raises(TooManyTargets):
        reach(domains, users=[str(number) for number in range(domains.settings.targets_max + 1)])
    with pytest.raises(ModeUnavailable):
        reach(domains, users=["u1"], mode=Mode.DISLIKE)
