"""Accepting, reading and cancelling erasures, on both databases."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from service.erasures import service
from service.erasures.modes import Mode
from service.erasures.problems import (
    BacklogFull,
    ErasureNotFound,
    IdempotencyKeyReused,
    ModeUnavailable,
    NoTargets,
    NotCancellable,
    TooManyTargets,
)
from service.erasures.targets import EVERY
from service.platform import faults, tables
from service.platform.database import Database
from service.platform.faults import Fault, FaultInjected
from service.settings import load_settings
from tests.factories.domains import Domains

PAIRS = (("u1", "a"), ("u1", "b"), ("u2", "a"), ("u3", "c"))
WRITTEN = ("erasures", "erasure_targets", "suppressions", "outbox", "idempotency", "audit_entries")


def counts(database: Database) -> dict[str, int]:
    """The number of rows in each table that an acceptance writes."""
    found = {}
    for name in WRITTEN:
        query = select(func.count()).select_from(tables.metadata.tables[name])
        found[name] = database.query(lambda connection, query=query: connection.scalar(query))  # type: ignore[misc]
    return found


def set_status(database: Database, erasure_id: str, status: str) -> None:
    """Move an erasure on, as the worker does."""
    erasures = tables.erasures
    change = erasures.update().where(erasures.c.id == erasure_id).values(status=status)
    database.transact(lambda connection: connection.execute(change))


def test_one_transaction_stores_everything(database: Database) -> None:
    """Request, target, suppression, outbox row, key and log entry."""
    domains = Domains(database)
    domains.record(*PAIRS)

    erasure = domains.accept(("u1", "a"), idempotency_key="k", reason="because")

    assert set(counts(database).values()) == {1}
    assert (erasure.status, erasure.requested, erasure.matched, erasure.seq) == ("accepted", 1, 1, 1)
    assert domains.erasure(erasure.id) == erasure
    assert domains.relay.woken == 1


def test_the_deadline_is_seven_days_on(database: Database) -> None:
    """Or what the settings say."""
    domains = Domains(database)

    erasure = domains.accept(("u1", "a"))

    assert erasure.received_at == domains.clock.instant
    assert (erasure.due_at - erasure.received_at).days == 7


@pytest.mark.P3
@pytest.mark.parametrize(
    ("named", "hidden"),
    [
        ({"pairs": [("u1", "a")]}, ("u1", "a")),
        ({"users": ["u1"]}, ("u1", None)),
        ({"items": ["a"]}, (None, "a")),
    ],
)
def test_targets_are_suppressed_by_digest(
    database: Database, named: dict[str, Any], hidden: tuple[str | None, str | None]
) -> None:
    """Known or not: the suppression needs no row of the vocabulary."""
    domains = Domains(database)

    domains.accept(*named.get("pairs", ()), users=named.get("users", ()), items=named.get("items", ()))

    user, item = hidden
    identity = domains.identity
    expected = (identity.user(user) if user else EVERY, identity.item(item) if item else EVERY)
    assert domains.suppressed() == {expected}


@pytest.mark.parametrize(
    ("pairs", "users", "items", "requested", "matched"),
    [
        ([("u1", "a")], [], [], 1, 1),
        ([], ["u1"], [], 1, 2),
        ([], [], ["a"], 1, 2),
        ([("u1", "c")], [], [], 1, 0),
        ([("nobody", "nothing")], [], [], 1, 0),
        ([("u1", "a"), ("u1", "a")], ["u1"], ["a", "a"], 3, 3),
        ([("u1", "a"), ("u2", "a"), ("u9", "a")], [], [], 3, 2),
        ([("u3", "c")], ["u1", "u2", "u3"], ["a", "b", "c"], 7, 4),
    ],
)
def test_requested_counts_targets_and_matched_recorded_interactions(
    database: Database,
    pairs: list[tuple[str, str]],
    users: list[str],
    items: list[str],
    requested: int,
    matched: int,
) -> None:
    """Each interaction once, however many targets cover it."""
    domains = Domains(database)
    domains.record(*PAIRS)

    erasure = domains.accept(*pairs, users=users, items=items)

    assert (erasure.requested, erasure.matched) == (requested, matched)
    assert domains.erasure(erasure.id).matched == matched
    assert domains.log()[-1]["body"]["matched"] == matched


def test_targets_hold_keys_and_their_own_matches(database: Database) -> None:
    """As the worker needs them: null where an id was not known."""
    domains = Domains(database)
    domains.record(*PAIRS)

    domains.accept(("u1", "a"), ("u9", "a"), users=["u1"], items=["z"])

    targets = tables.erasure_targets.c
    query = select(targets.kind, targets.user_key, targets.item_key, targets.matched).order_by(targets.ordinal)
    rows = database.query(lambda connection: connection.execute(query).all())
    known = [(kind, user is not None, item is not None, matched) for kind, user, item, matched in rows]
    assert known == [
        ("interaction", True, True, 1),
        ("interaction", False, True, 0),
        ("user", True, False, 2),
        ("item", False, False, 0),
    ]


def test_ten_thousand_targets_are_one_erasure(database: Database) -> None:
    """Resolved and counted in sets, not one by one."""
    domains = Domains(database, load_settings(home=Path("/nonexistent"), approval_share=1))
    pairs = [(f"u{number % 100}", f"i{number // 100}") for number in range(10_000)]
    domains.record(*pairs[:5_000])

    erasure = domains.accept(*pairs)

    assert (erasure.requested, erasure.matched) == (10_000, 5_000)
    assert domains.learnt() == set()


def test_an_accepted_pair_can_be_asked_for_again(database: Database) -> None:
    """It is an erasure of its own; what is forgotten matches nothing any more."""
    domains = Domains(database)
    domains.record(("u1", "a"))

    first, second = domains.accept(("u1", "a")), domains.accept(("u1", "a"))
    database.transact(lambda connection: connection.execute(tables.interactions.delete()))
    third = domains.accept(("u1", "a"))

    assert (first.matched, second.matched, third.matched) == (1, 1, 0)
    assert len({first.id, second.id, third.id}) == 3


@pytest.mark.P2
def test_the_same_key_and_request_give_the_same_erasure(database: Database) -> None:
    """Salt and all, whatever became of it meanwhile; nothing is stored twice."""
    domains = Domains(database)
    first = domains.accept(("u1", "a"), ("u1", "b"), idempotency_key="k")
    set_status(database, first.id, "forgotten")
    before = counts(database)

    again = domains.accept(("u1", "b"), ("u1", "a"), ("u1", "b"), idempotency_key="k")

    assert (again.id, again.salt, again.commitment) == (first.id, first.salt, first.commitment)
    assert counts(database) == before
    assert [entry["seq"] for entry in domains.log()] == [1]
    assert domains.accept(("u9", "z")).seq == 2


@pytest.mark.parametrize(
    "other", [{"pairs": [("u1", "b")]}, {"users": ["u1"]}, {"reason": "another"}, {"pairs": [("u1", "a"), ("u1", "b")]}]
)
def test_the_same_key_with_another_request_is_refused(database: Database, other: dict[str, Any]) -> None:
    """Nothing of it is stored."""
    domains = Domains(database)
    domains.accept(("u1", "a"), idempotency_key="k")
    before = counts(database)

    with pytest.raises(IdempotencyKeyReused):
        domains.accept(
            *other.get("pairs", [("u1", "a")] if "reason" in other else []),
            users=other.get("users", ()),
            reason=other.get("reason"),
            idempotency_key="k",
        )

    assert counts(database) == before


def test_callers_have_their_own_idempotency_keys(database: Database) -> None:
    """Another API key may use the same word for another erasure."""
    domains = Domains(database)

    one = domains.accept(("u1", "a"), idempotency_key="k", key_id="one")
    other = domains.accept(("u2", "b"), idempotency_key="k", key_id="other")

    assert one.id != other.id


@pytest.mark.P2
def test_retries_at_once_make_one_erasure(database: Database) -> None:
    """Eight threads with one key; all are told the same."""
    domains = Domains(database)
    ids: list[str] = []

    def ask() -> None:
        ids.append(domains.accept(("u1", "a"), idempotency_key="k").id)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ids) == 8
    assert len(set(ids)) == 1
    assert counts(database)["erasures"] == 1


@pytest.mark.P1
def test_what_fails_before_the_commit_stores_nothing_and_may_be_tried_again(database: Database) -> None:
    """All of it or none: the retry makes the one erasure."""
    domains = Domains(database)
    faults.arm(Fault("api.before_commit", "raise"))

    try:
        with pytest.raises(FaultInjected):
            domains.accept(("u1", "a"), idempotency_key="k")
    finally:
        faults.arm(None)

    assert set(counts(database).values()) == {0}
    assert domains.relay.woken == 0
    assert domains.accept(("u1", "a"), idempotency_key="k").seq == 1


@pytest.mark.P1
def test_what_fails_after_the_commit_is_stored_and_a_retry_finds_it(database: Database) -> None:
    """The caller saw an error; the erasure exists once."""
    domains = Domains(database)
    faults.arm(Fault("api.after_commit", "raise"))

    try:
        with pytest.raises(FaultInjected):
            domains.accept(("u1", "a"), idempotency_key="k")
    finally:
        faults.arm(None)

    assert counts(database)["erasures"] == 1
    again = domains.accept(("u1", "a"), idempotency_key="k")
    assert again.seq == 1
    assert counts(database)["erasures"] == 1


def test_an_erasure_of_nothing_is_refused(database: Database) -> None:
    """There is nothing to answer for."""
    with pytest.raises(NoTargets):
        Domains(database).accept()


@pytest.mark.P10
def test_targets_are_bounded(database: Database) -> None:
    """Distinct ones count."""
    settings = load_settings(targets_max=2)
    domains = Domains(database, settings)

    domains.accept(("u1", "a"), ("u1", "a"), ("u1", "b"))
    with pytest.raises(TooManyTargets, match="names 3; one erasure takes 2"):
        domains.accept(("u1", "a"), ("u1", "b"), ("u1", "c"))

    assert counts(database)["erasures"] == 1


@pytest.mark.P10
def test_the_backlog_is_bounded(database: Database) -> None:
    """What is done or cancelled makes room; what is refused stores nothing and leaves no gap in the log."""
    domains = Domains(database, load_settings(backlog_max=3))
    accepted = [domains.accept((f"u{number}", "a")) for number in range(3)]

    with pytest.raises(BacklogFull) as caught:
        domains.accept(("u4", "a"))
    set_status(database, accepted[1].id, "forgotten")
    fourth = domains.accept(("u4", "a"))
    domains.cancel(accepted[0].id)
    fifth = domains.accept(("u5", "a"))

    assert caught.value.headers["Retry-After"] == "5"
    assert (fourth.seq, fifth.seq) == (4, 6)


def test_an_old_erasure_that_is_stuck_does_not_fill_the_backlog(database: Database) -> None:
    """The bound counts what waits, not how long the log has grown since."""
    domains = Domains(database, load_settings(backlog_max=3))
    domains.accept(("stuck", "a"))

    for number in range(6):
        set_status(database, domains.accept((f"u{number}", "a")).id, "forgotten")

    assert counts(database)["erasures"] == 7


def test_dislike_is_taken_where_the_live_model_offers_it(database: Database) -> None:
    """Not before: an erasure that cannot be worked on would wait for ever."""
    domains = Domains(database)

    with pytest.raises(ModeUnavailable):
        domains.accept(("u1", "a"), mode=Mode.DISLIKE)
    make_live(database, {"forget": 1, "dislike": 2})

    assert domains.accept(("u1", "a"), mode=Mode.DISLIKE).mode == "dislike"


def test_a_cancelled_erasure_lifts_only_its_own_suppressions(database: Database) -> None:
    """The outbox forgets it, the log tells it."""
    domains = Domains(database)
    domains.record(*PAIRS)
    first, second = domains.accept(("u1", "a"), ("u1", "b")), domains.accept(("u1", "b"))

    cancelled = domains.cancel(first.id)

    assert cancelled.status == "cancelled"
    assert cancelled.cancelled_at == domains.clock.instant
    assert domains.shown("u1") == ["a"]
    assert counts(database)["outbox"] == 1
    assert [entry["event"] for entry in domains.log()] == ["erasure.accepted", "erasure.accepted", "erasure.cancelled"]
    assert domains.log()[-1]["erasure_id"] == first.id
    assert domains.erasure(second.id).status == "accepted"


@pytest.mark.parametrize("status", ["forgotten", "erased", "cancelled", "needs_attention"])
def test_only_an_accepted_erasure_can_be_cancelled(database: Database, status: str) -> None:
    """Whatever else it is, it stays that, and stays suppressed."""
    domains = Domains(database)
    erasure = domains.accept(("u1", "a"))
    set_status(database, erasure.id, status)
    before = counts(database)

    with pytest.raises(NotCancellable, match=status):
        domains.cancel(erasure.id)

    assert counts(database) == before
    assert domains.erasure(erasure.id).status == status


def test_an_unknown_erasure_is_not_found(database: Database) -> None:
    """To read or to cancel."""
    domains = Domains(database)

    with pytest.raises(ErasureNotFound):
        domains.erasure("0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e")
    with pytest.raises(ErasureNotFound):
        domains.cancel("0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e")
    assert domains.log() == []


def test_the_list_is_newest_first_and_pages_hold_each_once(database: Database) -> None:
    """Also while erasures come in, and for one status alone."""
    domains = Domains(database)
    accepted = [domains.accept((f"u{number}", "a")).id for number in range(7)]
    domains.cancel(accepted[3])

    first, cursor = asyncio.run(service.page(domains.services, None, None, 4))
    domains.accept(("late", "a"))
    second, end = asyncio.run(service.page(domains.services, None, cursor, 4))
    cancelled, _ = asyncio.run(service.page(domains.services, "cancelled", None, 4))

    assert [erasure.id for erasure in first + second] == accepted[::-1]
    assert end is None
    assert [erasure.id for erasure in cancelled] == [accepted[3]]


@pytest.mark.P9
def test_waiting_ends_with_the_state_that_was_reached(database: Database) -> None:
    """As soon as somebody else has moved it."""
    domains = Domains(database)
    erasure = domains.accept(("u1", "a"))

    async def wait_and_move() -> Any:
        waiting = asyncio.create_task(service.wait(domains.services, erasure.id, 20))
        await asyncio.to_thread(set_status, database, erasure.id, "forgotten")
        return await waiting

    assert asyncio.run(wait_and_move()).status == "forgotten"


def test_waiting_in_vain_ends_with_the_time(database: Database) -> None:
    """And says so by None."""
    domains = Domains(database)
    erasure = domains.accept(("u1", "a"))

    assert asyncio.run(service.wait(domains.services, erasure.id, 0)) is None


def make_live(database: Database, encoders: dict[str, int]) -> None:
    """A live base with these encoders."""
    at = Domains(database).clock.instant
    row = {
        "version": 1,
        "kind": "base",
        "status": "ready",
        "base": 1,
        "erasure_seq": 0,
        "manifest": {"encoders": encoders},
        "created_at": at,
    }

    def unit(connection: Any) -> None:
        connection.execute(insert(tables.versions).values(row))
        connection.execute(insert(tables.aliases).values(name="live", version=1, moved_at=at))

    database.transact(unit)
