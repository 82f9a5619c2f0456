"""Bases and encoders, from SQL to the store."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sqlalchemy import select

import migrations
from model_store import ModelStore
from service.models.problems import FarWorse, NoBase, NothingToLearn
from service.platform import tables
from service.platform.database import Database
from service.platform.identity import load_identity
from service.recommender.soundness import Diverged, Unsound
from service.settings import Settings
from service.unlearning.pretraining import PretrainingConfig
from service.worker.encoders import pretrain
from service.worker.pipeline import UNLEARNING_FAILED, Unlearnable
from service.worker.training import train_base
from tests.factories.workers import RECIPE, Home, pipeline_of, teach, waiting, worker_of, working
from tests.unit.worker.waiting import eventually


def test_the_first_base_is_live(place: Home) -> None:
    """It names its data, its recipe and its encoders."""
    row = place.one(select(tables.versions))
    facts = place.store.manifest("versions", 1).facts

    assert (place.alias("live"), place.store.alias("live")) == (1, 1)
    assert (row.kind, row.base) == ("base", 1)
    assert row.manifest["encoders"] == {"forget": 1, "dislike": 2}
    assert facts.config["training"]["epochs"] == RECIPE.training.epochs
    assert place.store.manifest("encoders", 1).facts.parent == 1
    assert place.events()[:2] == ["version.published", "alias.moved"]


def test_a_base_never_learns_what_is_suppressed(place: Home) -> None:
    """An erasure that is only accepted keeps its pairs out of the next base."""
    place.accept(place.learnt[0])
    place.accept(users=[3])

    base = train_base(place.database, place.store, place.settings, RECIPE)

    edges = place.store.open("versions", base.version, "base.safetensors")["edges"]
    keys = place.store.open("versions", base.version, "embeddings.safetensors")["user_keys"]
    assert 4 not in keys[edges[0]]
    assert base.n_users == 59
    assert not base.live


@pytest.mark.P6
def test_a_base_trained_again_on_the_same_data_is_the_same(place: Home) -> None:
    """Its bytes follow from the data, the recipe and the seed."""
    second = train_base(place.database, place.store, place.settings, RECIPE)

    for file in ("base.safetensors", "embeddings.safetensors"):
        first_tensors = place.store.open("versions", 1, file)
        for name, array in place.store.open("versions", second.version, file).items():
            assert np.array_equal(first_tensors[name], array), name


@pytest.mark.P4
def test_a_new_base_replaces_the_old_one_with_what_was_forgotten_meanwhile(place: Home) -> None:
    """Erasures settled after its data was read are forgotten from it before it serves."""
    before_it = place.accept(place.learnt[0])
    with working(worker_of(place)):
        eventually(lambda: place.status(before_it) == "forgotten")
    base = train_base(place.database, place.store, place.settings, RECIPE, go_live=True)
    after_it = place.accept(place.learnt[9])
    with working(worker_of(place)):
        eventually(lambda: place.status(after_it) == "forgotten")
    live_without_encoder = place.alias()

    recipe = PretrainingConfig(steps=0)
    assert pretrain(place.database, place.store, place.settings, recipe).base == base.version
    with working(worker_of(place)):
        eventually(lambda: place.alias() not in (live_without_encoder, None))

    live = place.alias()
    row = place.one(select(tables.versions).where(tables.versions.c.version == live))
    assert (row.base, row.kind) == (base.version, "forgotten")
    assert row.erasure_seq >= place.erasure(after_it).seq
    user = place.learnt[9][0]
    degrees = place.store.open("versions", row.version, "embeddings.safetensors")["user_degrees"]
    of_base = place.store.open("versions", base.version, "embeddings.safetensors")["user_degrees"]
    assert of_base[user] - degrees[user] == 1
    assert waiting(place) == ()


@pytest.mark.P1
def test_a_new_base_frees_what_was_held_back(place: Home) -> None:
    """It was trained without it, so there is nothing left that could be refused."""
    erasure_id = place.accept(place.learnt[0])
    with pipeline_of(place) as pipeline:
        pipeline.hold(waiting(place), Unlearnable(UNLEARNING_FAILED, {}))
    seq_before = place.erasure(erasure_id).seq

    base = teach(place, go_live=True, modes=["forget"])
    with working(worker_of(place)):
        eventually(lambda: place.status(erasure_id) == "forgotten")

    row = place.erasure(erasure_id)
    assert (row.version_after, row.needs, row.batch_id > 0) == (base, None, True)
    assert row.seq > seq_before
    assert place.events(erasure_id) == [
        "erasure.accepted",
        "erasure.needs_attention",
        "erasure.accepted_again",
        "erasure.forgotten",
    ]


def test_a_new_base_with_nothing_to_forget_serves_itself(place: Home) -> None:
    """No version is made where the base is what is wanted."""
    base = teach(place, go_live=True, modes=["forget"])

    with working(worker_of(place)):
        eventually(lambda: place.alias() == base)

    assert place.store.numbers("versions") == [1, base]


def test_the_second_mode_learns_from_the_shadow_of_the_first(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a forgotten pair should score does not depend on the mode: one shadow a base is enough."""
    monkeypatch.setattr("service.unlearning.shadow.FEWEST_PAIRS", 1)
    asked = (place.database, place.store, place.settings)
    first = pretrain(*asked, PretrainingConfig(mode="forget"))

    monkeypatch.delattr("service.unlearning.shadow.Shadow.train")
    second = pretrain(*asked, PretrainingConfig(mode="dislike"))

    assert first.pretraining.encoder.expectation is not None
    taught, learnt = (each.pretraining.encoder.tensors() for each in (second, first))
    assert torch.equal(taught["expectation_weight"], learnt["expectation_weight"])


