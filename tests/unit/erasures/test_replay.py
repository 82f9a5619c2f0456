"""A database that was restored from before erasures: cleaned from the ledger, whatever state they were in."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from model_store import ModelStore
from model_store.erasure_ledger import FORK
from service.consents import service as consents
from service.erasures import approval, decisions
from service.erasures.grounds import DecisionOutcome, ExtensionGround, RefusalGround
from service.erasures.ledger_keeping import LedgerKeeper
from service.erasures.replay import LedgerReplay
from service.erasures.targets import Subjects
from service.interactions import service as interactions
from service.interactions.problems import AllSuppressed
from service.platform import faults
from service.platform.auth import Principal, Scope
from service.platform.clock import SystemClock
from service.platform.integrity import CannotReplay, Integrity, compare, raise_watermark
from service.platform.obstacles import APPROVAL
from service.platform.problem import DatabaseBehind
from service.platform.tables import audit_entries, erasure_targets, erasures, suppressions
from service.receipts import statement
from service.receipts.history import ErasureHistory
from service.settings import Settings, load_settings
from tests.factories.backups import Backup
from tests.factories.versions import publish
from tests.factories.workers import PAIRS, Home, fill, item, opened, user
from tests.unit.worker.waiting import eventually

pytestmark = pytest.mark.P4
# What differs between the databases is how a log is read and rows are stored: the others prove it.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def settings(home: Path, database_url: str) -> Settings:
    """A home whose vocabulary and interactions are recorded; no model."""
    given = load_settings(home=home, database_url=database_url)
    with opened(given) as place:
        fill(place)
    return given


class Kept:
    """An open home with the parts that keep its ledger, on no thread of their own."""

    def __init__(self, place: Home) -> None:
        self.place, self.store, self.database = place, place.store, place.database
        self.keeper = LedgerKeeper(place.database, place.store)
        self.replay = LedgerReplay(place.database, place.store, SystemClock())
        self.integrity = Integrity(place.database, place.store, ledger=self.keeper, replay=self.replay)

    def settle(self) -> None:
        """Write ledger and watermark, as happens every few seconds."""
        self.integrity.look()
        assert self.integrity.findings()["history"].status == "ok"

    def clean(self) -> int | None:
        """Find that the database is behind, clean it, and find that it is not."""
        self.integrity.look()
        assert isinstance(self.database.refusal, DatabaseBehind)
        done = self.replay(lambda: False)
        self.settle()
        assert self.database.refusal is None
        return done


@contextmanager
def kept(settings: Settings) -> Iterator[Kept]:
    with opened(settings) as place:
        yield Kept(place)


def states(place: Home) -> dict[str, str]:
    return {row.id: row.status for row in place.rows(select(erasures.c.id, erasures.c.status))}


def hidden(place: Home) -> set[tuple[bytes, bytes, str]]:
    own = suppressions.c
    rows = place.rows(select(own.user_digest, own.item_digest, own.erasure_id))
    return {(bytes(row.user_digest), bytes(row.item_digest), row.erasure_id) for row in rows}


def facts(place: Home) -> dict[str, tuple[Any, ...]]:
    """What must be the same as before the restore; the salt, the reason and the place in the log are not."""
    own = erasures.c
    wanted = (
        own.id,
        own.mode,
        own.requested,
        own.matched,
        own.commitment,
        own.received_at,
        own.due_at,
        own.key_id,
        own.owner,
    )
    return {row[0]: tuple(row[1:]) for row in place.rows(select(*wanted))}


def targets(place: Home) -> set[tuple[Any, ...]]:
    own = erasure_targets.c
    return {tuple(row) for row in place.rows(select(own.erasure_id, own.kind, own.user_key, own.item_key, own.matched))}


def write(place: Home, pair: tuple[int, int]) -> bool:
    """Record an interaction as a caller does; whether it was taken."""
    try:
        asyncio.run(interactions.record(place.services, [(user(pair[0]), item(pair[1]))]))
    except AllSuppressed:
        return False
    return True


def test_what_was_accepted_since_the_backup_is_stored_again(settings: Settings, tmp_path: Path):
    """Under its own id, with its targets, hidden at once; what was cancelled is cancelled; done twice, the same."""
    with kept(settings) as at:
        place = at.place
        first = place.accept(PAIRS[0])
        undone = place.accept(PAIRS[1])
        at.settle()
    backup = Backup(settings.sql_url, tmp_path)
    with kept(settings) as at:
        place = at.place
        place.cancel(undone)
        new = {
            "pair": place.accept(PAIRS[5]),
            "user": place.accept(users=[3]),
            "mixed": place.accept(PAIRS[9], (0, 1), users=[7], items=[2]),
            "unknown": place.accept((N_UNKNOWN, N_UNKNOWN)),
        }
        gone = place.accept(PAIRS[11])
        at.settle()
        place.cancel(gone)
        never = place.accept(PAIRS[12])
        place.cancel(never)  # before the ledger heard of it
        at.settle()
        before = (facts(place), targets(place), hidden(place), states(place))
    for _ in range(2):
        backup.restore()
        with kept(settings) as at:
            place = at.place
            assert write_would_be_refused(at)

            assert at.clean() == len(new) + 3

            assert (
                states(place)
                == before[3]
                == {
                    first: "accepted",
                    undone: "cancelled",
                    gone: "cancelled",
                    never: "cancelled",
                    **dict.fromkeys(new.values(), "accepted"),
                }
            )
            assert hidden(place) == before[2]
            # Of what was cancelled before the ledger heard of it, nobody knows any more what it would have covered.
            assert {**facts(place), never: None} == {**before[0], never: None}
            assert {row for row in targets(place) if row[0] != never} == {r for r in before[1] if r[0] != never}
            assert not any(write(place, pair) for pair in (PAIRS[0], PAIRS[5], PAIRS[9]))
            assert write(place, PAIRS[1])
            assert place.events(new["pair"]) == ["erasure.accepted", "erasure.replayed"]
            assert place.events(gone) == ["erasure.accepted", "erasure.cancelled", "erasure.replayed"]
            assert place.events(undone) == ["erasure.accepted", "erasure.cancelled", "erasure.replayed"]
            assert place.erasure(new["pair"]).salt is None
            assert place.events().count("log.restored") == 1
    record = audit_body(settings, new["pair"], "erasure.replayed")
    with kept(settings) as at:
        (told,) = [each for each in at.store.ledger.records() if each.number == record["record"]]
        assert (told.facts["erasure_id"], told.seal) == (new["pair"], record["seal"])
        assert sum(each.event == FORK for each in at.store.ledger.records()) == 2


@on_sqlite
def test_a_consent_of_before_the_backup_stays_and_one_since_is_gone(settings: Settings, tmp_path: Path):
    """The ledger knows of no consent: what it would have lifted is refused again, which is the safe side, and told."""

    def consent(place: Home, pair: tuple[int, int]) -> int:
        named = Subjects(interactions=((user(pair[0]), item(pair[1])),))
        return asyncio.run(consents.give(place.services, named, ["#/interactions/0"])).lifted

    with kept(settings) as at:
        place = at.place
        early, late = place.accept(PAIRS[0]), place.accept(PAIRS[1])
        with place.database.write() as connection:
            connection.execute(erasures.update().values(status="erased"))
        assert consent(place, PAIRS[0]) == 1
        at.settle()
    backup = Backup(settings.sql_url, tmp_path)
    with kept(settings) as at:
        assert consent(at.place, PAIRS[1]) == 1
        since = at.place.accept(PAIRS[5])
        at.settle()
    backup.restore()
    with kept(settings) as at:
        at.clean()

        assert states(at.place) == {early: "erased", late: "erased", since: "accepted"}
        assert [write(at.place, pair) for pair in (PAIRS[0], PAIRS[1], PAIRS[5])] == [True, False, False]
        assert consent(at.place, PAIRS[1]) == 1
        assert write(at.place, PAIRS[1])


N_UNKNOWN = 90


def write_would_be_refused(at: Kept) -> bool:
    at.integrity.look()
    try:
        write(at.place, PAIRS[20])
    except DatabaseBehind:
        return True
    return False


def audit_body(settings: Settings, erasure_id: str, event: str) -> dict[str, Any]:
    with opened(settings) as place:
        own = audit_entries.c
        row = place.one(select(own.body).where(own.erasure_id == erasure_id, own.event == event))
        body: dict[str, Any] = json.loads(row.body)["body"]
        return body


@pytest.mark.parametrize("point", ["chunk", "before_ledger", "after_fork", "before_watermark"])
def test_a_replay_that_is_broken_off_is_gone_on_with(
    settings: Settings, tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
):
    """Whatever was done: nothing twice, and nobody is answered before the end."""
    monkeypatch.setattr("service.erasures.replay.CHUNK_RECORDS", 2)
    backup = Backup(settings.sql_url, tmp_path)
    with kept(settings) as at:
        ids = [at.place.accept(PAIRS[number]) for number in range(5)]
        at.settle()
    backup.restore()
    faults.arm(faults.parse_fault(f"replay.{point}:raise"))
    try:
        with kept(settings) as at:
            at.integrity.look()
            with pytest.raises(faults.FaultInjected):
                at.replay(lambda: False)
            at.integrity.look()
            assert isinstance(at.database.refusal, DatabaseBehind)
    finally:
        faults.arm(None)

    with kept(settings) as at:
        at.clean()

        assert states(at.place) == dict.fromkeys(ids, "accepted")
        assert all(at.place.events(each).count("erasure.accepted") == 1 for each in ids)
        assert len(hidden(at.place)) == 5


@pytest.mark.parametrize("point", ["chunk", "before_ledger", "after_fork", "before_watermark"])
def test_a_backup_that_is_put_in_again_before_its_replay_ended_is_cleaned_too(
    settings: Settings, tmp_path: Path, point: str
):
    """Wherever the first replay died; also where nobody had raised the watermark since the backup."""
    backup = Backup(settings.sql_url, tmp_path)
    with kept(settings) as at:
        ids = [at.place.accept(PAIRS[number]) for number in range(2)]
        assert at.keeper.keep_up()
    backup.restore()
    faults.arm(faults.parse_fault(f"replay.{point}:raise"))
    try:
        with kept(settings) as at:
            at.integrity.look()
            with pytest.raises(faults.FaultInjected):
                at.replay(lambda: False)
    finally:
        faults.arm(None)

    backup.restore()
    with kept(settings) as at:
        at.clean()

        assert states(at.place) == dict.fromkeys(ids, "accepted")
        assert len(hidden(at.place)) == 2


def test_the_ledger_follows_whoever_died(settings: Settings, tmp_path: Path):
    """What was accepted and not appended is appended by the next process, in the log's order and once."""
    with kept(settings) as at:
        first = at.place.accept(PAIRS[0])
        assert at.keeper.keep_up()
        lost = at.place.accept(PAIRS[1])
    with kept(settings) as at, kept(settings) as other:
        with at.store.ledger.writing():
            assert not other.keeper.keep_up()
        assert other.keeper.keep_up()
        assert at.keeper.keep_up()
        told = [(each.event, each.facts["erasure_id"]) for each in at.store.ledger.records()]
        assert told == [("erasure.accepted", first), ("erasure.accepted", lost)]
        page = b"".join(path.read_bytes() for path in at.store.ledger.folder.glob("*.jsonl")).decode()
        assert user(PAIRS[0][0]) not in page
        assert item(PAIRS[0][1]) not in page


