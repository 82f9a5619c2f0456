"""What the gate refuses after the encoder alone: put off, fine-tuned beside the others, held back in the end."""

import asyncio

import pytest
from sqlalchemy import select

from service.erasures import service as erasures
from service.platform import tables
from service.platform.obstacles import Obstacle
from service.worker import escalation as module
from service.worker.pipeline import GATE_REFUSED, Pipeline
from service.worker.repository import lineage
from tests.factories.workers import Home, engine_of, pipeline_of, waiting, worker_of
from tests.unit.worker.engines import Strict, poisonous


def strict(place: Home, needed: int = 0) -> Strict:
    """An engine whose gate asks for so many epochs, and never passes user 7."""
    engine = engine_of(place, kind=Strict)
    assert isinstance(engine, Strict)
    engine.needed, engine.asked = needed, []
    return engine


def escalate(pipeline: Pipeline, turns: int = 30) -> list[tuple[str, str]]:
    """Turns until nothing is put off any more; returns what was held back."""
    held = []
    for _ in range(turns):
        result = pipeline.escalation.turn()
        if result is None:
            break
        held += result
    return held


def waited_for(place: Home, erasure_id: str) -> list[Obstacle]:
    """What the service says that an erasure waits for."""

    async def ask() -> list[Obstacle]:
        erasure = await erasures.get(place.services, erasure_id)
        found = await erasures.waits(place.services, [erasure])
        return [obstacle for obstacle in found.values() if obstacle is not None]

    return asyncio.run(ask())


@pytest.fixture(autouse=True)
def _without_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST", 0.0)


def test_others_do_not_wait_for_what_the_gate_refuses(place: Home) -> None:
    """The rest of the batch settles at once, without an epoch of fine-tuning; the hard one waits and says for what."""
    first, hard, last = (place.accept(pair) for pair in (place.learnt[0], poisonous(place), place.learnt[9]))
    engine = strict(place)

    with pipeline_of(place, engine) as pipeline:
        held = pipeline.run(waiting(place))
        later = place.accept(place.learnt[20])
        pipeline.run(waiting(place))
        told = [obstacle.code for obstacle in waited_for(place, hard)]

    assert held == []
    assert {place.status(each) for each in (first, last, later)} == {"forgotten"}
    assert (place.status(hard), place.erasure(hard).needs) == ("accepted", "fine_tuning")
    assert set(engine.asked) == {0}
    assert told == ["fine_tuning"]


def test_what_was_put_off_is_fine_tuned_until_it_passes(place: Home) -> None:
    """The gate asks for two epochs: one is tried before, three are not."""
    erasure_id = place.accept(place.learnt[0])
    engine = strict(place, needed=2)

    with pipeline_of(place, engine) as pipeline:
        pipeline.run(waiting(place))
        escalate(pipeline)

    gate = place.one(select(tables.versions.c.gate).where(tables.versions.c.version == 2)).gate
    assert engine.asked == [0, 1, 2]
    assert gate["fine_tune_epochs"] == 2
    assert (place.status(erasure_id), place.erasure(erasure_id).needs) == ("forgotten", None)


@pytest.mark.P5
def test_what_the_gate_refuses_to_the_end_is_held_back(place: Home) -> None:
    """Put off together with others that fine-tuning helps: those settle, it stays suppressed and is told why."""
    good = [place.accept(pair) for pair in place.learnt[:3]]
    bad = place.accept(poisonous(place))

    with pipeline_of(place, strict(place, needed=1)) as pipeline:
        pipeline.run(waiting(place))
        held = escalate(pipeline)

    assert held == [(bad, GATE_REFUSED)]
    assert {place.status(each) for each in good} == {"forgotten"}
    assert (place.status(bad), place.erasure(bad).needs) == ("needs_attention", GATE_REFUSED)
    live = place.alias()
    assert live is not None
    assert place.degrees(live)[0][7] == place.degrees(1)[0][7]
    entry = place.one(
        select(tables.audit_entries.c.body).where(tables.audit_entries.c.event == "erasure.needs_attention")
    )
    assert "refused by the test" in entry.body


