"""Extensions, decisions and legal holds, on both databases."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from service.audit import service as audit
from service.erasures import decisions, service
from service.erasures.decision_repository import forget_interactions
from service.erasures.decisions import months_after
from service.erasures.grounds import DecisionOutcome, ExtensionGround, RefusalGround
from service.erasures.problems import (
    DecisionNotPossible,
    ErasureNotFound,
    ErasureOver,
    ExtensionTooLate,
    ExtensionUsed,
    NotCancellable,
)
from service.erasures.repository import Erasure
from service.platform import tables
from service.platform.clock import rfc3339
from service.platform.database import Database
from service.platform.deadlines import deadline_figures
from service.platform.invariants import check_invariants
from service.platform.problem import InvalidRequest
from service.receipts.statement import state
from service.worker.repository import queue
from tests.factories.domains import Domains, SteppedClock

PAIRS = (("u1", "a"), ("u1", "b"), ("u2", "a"))
UNKNOWN = "0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e"
REFUSED, PARTIAL = DecisionOutcome.REFUSED, DecisionOutcome.PARTIAL
GROUND = RefusalGround.LEGAL_CLAIMS


def run(change: Coroutine[Any, Any, Erasure]) -> Erasure:
    return asyncio.run(change)


def extend(domains: Domains, erasure_id: str, until: datetime) -> Erasure:
    ground = ExtensionGround.COMPLEXITY
    return run(decisions.extend(domains.services, erasure_id, until, ground, "words of canary"))


def decide(domains: Domains, erasure_id: str, outcome: DecisionOutcome) -> Erasure:
    return run(decisions.decide(domains.services, erasure_id, outcome, GROUND))


def hold(domains: Domains, erasure_id: str) -> Erasure:
    return run(decisions.set_hold(domains.services, erasure_id))


def lift(domains: Domains, erasure_id: str) -> Erasure:
    return run(decisions.lift_hold(domains.services, erasure_id))


def waiting(database: Database) -> list[str]:
    """What the worker would take."""
    return [each.id for each in database.query(lambda connection: queue.waiting(connection, 10))]


def forget(domains: Domains, erasure_id: str) -> None:
    """Settle an accepted erasure as the worker does."""

    def unit(connection: Any) -> None:
        row = {"erasure": erasure_id, "at": domains.clock.now(), "before": None, "after": None}
        assert queue.mark_forgotten(connection, [{**row, "batch": None, "stages": {}}]) == 1
        forget_interactions(connection, [erasure_id])
        audit.append(connection, "erasure.forgotten", erasure_id=erasure_id, body={})

    domains.database.transact(unit)


def recorded(domains: Domains) -> set[tuple[str, str]]:
    """What stands on record, hidden or not."""
    own, users, items = tables.interactions, tables.users, tables.items
    wanted = (
        own.join(users, users.c.key == own.c.user_key)
        .join(items, items.c.key == own.c.item_key)
        .select()
        .with_only_columns(users.c.id, items.c.id)
    )
    return {(row[0], row[1]) for row in domains.database.query(lambda read: read.execute(wanted).all())}


def events(domains: Domains) -> list[str]:
    return [entry["event"] for entry in domains.log()]


@pytest.mark.parametrize(
    ("instant", "months", "expected"),
    [
        ((2027, 1, 31), 1, (2027, 2, 28)),
        ((2028, 1, 31), 1, (2028, 2, 29)),
        ((2026, 11, 30), 3, (2027, 2, 28)),
        ((2026, 12, 15), 1, (2027, 1, 15)),
        ((2026, 10, 1), 3, (2027, 1, 1)),
    ],
)
def test_months_are_those_of_the_calendar(
    instant: tuple[int, int, int], months: int, expected: tuple[int, int, int]
) -> None:
    """The last day of the month where it has no such day; the time of day stays."""
    assert months_after(datetime(*instant, 9, 30, tzinfo=UTC), months) == datetime(*expected, 9, 30, tzinfo=UTC)


def test_an_extension_moves_the_deadline_once(database: Database) -> None:
    """With an entry that holds the ground, and not the words."""
    domains = Domains(database)
    erasure = domains.accept(("u1", "a"))
    until = months_after(erasure.received_at, 3)

    extended = extend(domains, erasure.id, until)

    assert (extended.due_at, extended.extended_at) == (until, domains.clock.now())
    assert (extended.extension_ground, extended.extension_reason) == ("complexity", "words of canary")
    assert events(domains) == ["erasure.accepted", "erasure.extended"]
    body = {"due_before": rfc3339(erasure.due_at), "ground": "complexity", "until": rfc3339(until)}
    assert domains.log()[-1]["body"] == body
    with pytest.raises(ExtensionUsed):
        extend(domains, erasure.id, until)
    assert "canary" not in str(domains.log())


@pytest.mark.parametrize("days", [-1, 0, 7, 93])
def test_a_deadline_is_moved_forward_and_not_beyond_the_law(database: Database, days: int) -> None:
    """Later than it is, three months from receipt at most; nothing is changed else."""
    domains = Domains(database)
    erasure = domains.accept(("u1", "a"))

    with pytest.raises(InvalidRequest, match="at the latest"):
        extend(domains, erasure.id, erasure.received_at + timedelta(days=days))

    assert domains.erasure(erasure.id) == erasure
    assert len(domains.log()) == 1


def test_an_extension_comes_within_a_month_of_receipt(database: Database) -> None:
    """To its last instant, also when the deadline itself has gone by."""
    domains = Domains(database)
    first, second = domains.accept(("u1", "a")), domains.accept(("u1", "b"))
    end = months_after(first.received_at, 1)

    domains.clock.step((end - domains.clock.now()).total_seconds())
    extend(domains, first.id, end + timedelta(days=1))
    domains.clock.step(1)

    with pytest.raises(ExtensionTooLate):
        extend(domains, second.id, end + timedelta(days=1))


@pytest.mark.P3
@pytest.mark.P4
def test_what_is_refused_stays_hidden_and_on_record(database: Database) -> None:
    """The worker hears of it no more, late writes are refused as before, and no base learns it."""
    domains = Domains(database)
    domains.record(*PAIRS)
    erasure = domains.accept(("u1", "a"), reason="canary")

    refused = decide(domains, erasure.id, REFUSED)

    assert (refused.status, refused.decision, refused.decision_ground) == ("refused", "refused", "17(3)(e)")
    assert (refused.decided_at, refused.reason) == (domains.clock.now(), None)
    assert waiting(database) == []
    assert domains.shown("u1") == ["b"]
    assert recorded(domains) == set(PAIRS)
    assert len(domains.learnt()) == 2
    assert events(domains)[-1] == "erasure.refused"
    assert domains.log()[-1]["body"] == {"ground": "17(3)(e)"}
    assert not any(database.query(check_invariants).values())


def test_a_refusal_is_the_end(database: Database) -> None:
    """It is neither decided again, nor extended, nor cancelled."""
    domains = Domains(database)
    erasure = domains.accept(("u1", "a"))
    decide(domains, erasure.id, REFUSED)

    for change in (
        lambda: decide(domains, erasure.id, REFUSED),
        lambda: extend(domains, erasure.id, erasure.due_at + timedelta(days=1)),
    ):
        with pytest.raises(ErasureOver, match="refused"):
            change()
    with pytest.raises(NotCancellable, match="refused"):
        domains.cancel(erasure.id)


@pytest.mark.P9
def test_what_is_forgotten_is_not_refused_whole(database: Database) -> None:
    """Only what is left of it; and of what is not forgotten there is no rest."""
    domains = Domains(database)
    domains.record(*PAIRS)
    first, second = domains.accept(("u1", "a")), domains.accept(("u1", "b"))
    forget(domains, first.id)

    with pytest.raises(DecisionNotPossible, match="forgotten"):
        decide(domains, first.id, REFUSED)
    with pytest.raises(DecisionNotPossible, match="accepted"):
        decide(domains, second.id, PARTIAL)
    decided = decide(domains, first.id, PARTIAL)

    assert (decided.status, decided.decision) == ("forgotten", "partial")
    assert events(domains)[-1] == "erasure.refused_in_part"


@pytest.mark.parametrize("status", ["erased", "cancelled"])
def test_what_is_over_is_changed_no_more(database: Database, status: str) -> None:
    """In none of the three ways."""
    domains = Domains(database)
    erasure = domains.accept(("u1", "a"))
    change = update(tables.erasures).where(tables.erasures.c.id == erasure.id).values(status=status)
    database.transact(lambda connection: connection.execute(change))

    for attempt in (
        lambda: extend(domains, erasure.id, erasure.due_at + timedelta(days=1)),
        lambda: decide(domains, erasure.id, REFUSED),
        lambda: hold(domains, erasure.id),
    ):
        with pytest.raises(ErasureOver, match=status):
            attempt()
    assert len(domains.log()) == 1


def test_an_unknown_erasure_is_not_found(database: Database) -> None:
    """And nothing is told of it."""
    domains = Domains(database)
    attempts = (
        decisions.extend(domains.services, UNKNOWN, domains.clock.now(), None, "x"),
        decisions.decide(domains.services, UNKNOWN, REFUSED, GROUND),
        decisions.set_hold(domains.services, UNKNOWN),
        decisions.lift_hold(domains.services, UNKNOWN),
    )
    for attempt in attempts:
        with pytest.raises(ErasureNotFound):
            run(attempt)
    assert domains.log() == []


@pytest.mark.P1
@pytest.mark.P3
def test_a_held_erasure_waits_hidden_and_goes_on_when_it_is_lifted(database: Database) -> None:
    """Set aside meanwhile; then at the queue's end under a new seq, and the stream is told."""
    domains = Domains(database)
    domains.record(*PAIRS)
    erasure = domains.accept(("u1", "a"))

    held = hold(domains, erasure.id)

    assert (held.status, held.needs, held.held_since) == ("needs_attention", "legal_hold", domains.clock.now())
    assert waiting(database) == []
    assert domains.shown("u1") == ["b"]
    assert hold(domains, erasure.id) == held
    assert events(domains) == ["erasure.accepted", "erasure.hold_set", "erasure.needs_attention"]
    (waits,) = asyncio.run(service.waits(domains.services, [held])).values()
    assert waits is not None
    assert waits.code == "legal_hold"

    lifted = lift(domains, erasure.id)

    assert (lifted.status, lifted.needs, lifted.held_since) == ("accepted", None, None)
    assert waiting(database) == [erasure.id]
    assert [entry["seq"] for entry in domains.log() if entry["event"] == "erasure.accepted_again"] == [lifted.seq]
    assert lift(domains, erasure.id) == lifted
    assert len(domains.log()) == 5
    assert not any(database.query(check_invariants).values())