@on_sqlite
@pytest.mark.parametrize("what", ["gone", "cut", "flipped", "new"])
def test_what_cannot_be_cleaned_is_refused(
    settings: Settings, tmp_path: Path, what: str, open_database: Callable[[str], Any]
):
    """Without the ledger, with half of it, with a damaged one, or a database with nothing in it: and it says why."""
    backup = Backup(settings.sql_url, tmp_path)
    with kept(settings) as at:
        for number in range(3):
            at.place.accept(PAIRS[number])
        at.settle()
        (segment,) = at.store.ledger.folder.glob("*.jsonl")
    backup.restore()
    lines = segment.read_bytes().splitlines(keepends=True)
    why = "no ledger"
    match what:
        case "gone":
            os.rename(segment.parent, segment.parent.with_name("elsewhere"))
        case "cut":
            segment.write_bytes(b"".join(lines[:-1]))
            why = "ends before"
        case "flipped":
            segment.write_bytes(b"".join(lines).replace(b'"mode":"forget"', b'"mode":"forgeT"', 1))
            why = "record 1"
        case "new":
            with opened(settings) as place, place.database.write() as connection:
                for table in ("interactions", "users", "items"):
                    connection.execute(text(f"DELETE FROM {table}"))
            why = "a new one"

    with kept(settings) as at:
        at.integrity.start()
        at.integrity.stop()

        found = at.integrity.findings()["history"]
        assert found.status == "failed"
        assert "cannot be cleaned" in found.detail
        assert why in found.detail
        assert "restore the newest backup" in found.detail
        assert states(at.place) == {}
        assert isinstance(at.database.refusal, DatabaseBehind)


