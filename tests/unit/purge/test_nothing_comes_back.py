"""After a purge nobody comes back: by a late write, an import, an alias, a number that is given out again."""

import asyncio

import pytest
from sqlalchemy import select

from service.interactions import importing
from service.interactions.importing import import_dataset
from service.interactions.problems import AllSuppressed
from service.models import service as models
from service.models.problems import VersionFenced, VersionNotReady
from service.platform import tables
from service.platform.database import Database
from service.purge import expiry
from service.settings import Settings
from service.worker.repository import journal
from tests.factories.domains import dataset
from tests.factories.purges import PurgingHome

pytestmark = pytest.mark.P4


@pytest.fixture
def home(settings: Settings, database: Database) -> PurgingHome:
    """User 1, item 3 and the pair (2, 2) are erased; base 3 answers."""
    made = PurgingHome(settings.model_copy(update={"purge_wal_mb": 0}), database)
    made.record(*((u, i) for u in range(1, 5) for i in range(1, 4)))
    made.base(1)
    made.version(2, 1)
    made.point(live=2, previous=1, base=1)
    ids = [made.accept(users=[1]), made.accept(items=[3]), made.accept((2, 2))]
    made.forget(*ids)
    made.purge(made.compact(3, *ids))
    made.erased(*ids)
    assert made.known_users() == {2, 3, 4}
    assert made.known_items() == {1, 2}
    return made


def test_late_writes_are_refused_though_the_rows_are_gone(home: PurgingHome) -> None:
    """Recorded one by one, or imported; nothing of them is registered."""
    late = [(1, 1), (2, 2), (4, 3)]

    with pytest.raises(AllSuppressed):
        home.domains.record(*((home.user(u), home.item(i)) for u, i in late))
    report = home.domains.bring_in(*((home.user(u), home.item(i)) for u, i in (*late, (1, 3))))

    assert (report.recorded, report.refused) == (0, 4)
    assert home.known_users() == {2, 3, 4}
    assert home.known_items() == {1, 2}


def test_tombstones_keep_what_they_name_out_of_training(home: PurgingHome) -> None:
    """Whatever is recorded beside the service."""
    rows = home.database.query(
        lambda connection: list(connection.execute(select(tables.users.c.id, tables.users.c.key)))
    )
    keys = {row.id: row.key for row in rows}
    items = dict(home.database.query(lambda c: c.execute(select(tables.items.c.id, tables.items.c.key)).all()))
    pair = {"user_key": keys[home.user(2)], "item_key": items[home.item(2)], "recorded_at": home.domains.clock.now()}
    with home.database.write() as connection:
        connection.execute(tables.interactions.insert().values(**pair))

    assert (pair["user_key"], pair["item_key"]) not in home.domains.learnt()


def test_a_purged_version_never_answers_again(home: PurgingHome) -> None:
    """By no alias; and its number is not given out again, so that nothing else is taken for it."""
    for number in (1, 2):
        with pytest.raises(VersionNotReady):
            asyncio.run(models.promote(home.domains.services, number))
        with pytest.raises((VersionNotReady, VersionFenced)), home.database.write() as connection:
            models.move_alias(connection, "live", number, home.domains.clock.now(), fenced=False)
    with home.database.write() as connection:
        batch = journal.open_batch(connection, epoch=1, step="apply", size=1, now=home.domains.clock.now())
        reserved = journal.reserve(connection, batch, max(home.store.numbers("versions"), default=0))
    assert reserved == 4
    assert home.database.query(lambda connection: models.next_number(connection, home.store)) >= 4
    assert home.database.query(models.substitutes) == []


def test_whoever_was_erased_is_asked_for_like_an_unknown_user(home: PurgingHome) -> None:
    assert home.domains.shown(home.user(1)) == home.domains.shown(home.user(99)) == []


def test_an_import_that_runs_meanwhile_goes_on(home: PurgingHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user of whom nothing was left is registered by it, and purged before its interactions are recorded."""
    monkeypatch.setattr(importing, "CHUNK_PAIRS", 1)
    erased = home.accept(*((4, i) for i in (1, 2)))
    home.forget(erased)
    with home.database.write() as connection:
        mine = tables.erasures.update().where(tables.erasures.c.id == erased)
        connection.execute(mine.values(compaction_id="compaction-1"))
    pairs = [(home.user(3), "new-a"), (home.user(4), "new-b")]
    purged = []

    def purge(done: int, total: int) -> None:
        if done == 1:
            assert 4 in home.known_users()
            home.purge(home.scope(3))
            assert 4 not in home.known_users()
            purged.append(True)

    report = import_dataset(home.database, home.world.identity, dataset(*pairs), purge)

    assert purged == [True]
    assert (report.recorded, report.refused) == (2, 0)
    assert home.domains.shown(home.user(4)) == ["new-b"]


@pytest.mark.P10
def test_tombstones_and_keys_of_requests_go_when_they_are_old(home: PurgingHome) -> None:
    """Not a day before, in bounded transactions; a dislike never."""
    settings = home.settings
    keyed = home.accept((3, 1), idempotency_key="k")
    disliked = home.accept((3, 2))
    with home.database.write() as connection:
        mine = tables.erasures.update().where(tables.erasures.c.id == disliked)
        connection.execute(mine.values(mode="dislike"))

    def expire() -> expiry.ExpiredRows | None:
        now = home.domains.clock.now()
        if not home.database.query(lambda connection: expiry.anything_expired(connection, settings, now)):
            return None
        return home.database.transact(lambda connection: expiry.expire(connection, settings, now))

    home.later(29)
    assert expire() is None
    home.later(2)
    assert expire() == expiry.ExpiredRows(0, 1)
    home.later(1063)
    assert expire() is None
    home.later(2)
    assert expire() == expiry.ExpiredRows(3, 0)
    assert expire() is None
    assert home.count("suppressions") == 2
    assert home.domains.erasure(keyed).status == "accepted"
    assert home.domains.record((home.user(1), home.item(1))).recorded == 1
