"""What unknown users are shown while erasures wait: exactly what the base has learnt, less what was erased."""

import asyncio

import numpy as np
import pytest

from service.recommendations.model import LoadedModel, load_model
from service.recommendations.popularity import ItemPopularity
from tests.factories.workers import PAIRS, Home


def counts(place: Home, model: LoadedModel, popularity: ItemPopularity) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """By number of the item."""
    found = np.zeros(int(model.item_keys.max()), np.float32)
    found[model.item_keys - 1] = asyncio.run(popularity.of(model))
    return found


@pytest.mark.P3
def test_only_what_the_base_has_learnt_is_taken_off(place: Home) -> None:
    """Held-out pairs were never counted, so erasing one changes nothing; an erasure that is held back counts too."""
    model, popularity = load_model(place.store, place.database, 1), ItemPopularity(place.database, place.store)
    learnt = place.learnt
    held_out = next(pair for pair in PAIRS if pair not in learnt)
    before = counts(place, model, popularity)
    assert before.sum() == len(learnt)

    place.accept(learnt[0], held_out)
    place.accept(users=[learnt[-1][0]])

    expected = before.copy()
    for user, item in learnt:
        if (user, item) == learnt[0] or user == learnt[-1][0]:
            expected[item] -= 1
    assert np.array_equal(counts(place, model, popularity), expected)
