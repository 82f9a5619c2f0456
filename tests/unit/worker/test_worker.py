"""A worker's life, and what it tells of it."""

import asyncio
import json
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, select

import migrations
from service.erasures import approval
from service.platform import tables
from service.platform.auth import Principal, Scope
from service.platform.problem import StorageFull
from service.platform.redis import ErasureStream
from service.settings import Settings
from service.unlearning.protocol import ForgetResult
from service.worker import pipeline
from service.worker.engine import EMBEDDINGS, ResolvedBatch, UnlearningEngine
from service.worker.monitor import Monitor
from service.worker.pipeline import UNLEARNING_CRASHED
from service.worker.repository import journal, queue
from tests.factories.versions import file_of
from tests.factories.workers import Home, copy_template, opened, teach, worker_of, working
from tests.unit.worker.waiting import eventually


@pytest.mark.P1
def test_accepted_erasures_are_forgotten_without_redis(place: Home) -> None:
    """SQL is the truth: the stream only wakes."""
    erasure_id = place.accept(place.learnt[0])

    with working(worker_of(place)):
        eventually(lambda: place.status(erasure_id) == "forgotten")


def test_what_awaits_approval_is_left_alone_until_it_has_it(template: Path, home: Path) -> None:
    """Others pass it; approved, it is forgotten as any other, from a base that was trained with it meanwhile, too."""
    bounds = {"approval_min_pairs": 1, "approval_share": 0.001}
    with opened(copy_template(template, home, **bounds)) as place:
        number = place.learnt[0][0]
        large = place.accept(users=[number])
        small = place.accept(next(pair for pair in place.learnt if pair[0] != number))
        with working(worker_of(place)):
            eventually(lambda: place.status(small) == "forgotten")
        assert place.erasure(large).needs == "approval"
        assert place.degrees(2)[0][number] == place.degrees(1)[0][number]
        base = teach(place, go_live=True)
        assert place.degrees(base)[0][number] > 0

        other = Principal("other", frozenset({Scope.OFFICER}), "other")
        asyncio.run(approval.approve(place.services, large, other))
        with working(worker_of(place)):
            eventually(lambda: place.status(large) == "forgotten")

        assert place.erasure(large).version_after == place.alias()
        assert place.degrees(place.alias() or 0)[0][number] == 0
        assert not [pair for pair in place.recorded() if pair[0] == number]


@pytest.mark.P4
def test_a_worker_that_starts_anew_knows_what_was_forgotten_before(place: Home) -> None:
    """Requests are cumulative over restarts: a later version lacks the earlier pairs too."""
    pairs = [place.learnt[0], place.learnt[40]]
    for pair in pairs:
        erasure_id = place.accept(pair)
        with working(worker_of(place)):
            eventually(lambda erasure_id=erasure_id: place.status(erasure_id) == "forgotten")

    before, after = place.degrees(1)[0], place.degrees(3)[0]
    assert [before[user] - after[user] for user, _ in pairs] == [1, 1]


@pytest.mark.P5
def test_a_damaged_live_version_is_made_again(place: Home) -> None:
    """One flipped bit: the same erasures forgotten from the same base give the same vectors under a new number."""
    erasure_id = place.accept(place.learnt[0])
    with working(worker_of(place)):
        eventually(lambda: place.status(erasure_id) == "forgotten")
    before = {name: array.copy() for name, array in place.store.open("versions", 2, EMBEDDINGS).items()}
    file = file_of(place.store, 2)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    with working(worker_of(place)):
        eventually(lambda: place.alias() == 3)

    after = place.store.open("versions", 3, EMBEDDINGS)
    assert all(np.array_equal(before[name], array) for name, array in after.items())
    assert place.events().count("erasure.forgotten") == 1


