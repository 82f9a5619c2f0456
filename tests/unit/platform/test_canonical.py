"""Canonical JSON: the fast way and the reference write the same bytes."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from service.platform.canonical import EXACT_MAX, canonical_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(1 - EXACT_MAX, EXACT_MAX - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
DOCUMENTS = st.recursive(SCALARS, lambda part: st.lists(part, max_size=4) | st.dictionaries(TEXT, part, max_size=4))


@given(DOCUMENTS)
def test_every_document_is_written_as_the_standard_asks(document: Any) -> None:
    """RFC 8785, whatever is in it."""
    assert canonical_json(document) == rfc8785.dumps(document)


@given(st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=3), TEXT | st.integers(-5, 5)))
def test_documents_of_strings_and_integers_too(document: Mapping[str, Any]) -> None:
    """The ones that take the fast way: every escape, every order of keys."""
    assert canonical_json(document) == rfc8785.dumps(dict(document))


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53 + 1, object(), {1: 2}, "\ud800"])
def test_what_json_lacks_is_refused(value: Any) -> None:
    """There is no one text for it."""
    with pytest.raises(ValueError):  # noqa: PT011  # three kinds of error, all of them ValueErrors
        canonical_json(value)


def test_tuples_are_lists() -> None:
    """Frozen dataclasses hold tuples."""
    assert canonical_json({"a": ("x", 1)}) == b'{"a":["x",1]}'
