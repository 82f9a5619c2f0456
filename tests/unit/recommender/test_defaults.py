"""Defaults by how much there is to learn from."""

import pytest

from service.recommender.defaults import SMALL_UP_TO, default_training
from service.recommender.training import TrainingConfig


@pytest.mark.parametrize(("n_interactions", "width"), [(0, 64), (90_570, 64), (SMALL_UP_TO, 64), (800_168, 128)])
def test_the_width_follows_the_number_of_interactions(n_interactions: int, width: int) -> None:
    """ML-100K gets 64 dimensions, ML-1M 128."""
    assert default_training(n_interactions).embedding_size == width


def test_what_is_given_takes_precedence() -> None:
    """Whatever the size; the rest stays with it."""
    given = default_training(100, embedding_size=32, seed=3)

    assert (given.embedding_size, given.seed) == (32, 3)
    assert given.batch_size == default_training(100).batch_size
    assert default_training(10**6, seed=1) == TrainingConfig(seed=1)