@pytest.mark.P10
def test_the_same_pair_sent_again_is_not_fine_tuned_again(place: Home) -> None:
    """The refusal is remembered over a restart, for this base and its encoders; another pair has its own try."""
    place.accept(poisonous(place))
    with pipeline_of(place, strict(place)) as pipeline:
        pipeline.run(waiting(place))
        escalate(pipeline)

    engine = strict(place)
    with pipeline_of(place, engine) as pipeline:
        again = place.accept(poisonous(place))
        held = pipeline.run(waiting(place))
        other = place.accept(next(pair for pair in place.learnt if pair[0] == 7 and pair != poisonous(place)))
        pipeline.run(waiting(place))

    assert held == [(again, GATE_REFUSED)]
    assert set(engine.asked) == {0}
    assert place.erasure(other).needs == "fine_tuning"

    engine = strict(place)
    engine.encoders = {"forget": 99}
    with pipeline_of(place, engine) as pipeline:
        anew = place.accept(poisonous(place))
        pipeline.run(waiting(place))

    assert place.erasure(anew).needs == "fine_tuning"


@pytest.mark.P10
def test_a_group_that_never_passes_costs_a_bounded_number_of_tries(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some halvings the rest is held back together."""
    monkeypatch.setattr(module, "SPLITS_MAX", 2)
    ids = [place.accept(pair) for pair in place.learnt[:8]]
    engine = strict(place, needed=99)

    with pipeline_of(place, engine) as pipeline:
        pipeline.run(waiting(place))
        held = escalate(pipeline)

    assert sorted(each for each, _ in held) == sorted(ids)
    assert len([epochs for epochs in engine.asked if epochs]) == 3 * (2 * 2 + 1)


def test_after_a_try_the_others_have_their_time(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """While others come, a try is followed by a rest; without anybody else the next one follows at once."""
    place.accept(place.learnt[0])
    engine = strict(place, needed=3)

    with pipeline_of(place, engine) as pipeline:
        pipeline.run(waiting(place))
        pipeline.escalation.turn()
        monkeypatch.setattr(module, "REST", 1e9)
        alone = pipeline.escalation.turn()
        pipeline.escalation.disturbed()
        beside_others = pipeline.escalation.turn()

    assert (alone, beside_others) == ([], None)


@pytest.mark.P2
def test_a_cancelled_one_leaves_its_group(place: Home) -> None:
    """Nobody wants it erased any more: the others of its group are tried without it."""
    kept, cancelled = (place.accept(pair) for pair in place.learnt[:2])

    with pipeline_of(place, strict(place, needed=2)) as pipeline:
        pipeline.run(waiting(place))
        pipeline.escalation.turn()
        place.cancel(cancelled)
        escalate(pipeline)

    assert (place.status(kept), place.status(cancelled)) == ("forgotten", "cancelled")


@pytest.mark.P6
def test_a_worker_that_starts_anew_counts_in_the_order_of_settling(place: Home) -> None:
    """One that was put off settles after later ones: manifests name it after them, before and after a restart."""
    place.accept(place.learnt[0])
    engine = strict(place, needed=1)

    with pipeline_of(place, engine) as pipeline:
        pipeline.run(waiting(place))
        engine.needed = 0
        place.accept(place.learnt[9])
        pipeline.run(waiting(place))
        escalate(pipeline)
        at_work = pipeline.forget_set

    ledger = worker_of(place)._forget_set(place.database.query(lineage.read_state))
    assert ledger.ids == at_work.ids
    assert ledger.targets.of_mode("forget").pairs.tolist() == at_work.targets.of_mode("forget").pairs.tolist()
    assert ledger.ids != sorted(ledger.ids)
