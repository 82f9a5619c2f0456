"""What a batch of erasures comes to."""

import asyncio
import hashlib
import json
from collections.abc import Callable

import numpy as np
import pytest
from sqlalchemy import select

from model_store import Unwritable
from service.erasures import decisions
from service.erasures import service as erasures
from service.erasures.grounds import DecisionOutcome, RefusalGround
from service.erasures.views import state_body
from service.evaluation.gate import GateReport
from service.platform import tables
from service.unlearning.encoder import InfluenceEncoder, OutdatedEncoder
from service.unlearning.protocol import ForgetResult
from service.worker.engine import EncoderMissing, ResolvedBatch, UnlearningEngine
from service.worker.lease import Fenced
from service.worker.pipeline import UNLEARNING_FAILED
from tests.factories.workers import N_USERS, PAIRS, Home, engine_of, pipeline_of, waiting
from tests.unit.worker.engines import POISON, Strict, poisonous


class Poisoned(UnlearningEngine):
    """The real engine, but that it fails on any batch that names user 7."""

    def apply(self, plan: ResolvedBatch, fine_tune_epochs: int) -> ForgetResult:
        if bool((plan.batch.edges[0] == POISON).any()):
            raise RuntimeError("arithmetic")
        return super().apply(plan, fine_tune_epochs)


class Lenient(UnlearningEngine):
    """The real engine with a gate that passes everything: it measures, and the test decides."""

    def gate(self, plan: ResolvedBatch, result: ForgetResult) -> GateReport:
        return GateReport(True, super().gate(plan, result).figures, ())


def test_an_erasure_is_forgotten_and_its_version_live(place: Home) -> None:
    """A pair goes out of the model, out of SQL, and into the log, together."""
    erased = place.learnt[0]
    erasure_id = place.accept(erased)

    with pipeline_of(place) as pipeline:
        held = pipeline.run(waiting(place))

    row = place.erasure(erasure_id)
    users, items = place.degrees(2)
    users_before, items_before = place.degrees(1)
    assert held == []
    assert (row.status, row.version_before, row.version_after) == ("forgotten", 1, 2)
    assert (place.alias("live"), place.alias("previous")) == (2, 1)
    assert users_before[erased[0]] - users[erased[0]] == 1
    assert items_before[erased[1]] - items[erased[1]] == 1
    assert erased not in place.recorded()
    assert len(place.recorded()) == len(PAIRS) - 1
    assert place.events(erasure_id) == ["erasure.accepted", "erasure.forgotten"]


def test_every_stage_of_an_erasure_is_timed(place: Home) -> None:
    """The record of an erasure says when each stage ended and how long it took."""
    erasure_id = place.accept(place.learnt[0])

    with pipeline_of(place) as pipeline:
        pipeline.run(waiting(place))

    stages = place.erasure(erasure_id).stages
    assert list(stages) == ["accepted", "queued", "applied", "gated", "published", "settled"]
    assert all(stage["seconds"] >= 0 and stage["at"].endswith("Z") for stage in stages.values())


@pytest.mark.P6
def test_a_version_does_not_depend_on_how_erasures_were_batched(place: Home) -> None:
    """Requests are cumulative: one batch of three and three batches of one give the same bytes."""
    with pipeline_of(place) as pipeline:
        for pair in place.learnt[:3]:
            place.accept(pair)
            pipeline.run(waiting(place))
    stepwise = place.store.open("versions", 4, "embeddings.safetensors")

    engine = engine_of(place)
    targets = pipeline.forget_set.targets
    at_once = engine.embeddings(engine.apply(engine.resolve(type(targets)(), targets), 0))

    assert set(stepwise) == set(at_once)
    for name, array in at_once.items():
        assert np.array_equal(stepwise[name], array), name


@pytest.mark.P6
def test_a_manifest_names_its_base_its_encoders_and_its_erasures(place: Home) -> None:
    """What is needed to make a version again is in its manifest."""
    first, second = place.accept(place.learnt[0]), place.accept(place.learnt[9])

    with pipeline_of(place) as pipeline:
        pipeline.run(waiting(place)[:1])
        pipeline.run(waiting(place))

    facts = place.store.manifest("versions", 3).facts
    digest = hashlib.sha256(f"{first}\n{second}\n".encode()).hexdigest()
    assert (facts.parent, facts.kind) == (1, "forgotten")
    assert facts.encoders == {"forget": 1, "dislike": 2}
    assert (facts.requests.count, facts.requests.digest) == (2, digest)
    assert facts.gate["passed"]
    assert facts.dataset_hash == place.store.manifest("versions", 1).facts.dataset_hash