@on_sqlite
def test_versions_that_the_restored_database_never_knew_serve_nobody(settings: Settings, tmp_path: Path):
    """Their numbers are taken, so that nothing else ever goes by them."""
    backup = Backup(settings.sql_url, tmp_path)
    with kept(settings) as at:
        at.place.accept(PAIRS[0])
        at.settle()
    backup.restore()
    with kept(settings) as at:
        store = ModelStore(settings.store_root, key=at.store._key)
        publish(store, 4)
        (store.root / "versions" / "000005").mkdir()

        at.clean()

        table = text("SELECT version, status FROM versions")
        assert [tuple(row) for row in at.place.rows(table)] == [(4, "retired")]
        assert store.numbers("versions") == [4]
        assert "version.retired" in at.place.events()
        assert compare(at.database, at.store) is None


def test_a_database_that_lost_its_last_commits_is_the_same_case(settings: Settings, tmp_path: Path):
    """By the ledger alone: the watermark was not raised yet."""
    with kept(settings) as at:
        at.place.accept(PAIRS[0])
        at.settle()
    backup = Backup(settings.sql_url, tmp_path)
    with kept(settings) as at:
        lost = at.place.accept(PAIRS[1])
        at.keeper.keep_up()
    backup.restore()
    with kept(settings) as at:
        assert "ledger of erasures ends with entry 2" in str(compare(at.database, at.store))
        assert at.clean() == 1
        assert at.place.status(lost) == "accepted"


