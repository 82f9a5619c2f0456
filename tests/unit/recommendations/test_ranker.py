import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from service.recommendations.ranker import NO_ROW, EmbeddingRanker, top

NO_ITEMS = np.empty(0, np.int64)
numbers = st.floats(-4, 4, width=16) | st.just(-np.inf) | st.sampled_from([0.0, 1.0])  # many equal ones


def ranker(
    n_users: int = 5, n_items: int = 40, d: int = 8
) -> tuple[EmbeddingRanker, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    users = random.standard_normal((n_users, d), dtype=np.float32)
    items = random.standard_normal((n_items, d), dtype=np.float32)
    degrees = random.integers(1, 9, n_items).astype(np.int32)
    return EmbeddingRanker(users, items, degrees), users, items, degrees


def test_scores_are_the_inner_products_of_all_users_and_items():
    """Every item is scored for every user, exactly."""
    rank, users, items, _ = ranker()

    found = rank.scores([3, 0, 4], [NO_ITEMS] * 3)

    np.testing.assert_allclose(found, users[[3, 0, 4]] @ items.T, rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32


def test_one_user_alone_scores_as_among_others():
    """Answering together changes nothing but the last bits of a product."""
    rank, *_ = ranker()

    together = rank.scores([0, 1, 2], [NO_ITEMS] * 3)

    for row in range(3):
        np.testing.assert_allclose(rank.scores([row], [NO_ITEMS])[0], together[row], rtol=1e-5, atol=1e-6)


def test_a_user_the_version_does_not_hold_is_folded_in_by_one_hop():
    """e_u is the sum of the item vectors over sqrt(d_u d_i): what the propagation would give a new node."""
    rank, _, items, degrees = ranker()
    history = np.array([2, 7, 31])

    found = rank.scores([NO_ROW], [history])[0]

    vector = sum(items[i] / np.sqrt(3 * degrees[i]) for i in history)
    np.testing.assert_allclose(found, items @ vector, rtol=1e-4, atol=1e-5)


def test_a_folded_in_user_scores_as_a_trained_one_with_the_same_vector():
    """The fold-in is the last hop of the propagation: a graph whose users have no other hop gives the same vectors."""
    _, _, items, degrees = ranker()
    histories = [np.array([1, 2]), np.array([3, 4, 5])]
    trained = np.stack([(items[h] / np.sqrt(len(h) * degrees[h, None])).sum(axis=0) for h in histories])
    rank = EmbeddingRanker(trained.astype(np.float32), items, degrees)

    known = rank.scores([0, 1], histories)
    folded = rank.scores([NO_ROW, NO_ROW], histories)

    np.testing.assert_allclose(folded, known, rtol=1e-4, atol=1e-5)


def test_likeness_is_the_cosine_and_a_zero_vector_is_like_nothing():
    """Popular items with long vectors are not like everything."""
    _, users, items, degrees = ranker()
    items[9] = 0
    rank = EmbeddingRanker(users, items, degrees)

    found = rank.similar(4)

    norms = np.linalg.norm(items, axis=1)
    expected = np.divide(items @ items[4], norms * norms[4], out=np.zeros(len(items), np.float32), where=norms > 0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[9] == 0


def test_scores_may_be_changed_by_the_caller_without_changing_the_model():
    """Masks are applied in place; the next answer does not see them."""
    rank, *_ = ranker()
    before = rank.scores([1], [NO_ITEMS]).copy()

    rank.scores([1], [NO_ITEMS])[:] = -np.inf
    rank.similar(2)[:] = -np.inf

    np.testing.assert_array_equal(rank.scores([1], [NO_ITEMS]), before)


@given(scores=npst.arrays(np.float32, st.integers(1, 400), elements=numbers), n=st.integers(1, 30))
def test_the_top_is_what_sorting_everything_gives(scores: np.ndarray, n: int):
    """Highest first, equal scores by row, nothing that was struck out, however many are asked for."""
    order = sorted(range(len(scores)), key=lambda row: (-scores[row], row))
    expected = [row for row in order if scores[row] > -np.inf][:n]

    assert top(scores, n).tolist() == expected


@pytest.mark.parametrize("n", [1, 5, 20, 500, 4000])
def test_the_top_of_a_large_catalogue_is_exact(n: int):
    """The shortcut through blocks never loses an item."""
    scores = np.random.default_rng(n).standard_normal(3706).astype(np.float32)

    assert top(scores, n).tolist() == np.argsort(-scores, kind="stable")[:n].tolist()
