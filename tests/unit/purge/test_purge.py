"""What a purge takes away and what it leaves, on both databases, a real store and a real Valkey."""

import multiprocessing
import signal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from service.erasures.modes import Mode
from service.platform import faults, tables
from service.platform.database import Database
from service.platform.embedded import EmbeddedValkey
from service.platform.faults import Fault, FaultInjected
from service.platform.redis import ErasureStream, Message
from service.purge.problems import LiveNotFromBase
from service.purge.purge import STEPS, PurgeScope
from service.settings import Settings
from tests.factories.purges import COMPACTION, PurgingHome

MANY = [(u, i) for u in range(1, 8) for i in range(1, 6)]
POINTS = [*(f"purge.after_{step}" for step in STEPS), "purge.versions_marked", "purge.rows_chunk"]
OWN_ROWS = ("erasure_targets", "outbox", "idempotency")

# Processes that can be killed are forked from one that has loaded everything.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.factories.purges"])


@pytest.fixture
def home(home: Path, settings: Settings, database: Database, stream: ErasureStream) -> PurgingHome:
    # The log of PostgreSQL is the matter of test_bytes.
    made = PurgingHome(settings.model_copy(update={"purge_wal_mb": 0}), database, stream)
    made.record(*MANY)
    made.base(1)
    made.version(2, 1)
    made.point(live=2, previous=1, base=1)
    return made


def statuses(home: PurgingHome) -> dict[int, str]:
    table = tables.versions
    rows = home.database.query(lambda c: c.execute(select(table.c.version, table.c.status)).all())
    return {row.version: row.status for row in rows}


def alias(home: PurgingHome, name: str) -> int | None:
    table = tables.aliases
    return home.database.query(lambda c: c.scalar(select(table.c.version).where(table.c.name == name)))


def events(home: PurgingHome, event: str) -> list[dict[str, Any]]:
    return [entry for entry in home.domains.log() if entry["event"] == event]


@pytest.mark.P8
def test_versions_that_were_made_from_before_go_and_the_others_stay(home: PurgingHome) -> None:
    """On record, with an entry each, and in the store; their encoders, aliases, orphans and leftovers too."""
    erasure = home.accept((1, 1))
    home.forget(erasure)
    scope = home.compact(3, erasure)
    home.version(4, 3)
    home.point(live=4, previous=2)
    home.world.publish(7, [[1.0]], kind="forgotten", parent=1)  # never recorded, from the old base
    home.world.publish(8, [[1.0]], kind="forgotten", parent=3)  # being published by the worker, from the new one
    home.base(9)  # trained later, and not in use
    for left in ("versions/.gone-000001-ab", ".tmp-watermark.json-ab"):
        (home.store.root / left).mkdir()

    report = home.purge(scope)

    assert home.store.numbers("versions") == [3, 4, 8, 9]
    assert home.store.numbers("encoders") == [3, 9]
    assert statuses(home) == {1: "purged", 2: "purged", 3: "ready", 4: "ready", 9: "ready"}
    assert (alias(home, "previous"), home.store.alias("previous")) == (None, None)
    assert (alias(home, "live"), alias(home, "base")) == (4, 3)
    assert [(entry["version"], entry["body"]) for entry in events(home, "version.purged")] == [
        (1, {"base": 1, "kind": "base"}),
        (2, {"base": 1, "kind": "forgotten"}),
    ]
    assert report.steps["versions"].counts == {"versions": 2, "stray_versions": 1, "encoders": 1}
    assert not list(home.store.root.rglob(".*-*"))


@pytest.mark.parametrize("name", ["live", "base"])
def test_nothing_is_purged_while_the_models_are_elsewhere(home: PurgingHome, name: str) -> None:
    """The versions that answer would be taken from under the callers."""
    erasure = home.accept((1, 1))
    home.forget(erasure)
    scope = home.compact(3, erasure)
    home.point(**{name: 1})

    with pytest.raises(LiveNotFromBase):
        home.purge(scope)

    assert home.store.numbers("versions") == [1, 2, 3]
    assert set(statuses(home).values()) == {"ready"}
    assert home.count("erasure_targets") == 1