def test_a_whole_user_is_reset(place: Home) -> None:
    """Nothing of an erased user's vector is left."""
    place.accept(users=[3])

    with pipeline_of(place) as pipeline:
        pipeline.run(waiting(place))

    vectors = place.store.open("versions", 2, "embeddings.safetensors")
    assert not vectors["users"][3].any()
    assert place.degrees(2)[0][3] == 0
    assert not [pair for pair in place.recorded() if pair[0] == 3]


def test_a_whole_item_is_reset(place: Home) -> None:
    """Nothing of an erased item's vector is left."""
    place.accept(items=[5])

    with pipeline_of(place) as pipeline:
        pipeline.run(waiting(place))

    vectors = place.store.open("versions", 2, "embeddings.safetensors")
    assert not vectors["items"][5].any()
    assert place.degrees(2)[1][5] == 0


def test_what_the_model_never_learnt_makes_no_version(place: Home) -> None:
    """An unknown user and a pair without an interaction are forgotten; no version has anything to do with it."""
    never = next((u, i) for u in range(N_USERS) for i in range(5) if (u, i) not in set(PAIRS))
    ids = [place.accept(never), place.accept((900, 1)), place.accept(users=[901])]

    with pipeline_of(place) as pipeline:
        pipeline.run(waiting(place))

    assert [place.status(each) for each in ids] == ["forgotten"] * 3
    assert {(place.erasure(each).version_before, place.erasure(each).version_after) for each in ids} == {(None, None)}
    assert place.alias() == 1
    assert place.store.numbers("versions") == [1]
    assert place.one(select(tables.versions)).erasure_seq == place.erasure(ids[-1]).seq


def test_an_erasure_that_is_asked_for_twice_makes_one_version(place: Home) -> None:
    """The second erasure of a pair matches nothing any more: the version that lacks it was made for the first."""
    first = place.accept(place.learnt[0])
    with pipeline_of(place) as pipeline:
        pipeline.run(waiting(place))
        second = place.accept(place.learnt[0])
        pipeline.run(waiting(place))

    assert (place.erasure(first).version_after, place.erasure(second).version_after) == (2, None)
    assert place.status(second) == "forgotten"


def test_an_erasure_that_matched_nothing_carries_no_figures_of_another(place: Home) -> None:
    """Neither of the version of its own batch nor of the one that was live: nothing was forgotten by a version."""
    real, nothing = place.accept(place.learnt[0]), place.accept((900, 1), users=[901])
    with pipeline_of(place) as pipeline:
        pipeline.run(waiting(place))
        late = place.accept((902, 1))
        pipeline.run(waiting(place))

    stories = {each: asyncio.run(erasures.get(place.services, each)) for each in (real, nothing, late)}
    entries = place.rows(select(tables.audit_entries).where(tables.audit_entries.c.event == "erasure.forgotten"))
    told = {entry.erasure_id: (entry.version, json.loads(entry.body)["body"]) for entry in entries}
    assert (stories[real].version_after, told[real][0]) == (2, 2)
    assert stories[real].gate is not None
    assert stories[real].gate == told[real][1]["gate"]
    assert state_body(stories[real])["model_changed"] is told[real][1]["model_changed"] is True
    for each in (nothing, late):
        assert (stories[each].version_before, stories[each].version_after, stories[each].gate) == (None, None, None)
        assert state_body(stories[each])["model_changed"] is False
        version, body = told[each]
        assert version is None
        assert body == {"gate": None, "mode": "forget", "model_changed": False, "version_before": None}


def test_both_modes_are_forgotten_in_one_version(place: Home) -> None:
    """A batch may mix modes; each goes through its own encoder."""
    place.accept(place.learnt[0])
    place.accept(place.learnt[9], mode="dislike")

    with pipeline_of(place, engine_of(place, kind=Lenient)) as pipeline:
        pipeline.run(waiting(place))

    before, after = place.degrees(1)[0], place.degrees(2)[0]
    assert before.sum() - after.sum() == 2


@pytest.mark.P9
def test_an_erasure_cancelled_while_its_batch_runs_is_not_forgotten(place: Home) -> None:
    """The batch is done anew without it: no live version lacks what nobody wants erased."""
    kept, cancelled = place.accept(place.learnt[0]), place.accept(place.learnt[9])

    with pipeline_of(place) as pipeline:
        batch = waiting(place)
        during(pipeline.engine, lambda: place.cancel(cancelled))
        pipeline.run(batch)

    live = place.alias()
    assert live is not None
    users, _ = place.degrees(live)
    assert (place.status(kept), place.status(cancelled)) == ("forgotten", "cancelled")
    assert users[place.learnt[9][0]] == place.degrees(1)[0][place.learnt[9][0]]
    assert place.learnt[9] in place.recorded()
    assert place.store.manifest("versions", live).facts.requests.count == 1
    assert place.store.numbers("versions") == [1, live]


