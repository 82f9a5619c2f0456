"""The store made to agree with SQL."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select

from service.platform import tables
from service.platform.clock import SystemClock
from service.worker import invariants
from service.worker.lease import Fenced
from service.worker.pipeline import Pipeline
from service.worker.repository import journal
from service.worker.retention import TRAINING, Retention
from tests.factories.versions import facts
from tests.factories.versions import tensors as vectors
from tests.factories.workers import Home, pipeline_of, waiting


@pytest.fixture
def pipeline(place: Home) -> Iterator[Pipeline]:
    """A pipeline whose worker holds the lease."""
    with pipeline_of(place) as pipeline:
        yield pipeline


@pytest.fixture
def retention(place: Home, pipeline: Pipeline) -> Retention:
    """The retention of the same worker."""
    return Retention(place.database, place.store, pipeline.dependencies.lease, SystemClock(), keep=2)


def forget_one_by_one(place: Home, pipeline: Pipeline, count: int) -> None:
    """Make so many versions."""
    for pair in place.learnt[:count]:
        place.accept(pair)
        pipeline.run(waiting(place))


@pytest.mark.P5
def test_the_alias_files_follow_sql(place: Home, pipeline: Pipeline, retention: Retention) -> None:
    """SQL moved, the process died before the files did: they are mended."""
    forget_one_by_one(place, pipeline, 2)
    assert place.store.alias("live") == 1

    retention.align()

    assert (place.store.alias("live"), place.store.alias("previous")) == (3, 2)


def test_a_damaged_alias_file_is_written_anew(place: Home, retention: Retention) -> None:
    """Nobody needs to know what it said."""
    (place.store.root / "aliases" / "live").write_text("garbage")

    retention.align()

    assert place.store.alias("live") == 1


@pytest.mark.P10
def test_superseded_versions_are_purged_but_the_newest(place: Home, pipeline: Pipeline, retention: Retention) -> None:
    """The live one, the one before, some more and the base stay; the rest is gone and on record as purged."""
    forget_one_by_one(place, pipeline, 6)

    retention.align()

    assert place.alias("live") == 7
    kept = place.store.numbers("versions")
    assert kept == [1, 4, 5, 6, 7]
    status = {row.version: row.status for row in place.rows(select(tables.versions))}
    assert {number for number, word in status.items() if word == "purged"} == {2, 3}


def test_what_an_interrupted_worker_left_is_taken_away(place: Home, retention: Retention) -> None:
    """A folder that was being written, and a version that was never settled, both of an older epoch."""
    aside = place.store.root / "versions" / ".tmp-000002-abc"
    aside.mkdir()
    (aside / "embeddings.safetensors").write_bytes(b"half")
    with place.database.write() as connection:
        batch = journal.open_batch(connection, epoch=0, step="publish", size=1, now=SystemClock().now())
        number = journal.reserve(connection, batch, 0)
    place.store.publish("versions", number, {"embeddings.safetensors": vectors()}, facts())

    retention.recover()

    assert place.store.numbers("versions") == [1]
    assert not aside.exists()
    left = place.one(select(tables.batches).where(tables.batches.c.id == batch))
    assert (left.outcome, left.step) == ("abandoned", "publish")


def test_a_base_that_is_being_published_is_left_alone(place: Home, retention: Retention) -> None:
    """Trainings are other processes: their number is reserved, their batch open."""
    with place.database.write() as connection:
        batch = journal.open_batch(connection, epoch=0, step=TRAINING, size=0, now=SystemClock().now())
        number = journal.reserve(connection, batch, 0)
    place.store.publish("versions", number, {"embeddings.safetensors": vectors()}, facts())

    retention.recover()

    assert place.store.numbers("versions") == [1, number]


def test_a_sound_home_breaks_no_promise(place: Home, pipeline: Pipeline, retention: Retention) -> None:
    """After some erasures every invariant counts nothing."""
    forget_one_by_one(place, pipeline, 2)
    retention.align()

    found = invariants.check_all(place.database, place.store, SystemClock())

    assert set(found.values()) == {0}
    assert {"outbox_age", "live_covers_forgotten", "version_on_disk_has_manifest"} < set(found)


def test_each_invariant_sees_what_breaks_it(place: Home, retention: Retention) -> None:
    """An erasure called forgotten that nobody forgot, an old outbox row, a version whose files are gone."""
    place.accept(place.learnt[0])
    with place.database.write() as connection:
        connection.execute(tables.erasures.update().values(status="forgotten"))
        connection.execute(tables.outbox.update().values(created_at=facts().created_at.replace(year=2000)))
    for file in (place.store.root / "versions" / "000001").iterdir():
        file.unlink()
    (place.store.root / "aliases" / "live").write_text("garbage")

    found = invariants.check_all(place.database, place.store, SystemClock())

    assert found == {
        "outbox_age": 1,
        "live_covers_forgotten": 1,
        "forgotten_is_audited_once": 1,
        "version_on_disk_has_manifest": 1,
        "store_alias_agrees": 1,
    }


@pytest.mark.P10
def test_what_is_kept_long_enough_goes_by_itself(place: Home, retention: Retention) -> None:
    """Tombstones and keys of requests; under the lease, and what is open stays refused."""
    old, new = place.accept(place.learnt[0]), place.accept(place.learnt[1])
    long_ago = SystemClock().now() - timedelta(days=1)
    mine = tables.suppressions.c.erasure_id
    with place.database.write() as connection:
        connection.execute(tables.suppressions.update().where(mine == old).values(until=long_ago))

    retention.expire(place.settings)

    assert [row.erasure_id for row in place.rows(select(mine))] == [new]
    retention.lease.release()
    with place.database.write() as connection:
        connection.execute(tables.suppressions.update().values(until=long_ago))
    with pytest.raises(Fenced):
        retention.expire(place.settings)
    assert len(place.rows(select(mine))) == 1
