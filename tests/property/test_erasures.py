"""Any sequence of writes, erasures, cancellations and settlements, against a reference of plain sets."""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import Connection, update

from service.erasures.decision_repository import forget_interactions
from service.erasures.problems import NoTargets, NotCancellable
from service.interactions import service as interactions
from service.interactions.problems import AllSuppressed
from service.platform.database import Database
from service.platform.tables import audit_head, erasures, metadata
from tests.factories.domains import Domains, Pair

USERS, ITEMS = ("u1", "u2", "u/3"), ("a", "b", "ç 👩‍🚀")
PAIRS = st.tuples(st.sampled_from(USERS), st.sampled_from(ITEMS))


@dataclass
class Named:
    """An erasure as the reference sees it."""

    pairs: set[Pair]
    users: set[str]
    items: set[str]
    status: str = "accepted"

    def covers(self, pair: Pair) -> bool:
        """Whether one of its targets covers a pair."""
        return pair in self.pairs or pair[0] in self.users or pair[1] in self.items


@dataclass
class Reference:
    """What is recorded, what was asked for, and what the log must tell."""

    recorded: set[Pair] = field(default_factory=set)
    erasures: dict[str, Named] = field(default_factory=dict)
    events: list[tuple[str, str]] = field(default_factory=list)

    def hidden(self, pair: Pair) -> bool:
        """Whether an erasure that was not cancelled covers a pair."""
        return any(named.covers(pair) for named in self.erasures.values() if named.status != "cancelled")

    @property
    def visible(self) -> set[Pair]:
        """What is recorded and hidden by nothing."""
        return {pair for pair in self.recorded if not self.hidden(pair)}


class Machine(RuleBasedStateMachine):
    """The service on an empty database, beside the reference."""

    ids = Bundle("ids")

    def __init__(self, database: Database) -> None:
        super().__init__()
        database.transact(clear)
        self.domains, self.reference = Domains(database), Reference()

    @rule(pairs=st.lists(PAIRS, min_size=1, max_size=4))
    def record(self, pairs: list[Pair]) -> None:
        """New feedback: what is hidden is refused, the rest is recorded."""
        refused = tuple(place for place, pair in enumerate(pairs) if self.reference.hidden(pair))
        new = {pair for pair in pairs if not self.reference.hidden(pair)} - self.reference.recorded

        try:
            outcome = self.domains.record(*pairs)
        except AllSuppressed:
            assert len(refused) == len(pairs)
            return

        assert (outcome.recorded, outcome.refused) == (len(new), refused)
        self.reference.recorded |= new

    @rule(pairs=st.lists(PAIRS, min_size=1, max_size=6))
    def bring_in(self, pairs: list[Pair]) -> None:
        """An import: the same, for whole data sets."""
        wanted = set(pairs)
        new = {pair for pair in wanted if not self.reference.hidden(pair)} - self.reference.recorded

        report = self.domains.bring_in(*pairs)

        assert report.recorded == len(new)
        assert report.refused == sum(map(self.reference.hidden, wanted))
        self.reference.recorded |= new

    @rule(
        target=ids,
        pairs=st.lists(PAIRS, max_size=3),
        users=st.lists(st.sampled_from(USERS), max_size=1),
        items=st.lists(st.sampled_from(ITEMS), max_size=1),
    )
    def accept(self, pairs: list[Pair], users: list[str], items: list[str]) -> str | None:
        """An erasure: matched tells the truth."""
        named = Named(set(pairs), set(users), set(items))

        try:
            erasure = self.domains.accept(*pairs, users=users, items=items)
        except NoTargets:
            assert len(pairs) + len(users) + len(items) == 0
            return None

        assert erasure.requested == len(named.pairs) + len(named.users) + len(named.items)
        assert erasure.matched == sum(map(named.covers, self.reference.recorded))
        self.reference.erasures[erasure.id] = named
        self.reference.events.append(("erasure.accepted", erasure.id))
        return erasure.id

    @rule(erasure_id=ids)
    def cancel(self, erasure_id: str | None) -> None:
        """A cancellation: only of what is accepted."""
        if erasure_id is None:
            return
        named = self.reference.erasures[erasure_id]

        try:
            self.domains.cancel(erasure_id)
        except NotCancellable:
            assert named.status != "accepted"
            return

        assert named.status == "accepted"
        named.status = "cancelled"
        self.reference.events.append(("erasure.cancelled", erasure_id))

    @rule(erasure_id=ids)
    def settle(self, erasure_id: str | None) -> None:
        """What the worker does to an accepted erasure in SQL."""
        if erasure_id is None or self.reference.erasures[erasure_id].status != "accepted":
            return
        named = self.reference.erasures[erasure_id]

        def unit(connection: Connection) -> None:
            forget_interactions(connection, [erasure_id])
            change = update(erasures).where(erasures.c.id == erasure_id).values(status="forgotten")
            connection.execute(change)

        self.domains.database.transact(unit)

        named.status = "forgotten"
        self.reference.recorded = {pair for pair in self.reference.recorded if not named.covers(pair)}

    @invariant()
    def only_what_is_visible_is_shown(self) -> None:
        """P3 and P4, for every user."""
        for user in USERS:
            expected = sorted(item for owner, item in self.reference.visible if owner == user)
            assert sorted(self.domains.shown(user)) == expected

    @invariant()
    def only_what_is_visible_is_learnt(self) -> None:
        """P4: nothing erased comes back with the next base."""
        with self.domains.database.read() as connection:
            user_keys = interactions.user_keys(connection, self.domains.identity, USERS)
            item_keys = interactions.item_keys(connection, self.domains.identity, ITEMS)
        expected = {
            (int(user_keys[USERS.index(user)]), int(item_keys[ITEMS.index(item)]))
            for user, item in self.reference.visible
        }
        assert self.domains.learnt() == expected

    @invariant()
    def suppressions_are_those_of_what_is_not_cancelled(self) -> None:
        """In digests, the same targets."""
        named = [named for named in self.reference.erasures.values() if named.status != "cancelled"]
        identity = self.domains.identity
        expected = {(identity.user(user), identity.item(item)) for one in named for user, item in one.pairs}
        expected |= {(identity.user(user), b"") for one in named for user in one.users}
        expected |= {(b"", identity.item(item)) for one in named for item in one.items}
        assert self.domains.suppressed() == expected

    @invariant()
    def the_log_tells_every_transition_once(self) -> None:
        """P2 and P7: in order and without gaps."""
        log = self.domains.log()
        assert [entry["seq"] for entry in log] == list(range(1, len(log) + 1))
        assert [(entry["event"], entry["erasure_id"]) for entry in log] == self.reference.events


def clear(connection: Connection) -> None:
    """Empty every table; the log begins anew."""
    for table in reversed(metadata.sorted_tables):
        if table is not audit_head:
            connection.execute(table.delete())
    connection.execute(audit_head.update().values(size=0))


@pytest.mark.P2
@pytest.mark.P3
@pytest.mark.P4
@pytest.mark.P7
@pytest.mark.timeout(300)
def test_no_sequence_of_calls_breaks_a_promise(database: Database) -> None:
    """Hypothesis looks for one that does, and shows the shortest."""
    run_state_machine_as_test(
        lambda: Machine(database),  # type: ignore[arg-type]  # any factory will do
        settings=settings(
            max_examples=25 if database.is_sqlite else 6,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