def test_a_delivery_wakes_the_worker_and_is_acknowledged(place: Home, stream: ErasureStream) -> None:
    """The relay publishes, the worker forgets, the stream is empty in the end; the alias files follow."""
    with working(worker_of(place, stream)) as worker:
        eventually(lambda: worker.status.rounds)
        erasure_id = place.accept(place.learnt[0])
        worker.relay.publish_pending()
        eventually(lambda: place.status(erasure_id) == "forgotten")
        eventually(lambda: stream.pending().length == 0)

    assert place.store.alias("live") == 2


@pytest.mark.P1
def test_an_erasure_that_the_stream_lost_is_published_again(place: Home, stream: ErasureStream) -> None:
    """The sweep tells the stream of what was published and is accepted still."""
    place.accept(place.learnt[0])
    worker = worker_of(place, stream)
    worker.relay.publish_pending()
    for message in stream.read(count=10, block_ms=100):
        stream.ack([message.entry_id])

    swept = worker.relay.sweep(older_than_s=0)
    worker.relay.publish_pending()

    assert swept == 1
    assert stream.pending().length == 1


def test_without_any_model_an_erasure_is_forgotten_at_once(settings: Settings) -> None:
    """No model holds it, and none will learn it."""
    migrations.upgrade(settings.sql_url)
    with opened(settings.model_copy(update={"lease_seconds": 2.0})) as place:
        erasure_id = place.accept((0, 0))

        with working(worker_of(place)):
            eventually(lambda: place.status(erasure_id) == "forgotten")

        assert place.erasure(erasure_id).version_after is None


@pytest.mark.P1
def test_an_erasure_with_which_the_process_died_each_time_is_set_aside(place: Home) -> None:
    """It stands alone first; after some deaths it needs attention, and those behind it go on."""
    deadly, harmless = place.accept(place.learnt[0]), place.accept(place.learnt[9])
    with place.database.write() as connection:
        for _ in range(place.settings.max_attempts):
            queue.begin_attempt(connection, [deadly])

    with working(worker_of(place)):
        eventually(lambda: place.status(harmless) == "forgotten")

    assert (place.status(deadly), place.erasure(deadly).needs) == ("needs_attention", UNLEARNING_CRASHED)


@pytest.mark.P10
def test_batches_shrink_after_the_process_died_in_one(place: Home) -> None:
    """What was in the batch that killed the worker comes back in smaller ones."""
    ids = [place.accept(pair) for pair in place.learnt[:6]]
    place = replace(place, settings=place.settings.model_copy(update={"batch_max": 8}))
    worker = worker_of(place)

    sizes = []
    for _ in range(3):
        with place.database.write() as connection:
            queue.begin_attempt(connection, ids)
        sizes.append(len(worker._next_batch()))

    assert sizes == [2, 1, 1]


def test_a_failing_round_is_tried_again(place: Home) -> None:
    """Trouble that passes delays and loses nothing, and is told while it lasts."""

    class Troubled(UnlearningEngine):
        """The real engine, that cannot write its embeddings at first."""

        troubles = 2

        def embeddings(self, result: ForgetResult) -> dict[str, object]:  # type: ignore[override]
            if Troubled.troubles:
                Troubled.troubles -= 1
                raise OSError(28, "No space left on device")
            return dict(super().embeddings(result))

    erasure_id = place.accept(place.learnt[0])
    seen: list[str | None] = []

    with working(worker_of(place, engine_of=Troubled)) as worker:
        eventually(lambda: seen.append(worker.status.trouble) or place.status(erasure_id) == "forgotten")
        eventually(lambda: worker.status.trouble is None)

    assert "OSError" in seen


