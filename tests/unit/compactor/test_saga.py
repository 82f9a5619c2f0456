"""A compaction from its request to its end, with real trainings of sixty users."""

from service.compaction.steps import STEPS
from tests.factories.compactions import TrainerHere, asked, compacting, compactor_of, state
from tests.factories.workers import Home, worker_of, working
from tests.unit.worker.waiting import eventually


def test_a_new_base_is_trained_on_what_remains_and_live_comes_from_it(place: Home) -> None:
    gone = place.learnt[:3]
    trainer = TrainerHere(place)
    with working(worker_of(place)), compacting(compactor_of(place, trainer)):
        erasure = place.accept(*gone)
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