@on_sqlite
def test_damage_is_found_and_told_while_the_database_is_well(settings: Settings):
    """By the keeper's thread; what is accepted meanwhile is appended once the ledger was taken out of the way."""
    with kept(settings) as at:
        first = at.place.accept(PAIRS[0])
        at.settle()
        (segment,) = at.store.ledger.folder.glob("*.jsonl")
        segment.write_bytes(segment.read_bytes().replace(b'"mode":"forget"', b'"mode":"forgeT"', 1))
    with kept(settings) as at:
        at.keeper.start()
        try:
            eventually(lambda: at.keeper.finding().status == "degraded")
            assert "000000000001.jsonl, record 1" in at.keeper.finding().detail
            second = at.place.accept(PAIRS[1])
            at.integrity.look()
            assert at.integrity.findings()["history"].status == "ok"
            at.store.ledger.folder.rename(at.store.root / "broken")
            eventually(lambda: at.keeper.finding().status == "ok")
        finally:
            at.keeper.stop()
        assert [each.facts["erasure_id"] for each in at.store.ledger.records()] == [first, second]


def test_what_people_decided_is_decided_again(settings: Settings, tmp_path: Path):
    """A refused erasure is not done, one under legal hold waits, an extension and a lifted hold stand; twice."""

    async def do(place: Home, refused: str, held: str, extended: str, lifted: str) -> None:
        services = place.services
        await decisions.decide(services, refused, DecisionOutcome.REFUSED, next(iter(RefusalGround)))
        await decisions.set_hold(services, held)
        until = place.erasure(extended).due_at + timedelta(days=30)
        await decisions.extend(services, extended, until, next(iter(ExtensionGround)), "many of them")
        await decisions.lift_hold(services, lifted)

    with kept(settings) as at:
        lifted = at.place.accept(PAIRS[0])
        asyncio.run(decisions.set_hold(at.place.services, lifted))
        at.settle()
    backup = Backup(settings.sql_url, tmp_path)
    with kept(settings) as at:
        place = at.place
        refused, held, extended = (place.accept(PAIRS[number]) for number in (1, 2, 3))
        asyncio.run(do(place, refused, held, extended, lifted))
        at.settle()
        before = decided(place)
    for _ in range(2):
        backup.restore()
        with kept(settings) as at:
            assert at.clean() == 3 + 4
            assert decided(at.place) == before
            assert states(at.place) == {
                refused: "refused",
                held: "needs_attention",
                extended: "accepted",
                lifted: "accepted",
            }
            assert not any(write(at.place, PAIRS[number]) for number in range(4))
            assert at.place.events(refused) == [
                "erasure.accepted",
                "erasure.replayed",
                "erasure.refused",
                "erasure.replayed",
            ]
            at.integrity.look()
            assert at.replay(lambda: False) == 0  # nothing is done twice