@pytest.mark.P10
def test_a_batch_whose_end_could_not_be_noted_is_ended_by_the_same_worker(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the batch comes to nothing, too: no row stays open, no version stays in the store."""
    finish, settle, refused = journal.finish, pipeline.settle, ["settled", "abandoned"]

    def full(*given: Any) -> None:
        if "settled" in refused:
            refused.remove("settled")
            raise StorageFull
        settle(*given)

    def full_again(connection: Connection, batch_id: int, outcome: str, now: datetime) -> bool:
        if outcome in refused:
            refused.remove(outcome)
            raise StorageFull
        return finish(connection, batch_id, outcome, now)

    monkeypatch.setattr(pipeline, "settle", full)
    monkeypatch.setattr(journal, "finish", full_again)
    erasure_id = place.accept(place.learnt[0])

    with working(worker_of(place)):
        eventually(lambda: place.status(erasure_id) == "forgotten")
        eventually(lambda: not place.rows(select(tables.batches.c.id).where(tables.batches.c.finished_at.is_(None))))

    assert refused == []
    versions = place.rows(select(tables.versions.c.version))
    assert place.store.numbers("versions") == sorted(row.version for row in versions)


@pytest.mark.P2
def test_two_workers_share_the_work_without_doing_it_twice(place: Home, stream: ErasureStream) -> None:
    """One works, the other stands by; each erasure is told once."""
    with working(worker_of(place, stream)), working(worker_of(place, stream)):
        ids = [place.accept(pair) for pair in place.learnt[:8]]
        eventually(lambda: {place.status(each) for each in ids} == {"forgotten"})

    assert place.events().count("erasure.forgotten") == 8


def test_a_worker_that_is_told_to_stop_finishes_its_batch(place: Home) -> None:
    """The batch at hand is settled before the worker ends."""
    applying, erasure_id = threading.Event(), place.accept(place.learnt[0])

    class Slow(UnlearningEngine):
        """The real engine; says when it applies."""

        def apply(self, plan: ResolvedBatch, fine_tune_epochs: int) -> ForgetResult:
            applying.set()
            return super().apply(plan, fine_tune_epochs)

    with working(worker_of(place, engine_of=Slow)) as worker:
        assert applying.wait(20)
        worker.stop.set()

    assert place.status(erasure_id) == "forgotten"
    assert place.one(select(tables.leases.c.holder)).holder == ""


def test_the_monitor_answers_for_operators(place: Home, stream: ErasureStream) -> None:
    """Liveness, readiness with its checks, metrics, and a problem for any other path or an unknown parameter."""
    worker = worker_of(place, stream)
    monitor = Monitor(worker, "127.0.0.1", 0)
    monitor.start()
    address = f"http://127.0.0.1:{monitor.port}"

    with working(worker):
        eventually(lambda: worker.status.base)
        live = json.load(urllib.request.urlopen(f"{address}/livez"))
        ready = json.load(urllib.request.urlopen(f"{address}/readyz"))
        metrics = urllib.request.urlopen(f"{address}/metrics").read().decode()
        with pytest.raises(urllib.error.HTTPError) as missing:
            urllib.request.urlopen(f"{address}/other")
        verbose = urllib.request.urlopen(f"{address}/readyz?verbose").status
        with pytest.raises(urllib.error.HTTPError) as unknown:
            urllib.request.urlopen(f"{address}/livez?dry_run=1")
    monitor.stop()

    assert live == {"status": "ok"}
    assert (ready["status"], ready["checks"]["unlearning"]["detail"]) == ("ok", "base 1")
    assert "expunge_worker_lease_held 1.0" in metrics
    assert 'expunge_invariant_violations_total{rule="outbox_age"}' in metrics
    assert json.loads(missing.value.read())["status"] == 404
    missing.value.close()
    assert (verbose, unknown.value.code, json.loads(unknown.value.read())["code"]) == (200, 422, "invalid_request")
    unknown.value.close()


def test_a_worker_without_a_schema_is_not_ready(settings: Settings) -> None:
    """It says what to run."""
    with opened(settings) as place:
        migrations.downgrade(settings.sql_url, "base")
        monitor = Monitor(worker_of(place), "127.0.0.1", 0)
        monitor.start()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{monitor.port}/readyz")
        monitor.stop()

    body = json.loads(refused.value.read())
    assert (refused.value.code, body["code"]) == (503, "not_ready")
    assert "expunge db upgrade" in body["checks"]["database"]["detail"]
    refused.value.close()