@pytest.mark.P4
@pytest.mark.P9
def test_an_erasure_refused_or_held_while_its_batch_runs_is_not_forgotten(place: Home) -> None:
    """Its record stays; once the hold is lifted it is forgotten like any other, by a later version."""
    pairs = place.learnt[0], place.learnt[9], place.learnt[30]
    kept, refused, held = (place.accept(pair) for pair in pairs)

    def decide() -> None:
        ground = RefusalGround.LEGAL_OBLIGATION
        asyncio.run(decisions.decide(place.services, refused, DecisionOutcome.REFUSED, ground))
        asyncio.run(decisions.set_hold(place.services, held))

    with pipeline_of(place) as pipeline:
        batch = waiting(place)
        during(pipeline.engine, decide)
        pipeline.run(batch)

        assert [place.status(each) for each in (kept, refused, held)] == ["forgotten", "refused", "needs_attention"]
        assert place.store.manifest("versions", place.alias() or 0).facts.requests.count == 1
        assert pairs[0] not in place.recorded()
        assert {*pairs[1:]} <= {*place.recorded()}

        asyncio.run(decisions.lift_hold(place.services, held))
        pipeline.run(waiting(place))

    assert place.status(held) == "forgotten"
    assert place.store.manifest("versions", place.alias() or 0).facts.requests.count == 2
    assert pairs[1] in place.recorded()
    assert pairs[2] not in place.recorded()


@pytest.mark.P9
def test_a_batch_whose_only_erasure_was_cancelled_comes_to_nothing(place: Home) -> None:
    """Nothing is published and nothing moves."""
    cancelled = place.accept(place.learnt[0])

    with pipeline_of(place) as pipeline:
        batch = waiting(place)
        during(pipeline.engine, lambda: place.cancel(cancelled))
        pipeline.run(batch)

    assert place.alias() == 1
    assert place.store.numbers("versions") == [1]
    assert "erasure.forgotten" not in place.events()


@pytest.mark.P9
def test_an_erasure_accepted_while_a_batch_runs_belongs_to_the_next_one(place: Home) -> None:
    """The version of the batch does not claim to cover it."""
    first, late = place.accept(place.learnt[0]), list[str]()

    with pipeline_of(place) as pipeline:
        batch = waiting(place)
        during(pipeline.engine, lambda: late.append(place.accept(place.learnt[9])))
        pipeline.run(batch)

        version = place.one(select(tables.versions).where(tables.versions.c.version == 2))
        assert place.status(late[0]) == "accepted"
        assert place.erasure(first).seq == version.erasure_seq < place.erasure(late[0]).seq

        pipeline.run(waiting(place))
    assert place.status(late[0]) == "forgotten"
    assert place.alias() == 3


@pytest.mark.P1
def test_a_poisonous_erasure_is_set_aside_and_the_rest_goes_on(place: Home) -> None:
    """One of eight makes the arithmetic fail: seven are forgotten, one needs attention and stays suppressed."""
    pairs = [pair for pair in place.learnt if pair[0] < 7][::4][:7]
    good = [place.accept(pair) for pair in pairs[:3]]
    bad = place.accept(poisonous(place))
    good += [place.accept(pair) for pair in pairs[3:]]

    with pipeline_of(place, engine_of(place, kind=Poisoned)) as pipeline:
        held = pipeline.run(waiting(place))

    in_order = [place.erasure(each).version_after for each in good]
    assert held == [(bad, UNLEARNING_FAILED)]
    assert in_order == sorted(in_order)
    assert {place.status(each) for each in good} == {"forgotten"}
    assert (place.status(bad), place.erasure(bad).needs) == ("needs_attention", UNLEARNING_FAILED)
    assert place.events(bad) == ["erasure.accepted", "erasure.needs_attention"]
    assert place.rows(select(tables.suppressions).where(tables.suppressions.c.erasure_id == bad))
    assert poisonous(place) in place.recorded()


def test_a_lone_failure_is_tried_again_before_it_is_set_aside(place: Home) -> None:
    """A failure that goes away by itself needs nobody's attention."""
    erasure_id = place.accept(place.learnt[0])

    with pipeline_of(place) as pipeline:
        failures = failing(pipeline.engine, times=place.settings.max_attempts - 1)
        held = pipeline.run(waiting(place))

    assert (held, place.status(erasure_id), failures) == ([], "forgotten", [])


