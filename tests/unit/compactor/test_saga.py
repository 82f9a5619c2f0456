"""A compaction from its request to its end, with real trainings of sixty users."""

import asyncio
import threading
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from service.audit.checkpoints import CheckpointPublisher
from service.audit.tlog.note import SigningKey
from service.compaction import service
from service.compaction.steps import STEPS
from service.compactor.jobs import TrainingDied, TrainingJob
from service.evidence import repository
from service.evidence.training_key import TrainingKey
from service.interactions import service as interactions
from service.interactions.service import snapshot
from service.models.problems import TrainingOvertaken
from service.platform import tables
from service.platform.clock import SystemClock
from service.receipts import service as receipts
from service.receipts.document import Receipt
from service.receipts.page import render
from service.receipts.verification import Opening, verify
from service.worker.lease import COMPACTOR, Lease
from service.worker.repository import lineage
from service.worker.training import learn, publish_base
from tests.factories.compactions import TrainerHere, asked, change, compacting, compactor_of, state
from tests.factories.workers import RECIPE, Home, item, user, worker_of, working
from tests.unit.worker.waiting import eventually

KEY = SigningKey("test.example/log", b"k" * 32)


def test_a_new_base_is_trained_on_what_remains_and_live_comes_from_it(place: Home) -> None:
    gone = place.learnt[:3]
    trainer = TrainerHere(place)
    with working(worker_of(place)), compacting(compactor_of(place, trainer)):
        erasure = place.accept(*gone)
        salt = place.erasure(erasure).salt
        eventually(lambda: place.status(erasure) == "forgotten")
        compaction = asked(place)
        eventually(lambda: state(place, compaction).status not in ("waiting", "running"), 60)

    done = state(place, compaction)
    assert (done.status, done.base_before, done.problem, done.erasures) == ("done", 1, None, 1)
    assert [step for step in STEPS if step in done.steps] == list(done.steps)
    assert all(step["seconds"] >= 0 for step in done.steps.values())
    assert trainer.seeds == [("training", 1), ("pretraining", 1), ("pretraining", 1)]
    live = place.alias()
    assert live is not None
    assert place.store.manifest("versions", live).facts.parent in (None, done.base_after)
    assert place.alias("base") == done.base_after
    edges = place.store.open("versions", done.base_after or 0, "base.safetensors")
    keys = place.store.open("versions", done.base_after or 0, "embeddings.safetensors")
    learnt = {
        (int(keys["user_keys"][u]) - 1, int(keys["item_keys"][i]) - 1)
        for name in ("edges", "validation")
        for u, i in edges[name].T
    }
    assert learnt == place.recorded()
    assert not learnt & set(gone)
    assert place.status(erasure) == "erased"
    row = place.erasure(erasure)
    assert (row.salt, row.reason, row.compaction_id) == (None, None, compaction)
    assert place.events(erasure) == ["erasure.accepted", "erasure.forgotten", "erasure.erased"]
    assert done.facts["residue"]["present"] is False
    assert place.store.numbers("versions")[0] == done.base_after
    assert list((place.settings.home / "purge").glob("*")) == []
    assert list((place.settings.home / "checkpoints").glob("*")) == []
    assert {"compaction.started", "compaction.done"} <= set(place.events())
    assert_receipt_verifies(place, erasure, salt, gone, done.base_after or 0)


def assert_receipt_verifies(place: Home, erasure: str, salt: str, gone: list[tuple[int, int]], base: int) -> None:
    """Final and exact, also by name, with the key that an auditor is given; the page shows it."""
    services = place.services
    publisher = CheckpointPublisher(place.database, KEY, services.clock)
    receipt = Receipt.parse(asyncio.run(receipts.issue(services, publisher, erasure)).json())
    named = [{"user_id": user(u), "item_id": item(i)} for u, i in gone]
    dataset_hash = place.database.query(lambda connection: repository.dataset_hash(connection, base))
    training_key = TrainingKey.derived(services.identity, base, dataset_hash or "")

    found = verify(receipt, [KEY.verifier], opening=Opening(salt, named), training_key=training_key)

    assert (found.statement["status"], found.statement["final"]) == ("erased", True)
    assert found.absence is not None
    assert (found.absence.targets, found.absence.shown, found.absence.named) == (3, 3, 3)
    assert found.evidence is not None
    assert found.evidence["base_after"] == base
    assert "Of 3 targets named, 3 are proven not to be in it." in render(receipt)


def asked_for(place: Home) -> str:
    """Ask for a compaction after new feedback: there is something to train for."""
    asyncio.run(interactions.record(place.services, [(user(0), item(1))]))
    return asked(place)


def bases(place: Home) -> list[int]:
    """Numbers in the store."""
    return place.store.numbers("versions")