@pytest.mark.P8
def test_rows_of_what_is_erased_go_and_the_rest_stays(home: PurgingHome) -> None:
    """Users without anything left; items only where they were erased themselves; what open erasures need."""
    of_user_2 = [(2, i) for i in range(1, 6)]
    gone = [
        home.accept(users=[1], reason="words", idempotency_key="k1"),
        home.accept(*of_user_2),
        home.accept(items=[5]),
        home.accept((3, 1)),
    ]
    open_too = home.accept(users=[4], idempotency_key="k2")
    also = home.accept((4, 1))
    cancelled = home.accept((5, 1))
    home.domains.cancel(cancelled)
    home.forget(*gone, also)
    scope = home.compact(3, *gone, also)

    report = home.purge(scope)

    assert home.known_users() == {3, 4, 5, 6, 7}
    assert home.known_items() == {1, 2, 3, 4}
    for table in OWN_ROWS:
        column = tables.metadata.tables[table].c.erasure_id
        assert set(home.database.query(lambda c, column=column: list(c.scalars(select(column))))) == {open_too}, table
    for each in (*gone, also):
        erasure = home.domains.erasure(each)
        assert (erasure.salt, erasure.reason) == (None, None)
        assert erasure.purged_at is not None
    assert home.domains.erasure(open_too).salt is not None
    assert report.steps["rows"].counts["users"] == 2
    assert report.steps["rows"].counts["items"] == 1


@pytest.mark.P8
def test_a_user_that_others_still_named_goes_with_the_last_of_them(home: PurgingHome) -> None:
    """The one that kept the row was forgotten later, or cancelled."""
    first, second = home.accept(users=[1]), home.accept((1, 2))
    home.forget(first)
    home.purge(home.compact(3, first))
    home.erased(first)
    assert 1 in home.known_users()
    home.domains.cancel(second)

    home.purge(home.scope(3))

    assert 1 not in home.known_users()
    assert home.count("erasure_targets") == 0


def test_what_is_held_or_decided_or_not_forgotten_is_no_part_of_it(home: PurgingHome) -> None:
    """Their rows stay, even where they were in the scope when that was read."""
    free, held, refused, waiting = (home.accept((n, 1)) for n in range(1, 5))
    home.forget(free, held, refused)
    scope = home.compact(3, free, held, refused, waiting)
    assert set(scope.erasures) == {free, held, refused}
    with home.database.write() as connection:
        table = tables.erasures
        connection.execute(table.update().where(table.c.id == held).values(held_since=home.domains.clock.now()))
        connection.execute(table.update().where(table.c.id == refused).values(decision="partial"))

    home.purge(scope)

    assert home.count("erasure_targets") == 3
    assert home.domains.erasure(free).purged_at is not None
    for kept in (held, refused, waiting):
        assert home.domains.erasure(kept).purged_at is None
        assert home.domains.erasure(kept).salt is not None
    assert home.scope(3).erasures == (free,)


@pytest.mark.P4
def test_tombstones_end_and_dislikes_do_not(home: PurgingHome) -> None:
    """Three years after, as set; a second purge leaves the end where it was."""
    forgotten = home.accept((1, 1))
    with home.database.write() as connection:
        connection.execute(tables.erasures.update().values(mode="forget"))
    disliked = home.accept((2, 2))
    with home.database.write() as connection:
        table = tables.erasures
        connection.execute(table.update().where(table.c.id == disliked).values(mode=Mode.DISLIKE.value))
    home.forget(forgotten, disliked)
    scope = home.compact(3, forgotten, disliked)
    began = home.domains.clock.now()

    home.purge(scope)
    home.later(1)
    home.purge(scope)

    table = tables.suppressions
    ends = dict(home.database.query(lambda c: c.execute(select(table.c.erasure_id, table.c.until)).all()))
    assert ends[disliked] is None
    assert (ends[forgotten] - began).days == 1095


def test_entries_of_the_stream_and_dead_letters_go(home: PurgingHome, stream: ErasureStream) -> None:
    """Those of the scope, delivered or not; the server writes its file anew."""
    erasure, other = home.accept((1, 1)), home.accept((2, 2))
    home.forget(erasure)
    scope = home.compact(3, erasure)
    stream.publish([erasure, other, erasure])
    stream.read(count=1, block_ms=10)
    stream.dead_letter(Message("0-1", erasure), "gate_refused")
    stream.dead_letter(Message("0-1", other), "gate_refused")

    report = home.purge(scope)

    assert report.steps["stream"].counts == {"entries": 3}
    assert (stream.pending().length, stream.pending().pending, stream.dead_letters()) == (1, 0, 1)