@pytest.mark.P10
def test_a_batch_that_the_gate_refuses_as_a_whole_costs_a_bounded_number_of_tries(place: Home) -> None:
    """When no half passes either, the rest is put off together, and nothing is fine-tuned on the way."""
    ids = [place.accept(pair) for pair in place.learnt[:16]]
    engine = engine_of(place, kind=Strict)
    assert isinstance(engine, Strict)
    engine.needed = 99

    with pipeline_of(place, engine) as pipeline:
        held = pipeline.run(waiting(place))

    assert held == []
    assert {(place.status(each), place.erasure(each).needs) for each in ids} == {("accepted", "fine_tuning")}
    assert set(engine.asked) == {0}
    assert len(engine.asked) <= 16


@pytest.mark.P2
def test_a_worker_that_lost_its_lease_settles_nothing(place: Home) -> None:
    """Another took over while the batch ran: what was published is taken away, the erasure waits for the other."""
    erasure_id = place.accept(place.learnt[0])

    with pipeline_of(place) as pipeline:
        batch = waiting(place)
        during(pipeline.engine, lambda: take_over(place))
        with pytest.raises(Fenced):
            pipeline.run(batch)

    assert place.status(erasure_id) == "accepted"
    assert place.alias() == 1
    assert place.store.numbers("versions") == [1]


@pytest.mark.P2
def test_losing_the_lease_at_the_last_moment_settles_nothing(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The epoch is confirmed in the very transaction that settles."""
    erasure_id = place.accept(place.learnt[0])

    def at(point: str) -> None:
        if point == "worker.before_settle":
            take_over(place)

    with pipeline_of(place) as pipeline:
        monkeypatch.setattr("service.worker.pipeline.fault_point", at)
        with pytest.raises(Fenced):
            pipeline.run(waiting(place))

    assert (place.status(erasure_id), place.alias()) == ("accepted", 1)


@pytest.mark.P5
def test_a_store_that_cannot_be_written_changes_nothing(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full: the batch comes to nothing, and succeeds when there is room again."""
    erasure_id = place.accept(place.learnt[0])

    with pipeline_of(place) as pipeline:
        with monkeypatch.context() as patch:
            patch.setattr("model_store.files.write_new", full_disk)
            with pytest.raises(Unwritable):
                pipeline.run(waiting(place))
        assert (place.status(erasure_id), place.alias()) == ("accepted", 1)
        assert place.store.numbers("versions") == [1]

        pipeline.run(waiting(place))
    assert place.status(erasure_id) == "forgotten"


def test_without_an_encoder_erasures_wait(place: Home) -> None:
    """A base that was not pre-trained is nobody's fault: nothing is set aside."""
    erasure_id = place.accept(place.learnt[0])

    engine = UnlearningEngine(place.store, 1, {}, place.settings)
    with pipeline_of(place, engine) as pipeline, pytest.raises(EncoderMissing):
        pipeline.run(waiting(place))

    assert place.status(erasure_id) == "accepted"


def test_an_encoder_of_another_version_is_not_used(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an upgrade that learns otherwise: erasures wait for a new encoder, none is forgotten amiss."""
    erasure_id = place.accept(place.learnt[0])

    def outdated(*_: object) -> None:
        raise OutdatedEncoder

    monkeypatch.setattr(InfluenceEncoder, "from_tensors", outdated)

    with pipeline_of(place) as pipeline, pytest.raises(EncoderMissing, match="another version"):
        pipeline.run(waiting(place))

    assert place.status(erasure_id) == "accepted"


def during(engine: object, action: Callable[[], object]) -> None:
    """Do something, once, while the engine applies the batch."""
    assert isinstance(engine, UnlearningEngine)
    apply, pending = engine.apply, [action]

    def applying(plan: ResolvedBatch, fine_tune_epochs: int) -> ForgetResult:
        while pending:
            pending.pop()()
        return apply(plan, fine_tune_epochs)

    engine.apply = applying  # type: ignore[method-assign]


def failing(engine: object, times: int) -> list[int]:
    """Make the engine fail so many times; returns what is left of them."""
    assert isinstance(engine, UnlearningEngine)
    apply, left = engine.apply, list(range(times))

    def sometimes(plan: ResolvedBatch, fine_tune_epochs: int) -> ForgetResult:
        if left:
            left.pop()
            raise RuntimeError("passing trouble")
        return apply(plan, fine_tune_epochs)

    engine.apply = sometimes  # type: ignore[method-assign]
    return left


def take_over(place: Home) -> None:
    """Another worker takes the lease."""
    lease = tables.leases
    with place.database.write() as connection:
        connection.execute(lease.update().values(epoch=lease.c.epoch + 1, holder="another"))


def full_disk(*_: object) -> None:
    """What writing to a full disk does."""
    raise OSError(28, "No space left on device")