@pytest.mark.P5
def test_a_worse_base_is_tried_once_more_and_leaves_nothing(place: Home) -> None:
    """The old one serves on; why is on record; nothing of the attempts is in the store."""
    strict = replace(place, settings=place.settings.model_copy(update={"compaction_min_quality": 1.0}))
    trainer = TrainerHere(strict)
    compactor = compactor_of(strict, trainer)
    compaction = asked_for(strict)
    worse = {"ndcg_at_20": 2.0}  # no base ranks like that
    row = strict.one(select(tables.versions.c.manifest).where(tables.versions.c.version == 1))
    strict.database.transact(lambda write: lineage.set_manifest(write, 1, {**row.manifest, "metrics": worse}))

    compactor.round()

    refused = state(strict, compaction)
    assert (refused.status, refused.problem, refused.base_after) == ("refused", "compaction_refused", None)
    assert trainer.seeds == [("training", 1), ("training", 2)]
    assert [attempt["reasons"] for attempt in refused.facts["attempts"]] == [["quality"], ["quality"]]
    assert (bases(strict), strict.alias(), strict.alias("base")) == ([1], 1, 1)
    assert list((strict.settings.home / "checkpoints").glob("*")) == []
    assert "compaction.refused" in strict.events()


@pytest.mark.parametrize("kind", ["training", "pretraining"])
def test_a_cancelled_one_leaves_nothing(place: Home, kind: str) -> None:
    """Cancelled while it trains: the training stops, and its base and files are taken away."""

    def cancel(job: TrainingJob) -> None:
        if job.kind == kind:
            asyncio.run(service.cancel(place.services, job.compaction))

    compaction = asked_for(place)
    compactor_of(place, TrainerHere(place, cancel)).round()

    assert (state(place, compaction).status, state(place, compaction).base_after) == ("cancelled", None)
    assert (bases(place), place.alias("base")) == ([1], 1)
    assert place.store.numbers("encoders") == [1, 2]
    assert list((place.settings.home / "checkpoints").glob("*")) == []


def test_a_training_that_dies_again_and_again_is_failed(place: Home) -> None:
    """Five tries that came no further; then a person is asked."""

    def die(job: TrainingJob) -> None:
        raise TrainingDied

    trainer = TrainerHere(place, die)
    compactor = compactor_of(place, trainer)
    compactor.stop.wait = lambda seconds: False  # type: ignore[method-assign, assignment]
    compaction = asked_for(place)

    compactor.round()

    assert (state(place, compaction).status, state(place, compaction).problem) == ("failed", "compaction_crashed")
    assert len(trainer.jobs) == place.settings.max_attempts


def test_there_is_never_a_second_one(place: Home) -> None:
    """Who asks while one waits or runs gets that one; a second compactor stands by; a training by hand is told."""
    first = asked(place)
    assert asked(place) == first

    other = Lease(place.database, seconds=30, clock=SystemClock(), name=COMPACTOR)
    assert other.acquire(threading.Event())
    trainer = TrainerHere(place)
    compactor_of(place, trainer).round()

    assert trainer.jobs == []
    assert (state(place, first).status, state(place, first).problem) == ("waiting", "training_underway")
    other.release()


def test_one_that_lost_its_lease_publishes_nothing(place: Home) -> None:
    """Paused too long while it trained: the base is refused where it would be put on record, and leaves the store."""

    def usurp(job: TrainingJob) -> None:
        place.database.transact(
            lambda write: write.execute(update(tables.leases).where(tables.leases.c.name == COMPACTOR).values(epoch=99))
        )

    compaction = asked_for(place)
    compactor_of(place, TrainerHere(place, usurp)).round()

    assert (state(place, compaction).status, state(place, compaction).base_after) == ("running", None)
    assert bases(place) == [1]


@pytest.mark.P4
def test_a_base_of_older_data_than_a_compaction_s_is_refused(place: Home) -> None:
    """It would bring back what was purged since."""
    with place.database.read() as connection:
        data = snapshot(connection)
    learnt = learn(place.settings, data, RECIPE, place.settings.home / "checkpoints" / "mine.npz")
    place.accept(place.learnt[0])
    compaction = asked(place)
    change(place, compaction, status="done", snapshot_seq=data.seq + 1)

    with pytest.raises(TrainingOvertaken):
        publish_base(place.database, place.store, learnt)

    assert bases(place) == [1]


def test_where_nothing_learnt_is_erased_nothing_is_trained(place: Home) -> None:
    """The base in use was trained on exactly what remains: only the end is left to do."""
    trainer = TrainerHere(place)
    with working(worker_of(place)):
        erasure = place.accept((900, 1))
        eventually(lambda: place.status(erasure) == "forgotten")
        compaction = asked(place)
        compactor_of(place, trainer).round()

    done = state(place, compaction)
    assert (done.status, done.base_before, done.base_after, trainer.jobs) == ("done", 1, 1, [])
    assert place.status(erasure) == "erased"