def test_what_awaits_a_second_key_awaits_it_again(settings: Settings, tmp_path: Path):
    """A restore is no way round four eyes; what was approved since the backup stays approved."""
    officer = Principal("o", frozenset({Scope.OFFICER}), "privacy")
    strict = settings.model_copy(update={"approval_min_pairs": 1, "approval_share": 1e-9})
    with kept(strict) as at:
        early = at.place.accept(users=[1])
        at.settle()
    backup = Backup(settings.sql_url, tmp_path)
    with kept(strict) as at:
        awaiting, approved = (at.place.accept(users=[number]) for number in (2, 3))
        for each in (early, approved):
            asyncio.run(approval.approve(at.place.services, each, officer))
        at.settle()
    for _ in range(2):
        backup.restore()
        with kept(strict) as at:
            assert at.clean() == 2 + 2
            assert states(at.place) == {awaiting: "needs_attention", approved: "accepted", early: "accepted"}
            assert at.place.erasure(awaiting).needs == APPROVAL
            at.integrity.look()
            assert at.replay(lambda: False) == 0


def decided(place: Home) -> dict[str, tuple[Any, ...]]:
    own = erasures.c
    wanted = (own.id, own.status, own.due_at, own.extension_ground, own.decision, own.decision_ground)
    rows = place.rows(select(*wanted, own.held_since.is_not(None).label("held")))
    return {row[0]: tuple(row[1:]) for row in rows}


@on_sqlite
def test_a_home_from_before_there_was_a_ledger_gets_one(settings: Settings, tmp_path: Path):
    """From its log."""
    with kept(settings) as at:
        at.place.accept(PAIRS[0])
        raise_watermark(at.database, at.store)
        at.settle()
        assert [each.seq for each in at.store.ledger.records()] == [1]
        os.rename(at.store.ledger.folder, tmp_path / "ledger")
        with pytest.raises(CannotReplay):
            at.replay(lambda: False)


@on_sqlite
@pytest.mark.parametrize("flipped", [False, True])
def test_a_database_that_is_trusted_is_gone_on_with(settings: Settings, tmp_path: Path, flipped: bool):
    """The ledger follows it from the last entry that both have; one that cannot be read is set aside."""
    with kept(settings) as at:
        first = at.place.accept(PAIRS[0])
        at.settle()
    backup = Backup(settings.sql_url, tmp_path)
    with kept(settings) as at:
        at.place.accept(PAIRS[1])
        at.settle()
        (segment,) = at.store.ledger.folder.glob("*.jsonl")
    if flipped:
        segment.write_bytes(segment.read_bytes().replace(b'"mode":"forget"', b'"mode":"forgeT"', 1))
    backup.restore()
    with kept(settings) as at:
        with at.store.ledger.writing(), pytest.raises(CannotReplay, match="Stop the service"):
            at.replay.trust()

        at.replay.trust()

        at.settle()
        after = at.place.accept(PAIRS[2])
        at.settle()
        assert states(at.place) == dict.fromkeys((first, after), "accepted")
        last = at.store.ledger.last()
        assert last is not None
        assert last.facts["erasure_id"] == after
        assert list(at.store.root.glob("ledger.damaged-*")) == [at.store.root / "ledger.damaged-1"] * flipped


def test_a_receipt_says_that_it_was_stored_again():
    """Its salt is gone."""
    assert statement._notice(ErasureHistory("erased"), [{"event": "erasure.accepted"}]) is None
    told = statement._notice(ErasureHistory("accepted"), [{"event": "erasure.accepted"}, {"event": "erasure.replayed"}])
    assert told is not None
    assert statement.NOT_FINAL in told
    assert "salt is gone" in told
