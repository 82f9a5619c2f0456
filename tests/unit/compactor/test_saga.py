"""A compaction from its request to its end, with real trainings of sixty users."""

import asyncio

from service.audit.checkpoints import CheckpointPublisher
from service.audit.tlog.note import SigningKey
from service.compaction.steps import STEPS
from service.evidence import repository
from service.evidence.training_key import TrainingKey
from service.receipts import service as receipts
from service.receipts.document import Receipt
from service.receipts.page import render
from service.receipts.verification import Opening, verify
from tests.factories.compactions import TrainerHere, asked, compacting, compactor_of, state
from tests.factories.workers import Home, item, user, worker_of, working
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