def test_ids_of_erasures_leave_the_file_of_the_embedded_server(
    home: PurgingHome, valkey_server: EmbeddedValkey, stream: ErasureStream
) -> None:
    erasure = home.accept((1, 1))
    home.forget(erasure)
    scope = home.compact(3, erasure)
    stream.publish([erasure])
    folder = valkey_server._folder / "appendonlydir"
    assert any(erasure.encode() in path.read_bytes() for path in folder.iterdir())

    home.purge(scope)

    assert not any(erasure.encode() in path.read_bytes() for path in folder.iterdir())


def test_a_redis_that_is_away_is_told_and_the_rest_is_done(home: PurgingHome) -> None:
    """Losing it loses nothing; the next purge takes its entries out."""
    erasure = home.accept((1, 1))
    home.forget(erasure)
    scope = home.compact(3, erasure)
    home.stream = ErasureStream("redis://127.0.0.1:1", stream="s", group="g", consumer="c", timeout_s=0.2)

    report = home.purge(scope)

    assert not report.done
    assert not report.as_dict()["steps"]["stream"]["done"]
    assert report.steps["stream"].undone[0].startswith("Redis: ")
    assert home.count("erasure_targets") == 0


def test_checkpoints_snapshots_and_files_set_aside_go(home: PurgingHome) -> None:
    """The needles of the search stay: whoever searches takes them away."""
    erasure = home.accept((1, 1))
    home.forget(erasure)
    scope = home.compact(3, erasure)
    root = home.settings.home
    gone = ["checkpoints/compaction-1.npz", "checkpoints/abc.npz.tmp", "valkey/appendonlydir.damaged-1/x.aof"]
    stay = ["purge/compaction-1.needles", "secret.key", "valkey/server.log"]
    for name in (*gone, *stay):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(b"x")

    report = home.purge(scope)

    assert not any((root / name).exists() for name in gone)
    assert all((root / name).exists() for name in stay)
    assert report.steps["files"].counts == {"files": 3}


@pytest.mark.P1
@pytest.mark.parametrize("point", POINTS)
def test_a_purge_that_was_killed_is_taken_up_again(home: PurgingHome, point: str) -> None:
    """Killed for good by the kernel in a process of its own, at each step; the next run ends it."""
    erasures = [home.accept(users=[1]), home.accept((2, 2))]
    home.forget(*erasures)
    scope = home.compact(3, *erasures)
    home.version(4, 3)
    home.point(live=4, previous=2)
    steps: list[str] = []

    process = _context.Process(
        target=_purge_and_die, args=(home.settings, str(home.database.url), scope, point, home.tag)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    report = home.purge(home.scope(3), steps=steps)

    assert steps == list(STEPS)
    assert not any(report.steps[step].undone for step in STEPS[:-1]), report.undone
    assert home.store.numbers("versions") == [3, 4]
    assert len(events(home, "version.purged")) == 2
    assert home.known_users() == {2, 3, 4, 5, 6, 7}
    assert home.count("erasure_targets") == home.count("outbox") == 0
    assert home.count("suppressions", tables.suppressions.c.until.is_not(None)) == 2


def _purge_and_die(settings: Settings, url: str, scope: PurgeScope, point: str, tag: str) -> None:
    database = Database(url)
    faults.arm(Fault(point, "kill"))
    PurgingHome(settings, database, None, tag).purge(scope)


def test_whoever_may_no_longer_purge_changes_nothing(home: PurgingHome) -> None:
    """The lease is confirmed in each transaction."""
    erasure = home.accept((1, 1))
    home.forget(erasure)
    scope = home.compact(3, erasure)

    def fenced(connection: Connection) -> None:
        raise FaultInjected

    with pytest.raises(FaultInjected):
        home.purge(scope, confirm=fenced)

    assert home.store.numbers("versions") == [1, 2, 3]
    assert home.count("erasure_targets") == 1


def test_a_report_names_nobody(home: PurgingHome) -> None:
    erasure = home.accept(users=[1])
    home.forget(erasure)

    report = home.purge(home.compact(3, erasure))

    assert home.tag not in str(report.as_dict())
    assert erasure not in str(report.as_dict())
    assert report.as_dict()["compaction"] == COMPACTION
    assert list(report.as_dict()["steps"]) == list(STEPS)
