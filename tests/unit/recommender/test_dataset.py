"""Vocabularies."""

import pytest

from service.recommender.dataset import Vocabulary


def test_rows_follow_the_order_of_the_ids() -> None:
    """Each id once, by code point."""
    vocabulary = Vocabulary.of(["b", "a", "ä", "B", "a", "10", "2"])

    assert vocabulary.ids == ("10", "2", "B", "a", "b", "ä")
    assert [vocabulary.row(id) for id in vocabulary.ids] == list(range(6))
    assert len(vocabulary) == 6


def test_an_unknown_id_has_no_row() -> None:
    """And is not in it."""
    vocabulary = Vocabulary.of(["007"])

    assert "7" not in vocabulary
    assert "007" in vocabulary
    with pytest.raises(KeyError):
        vocabulary.row("7")