@pytest.mark.P4
def test_what_is_held_is_taken_off_the_record_by_no_other_erasure(database: Database) -> None:
    """Until the hold is lifted; then at once, as the others have told."""
    domains = Domains(database)
    domains.record(*PAIRS)
    held = domains.accept(items=("a",))
    hold(domains, held.id)
    other = domains.accept(users=("u1",))

    forget(domains, other.id)
    assert recorded(domains) == {("u1", "a"), ("u2", "a")}
    assert domains.shown("u1") == []
    decide(domains, held.id, REFUSED)
    assert recorded(domains) == {("u1", "a"), ("u2", "a")}

    lifted = lift(domains, held.id)

    assert lifted.status == "refused"
    assert recorded(domains) == {("u2", "a")}
    assert domains.shown("u2") == []


def test_a_forgotten_erasure_can_be_held(database: Database) -> None:
    """It stays forgotten, and goes no further."""
    domains = Domains(database)
    erasure = domains.accept(("u1", "a"))
    forget(domains, erasure.id)

    assert hold(domains, erasure.id).status == "forgotten"
    assert events(domains)[-1] == "erasure.hold_set"
    assert lift(domains, erasure.id).status == "forgotten"
    assert events(domains)[-1] == "erasure.hold_lifted"


def test_only_a_deadline_that_runs_is_overdue_or_at_risk(database: Database) -> None:
    """None that is held, refused, in part kept, or over; an extension gives time back."""
    domains = Domains(database)
    ids = [domains.accept((f"u{number}", "a")).id for number in range(6)]
    forget(domains, ids[3])
    forget(domains, ids[5])
    domains.clock.step(timedelta(days=4).total_seconds())
    late = domains.accept(("late", "a"))
    figures = database.query(lambda read: deadline_figures(read, domains.clock.now()))
    assert (figures.overdue, figures.at_risk) == (0, (6, 0))
    assert figures.used == pytest.approx(4 / 7)

    domains.clock.step(timedelta(days=4).total_seconds())
    decide(domains, ids[0], REFUSED)
    hold(domains, ids[1])
    domains.cancel(ids[2])
    decide(domains, ids[3], PARTIAL)
    extend(domains, ids[4], domains.clock.now() + timedelta(days=2))
    figures = database.query(lambda read: deadline_figures(read, domains.clock.now()))

    # Left: the extended one with 8 of its 10 days used, ids[5] overdue, the late one with 4 of 7.
    assert (figures.overdue, figures.at_risk, figures.held) == (1, (3, 2), 1)
    assert figures.used == pytest.approx(8 / 7)

    found, _ = asyncio.run(service.page(domains.services, None, None, 10, due_before=domains.clock.now()))
    assert [each.id for each in found] == [ids[5]]
    found, _ = asyncio.run(service.page(domains.services, None, None, 10, due_before=datetime(2027, 6, 1, tzinfo=UTC)))
    assert [each.id for each in found] == [late.id, ids[5], ids[4]]
    found, _ = asyncio.run(service.page(domains.services, None, None, 10, held=True))
    assert [each.id for each in found] == [ids[1]]