def test_too_little_data_is_refused(settings: Settings) -> None:
    """An empty database trains nothing and says what to do."""
    migrations.upgrade(settings.sql_url)
    database = Database(settings.sql_url)
    store = ModelStore(settings.store_root, key=load_identity(settings).derive("manifest"))

    with pytest.raises(NothingToLearn, match="Import"):
        train_base(database, store, settings, RECIPE)
    with pytest.raises(NoBase):
        pretrain(database, store, settings, PretrainingConfig(steps=0))
    database.close()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"learning_rate": 1e30, "final_learning_rate": 1e30, "epochs": 1}, Unsound),
        ({"learning_rate": 1e30, "final_learning_rate": 1e30}, Diverged),
        ({"learning_rate": 50.0, "final_learning_rate": 50.0}, Diverged),
        ({"init_scale": 1e-25, "learning_rate": 1e-30, "final_learning_rate": 1e-30, "epochs": 1}, Unsound),
    ],
)
def test_a_model_that_must_not_serve_is_never_published(place: Home, changes: dict[str, float], error: type) -> None:
    """Neither as the first base nor to replace one: what serves goes on serving."""
    recipe = replace(RECIPE, training=replace(RECIPE.training, **changes))

    with pytest.raises(error, match="learning rate"):
        train_base(place.database, place.store, place.settings, recipe, go_live=True)

    assert (place.alias(), place.alias("base")) == (1, 1)
    assert place.store.numbers("versions") == [1]
    assert not list((place.settings.home / "checkpoints").glob("*"))


def test_a_base_far_worse_than_the_one_in_use_is_published_only_where_that_is_meant(place: Home) -> None:
    """Its figures are named; whoever means it says so."""
    poor = replace(RECIPE, training=replace(RECIPE.training, epochs=1, learning_rate=1e-9, final_learning_rate=1e-9))

    with pytest.raises(FarWorse, match="that of base 1, which is in use"):
        train_base(place.database, place.store, place.settings, poor)

    assert place.store.numbers("versions") == [1]
    assert train_base(place.database, place.store, place.settings, replace(poor, accept_worse=True)).version == 2
