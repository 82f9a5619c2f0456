"""Which of many pairs a base has learnt: one look for all of them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.recommendations.popularity import _holds

PAIR = st.tuples(st.integers(0, 8), st.integers(0, 8))


@given(st.sets(PAIR), st.lists(PAIR))
def test_all_pairs_are_found_that_are_there_and_no_other(edges: set[tuple[int, int]], pairs: list[tuple[int, int]]):
    """Also among no edges, and for no pairs."""
    sorted_edges = np.array(sorted(edges), np.int32).reshape(-1, 2).T
    users, items = np.array(pairs, np.int32).reshape(-1, 2).T

    assert _holds(sorted_edges, users, items).tolist() == [pair in edges for pair in pairs]