def test_no_erasures_are_no_figures(database: Database) -> None:
    """Zeros, not nulls."""
    figures = database.query(lambda read: deadline_figures(read, SteppedClock().now()))

    assert tuple(figures) == (0, (0, 0), 0.0, 0)


def test_a_subject_finds_the_erasures_that_cover_it(database: Database) -> None:
    """A user or an item by name, a pair by whatever covers it; of one key alone, and page by page."""
    domains = Domains(database)
    pair = domains.accept(("u1", "a")).id
    user = domains.accept(users=("u1",), key_id="other").id
    item = domains.accept(items=("a",)).id
    domains.accept(("u2", "b"))
    gone = domains.accept(("u1", "a")).id
    domains.cancel(gone)

    def found(user_id: str | None, item_id: str | None, owner: str | None = None) -> list[str]:
        ids, cursor = list[str](), None
        while True:
            page, cursor = asyncio.run(service.search(domains.services, user_id, item_id, cursor, 1, owner))
            ids += [each.id for each in page]
            if cursor is None:
                return ids

    assert found("u1", None) == [user, pair]
    assert found(None, "a") == [item, pair]
    assert found("u1", "a") == [item, user, pair]
    assert found("u1", "b") == [user]
    assert found("u3", "a") == [item]
    assert found("u3", None) == []
    assert found("u1", "a", "other") == [user]


def test_a_receipt_tells_what_was_decided(database: Database) -> None:
    """By codes; final once nothing more is to come."""
    domains = Domains(database)
    erasure = domains.accept(("u1", "a"))
    extend(domains, erasure.id, erasure.due_at + timedelta(days=1))
    held = state(hold(domains, erasure.id), "log", domains.log())
    refused = state(decide(domains, erasure.id, REFUSED), "log", domains.log())

    assert (held["legal_hold"], held["final"], held["decision"]) == (True, False, None)
    assert "legal hold" in held["notice"]
    assert refused["extension"]["until"] == refused["due_at"] == rfc3339(erasure.due_at + timedelta(days=1))
    assert (refused["decision"]["outcome"], refused["decision"]["ground"]) == ("refused", "17(3)(e)")
    assert (refused["status"], refused["final"]) == ("refused", True)
    assert "canary" not in str(refused)
