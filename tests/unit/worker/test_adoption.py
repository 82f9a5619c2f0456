"""A model that this project did not train, here a truncated SVD of SciPy, becomes a base that serves and forgets."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds

from service.interactions.refusals import DataProblem
from service.interactions.vectors import Vectors
from service.models.problems import NothingToLearn
from service.platform.clock import SystemClock
from service.platform.identity import load_identity
from service.purge import repository
from service.recommender.backbones import LightGCN
from service.recommender.soundness import Unsound
from service.settings import load_settings
from service.unlearning.pretraining import PretrainingConfig
from service.worker.adoption import AdoptionResult, ExternalModel, MayKnowErased, adopt_base
from service.worker.encoders import pretrain
from service.worker.repository import queue
from tests.factories.workers import (
    N_ITEMS,
    N_USERS,
    OPEN_GATE,
    PAIRS,
    QUICK,
    Home,
    fill,
    item,
    opened,
    user,
    worker_of,
    working,
)
from tests.unit.worker.waiting import eventually

HELD_OUT = PAIRS[::8]
LEARNT = sorted(set(PAIRS) - set(HELD_OUT))


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Home]:
    """A home with interactions and no model."""
    with opened(load_settings(home=tmp_path / "home", **QUICK, **OPEN_GATE)) as home:
        fill(home)
        yield home


def svd(pairs: Sequence[tuple[int, int]] = LEARNT, rank: int = 12) -> Vectors:
    """Factors of the 0/1 matrix; the file names its rows in an order of its own, and two people nobody knows."""
    users, items = np.array(pairs).T
    left, values, right = svds(csr_matrix((np.ones(len(pairs)), (users, items)), (N_USERS, N_ITEMS)), rank, rng=0)
    order = np.random.default_rng(1).permutation(N_USERS)
    rows = np.concatenate(((left * values)[order], np.ones((2, rank)))).astype(np.float32)
    names = (*(user(number) for number in order), "nobody", "no one")
    columns = np.ascontiguousarray(right.T[::-1], np.float32)
    return Vectors(rows, columns, names, tuple(item(number) for number in reversed(range(N_ITEMS))), "0" * 64)


def foreign(vectors: Vectors | None = None, held_out: Sequence[tuple[int, int]] = HELD_OUT) -> ExternalModel:
    return ExternalModel(vectors or svd(), [(user(u), item(i)) for u, i in held_out])


def adopt(home: Home, model: ExternalModel) -> AdoptionResult:
    return adopt_base(home.database, home.store, load_identity(home.settings), model)


def scores(home: Home, version: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """(users, items) by number: keys count from 1."""
    tensors = home.store.open("versions", version, "embeddings.safetensors")
    assert np.array_equal(tensors["user_keys"], np.arange(N_USERS) + 1)
    return np.asarray(tensors["users"]) @ np.asarray(tensors["items"]).T


def test_it_serves_the_scores_of_the_model_it_was_given(bare: Home) -> None:
    """Whatever the order of the rows in the file; and the first base is live at once."""
    adopted = adopt(bare, foreign())

    users, items = np.array(LEARNT).T
    matrix = csr_matrix((np.ones(len(LEARNT)), (users, items)), (N_USERS, N_ITEMS))
    left, values, right = svds(matrix, 12, rng=0)
    np.testing.assert_allclose(scores(bare, 1), (left * values) @ right, atol=1e-5)
    assert (adopted.base.version, adopted.base.live, bare.alias()) == (1, True, 1)
    assert (adopted.unused_users, adopted.unused_items) == (2, 0)
    assert adopted.base.n_edges == len(LEARNT)
    assert adopted.base.n_validation == len(HELD_OUT) - adopted.unused_held_out
    assert adopted.held_out_auc > 0.6
    config = bare.store.manifest("versions", 1).facts.config
    assert config["adopted"] == "0" * 64
    assert config["backbone"]["name"] == "matrix_factorisation"
    assert "training" not in config


def test_an_erasure_moves_what_a_factorisation_knows(bare: Home) -> None:
    """Its readout has no part in the graph, so swapping it would do nothing: the pairs themselves must fall."""
    adopt(bare, foreign())
    pretrain(bare.database, bare.store, bare.settings, PretrainingConfig(steps=0, batch_size=64))
    before = scores(bare, 1)
    erased = LEARNT[::40]

    erasure_id = bare.accept(*erased)
    with working(worker_of(bare)):
        eventually(lambda: bare.status(erasure_id) == "forgotten")

    after = scores(bare, bare.erasure(erasure_id).version_after)
    places, held_out = tuple(np.array(erased).T), tuple(np.array(HELD_OUT).T)
    gap = before[places].mean() - before[held_out].mean()
    assert gap > 0.1
    # The pairs come most of the way to what a pair scores that was never learnt, all others hardly move.
    assert before[places].mean() - after[places].mean() > 0.6 * gap
    others = np.ones_like(before, bool)
    others[places] = False
    assert np.abs(after - before)[others].mean() < 0.1 * gap


def test_a_layer_0_is_read_out_by_its_propagation(bare: Home) -> None:
    adopt(bare, replace(foreign(), backbone=LightGCN(layers=2, readout="mean")))

    config = bare.store.manifest("versions", 1).facts.config["backbone"]
    assert (config["name"], config["layers"], config["readout"]) == ("lightgcn", 2, "mean")


@pytest.mark.parametrize("scale", [1e20, 3e19, 1e-30, 0.0])
def test_vectors_whose_products_cannot_serve_are_refused(bare: Home, scale: float) -> None:
    """They are finite, as each file is that gets so far; their products are not, or all alike."""
    vectors = svd()
    scaled = replace(vectors, users=vectors.users * np.float32(scale), items=vectors.items * np.float32(scale))

    with pytest.raises(Unsound, match=r"must not serve: .* scale of the vectors"):
        adopt(bare, foreign(scaled))

    assert (bare.alias(), bare.store.numbers("versions")) == (None, [])


def test_a_missing_row_is_refused(bare: Home) -> None:
    vectors = svd()
    short = replace(vectors, users=vectors.users[2:], user_ids=vectors.user_ids[2:])
    strangers = replace(vectors, item_ids=tuple(f"film {number}" for number in range(N_ITEMS)))

    with pytest.raises(DataProblem, match=f"2 of the {N_USERS} users .* have no row"):
        adopt(bare, foreign(short))
    with pytest.raises(DataProblem, match=f"{N_ITEMS} of the {N_ITEMS} items .* ids those that were imported"):
        adopt(bare, foreign(strangers))
    assert bare.alias() is None


def test_held_out_pairs_must_be_recorded_and_unknown_to_the_model(bare: Home) -> None:
    """Without them a version that forgot nothing would pass the gate."""
    unrecorded = [(0, 1), (0, 2), (0, 3)]
    assert not set(unrecorded) & set(PAIRS)

    with pytest.raises(DataProblem, match="None of the held-out pairs"):
        adopt(bare, foreign(held_out=unrecorded))
    with pytest.raises(DataProblem, match="None of the held-out pairs"):
        adopt(bare, foreign(held_out=[]))
    with pytest.raises(DataProblem, match="as high as those it learnt"):
        adopt(bare, foreign(svd(PAIRS)))
    assert bare.alias() is None


def test_a_model_that_may_know_what_was_erased_needs_a_word_for_it(bare: Home) -> None:
    """What was suppressed before cannot be forgotten from it: its interactions may be gone from here."""
    bare.accept(LEARNT[0])

    with pytest.raises(MayKnowErased, match="erased"):
        adopt(bare, foreign())
    model = svd(LEARNT[1:])
    adopted = adopt(bare, replace(foreign(model), without_erased=True))

    assert adopted.base.n_edges == len(LEARNT) - 1


@pytest.mark.P4
def test_a_model_from_outside_brings_nobody_back_whose_rows_are_purged(bare: Home) -> None:
    """The tombstones ask for the word, though nobody else is known here; the erased user's row is passed over."""
    erasure = bare.accept(users=[0])
    with bare.database.write() as connection:
        now = SystemClock().now()
        queue_row = {"erasure": erasure, "at": now, "before": None, "after": None, "batch": None, "stages": {}}
        queue.mark_forgotten(connection, [queue_row])
        repository.purge_rows(connection, [erasure], now, now + timedelta(days=1))
        keys, _ = repository.unneeded_users(connection, b"", 10)
        assert repository.delete_users(connection, keys) == 1

    with pytest.raises(MayKnowErased):
        adopt(bare, foreign())
    adopted = adopt(bare, replace(foreign(), without_erased=True))

    assert adopted.base.n_users == N_USERS - 1
    assert adopted.unused_users == 3
    assert 1 not in bare.store.open("versions", 1, "embeddings.safetensors")["user_keys"]


def test_nothing_recorded_is_nothing_to_adopt(tmp_path: Path) -> None:
    with opened(load_settings(home=tmp_path / "home", **QUICK)) as home, pytest.raises(NothingToLearn):
        adopt(home, foreign())
