"""Cursors: what was given out comes back, nothing else does."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.platform.cursor import read_cursor, write_cursor
from service.platform.identity import Identity
from service.platform.problem import InvalidCursor

IDENTITY = Identity(b"s" * 32)


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_position_comes_back(position: int) -> None:
    """Any 64 bits."""
    assert read_cursor(IDENTITY, "things", write_cursor(IDENTITY, "things", position)) == position


@given(st.text(max_size=80))
def test_made_up_ones_are_refused(cursor: str) -> None:
    """Whatever they look like."""
    with pytest.raises(InvalidCursor):
        read_cursor(IDENTITY, "things", cursor)


def test_every_changed_character_is_noticed() -> None:
    """One at a time."""
    cursor = write_cursor(IDENTITY, "things", 7)

    for place, character in enumerate(cursor):
        changed = cursor[:place] + ("A" if character != "A" else "B") + cursor[place + 1 :]
        with pytest.raises(InvalidCursor):
            read_cursor(IDENTITY, "things", changed)


@pytest.mark.parametrize("other", [lambda c: c + "=", lambda c: c.replace("_", "/").replace("-", "+")])
def test_the_same_written_otherwise_is_refused(other: Callable[[str], str]) -> None:
    """Padding that is not needed, letters of the other alphabet: nobody gave that out."""
    cursors = [write_cursor(IDENTITY, "things", position) for position in range(64)]

    for cursor in cursors:
        if other(cursor) != cursor:
            with pytest.raises(InvalidCursor):
                read_cursor(IDENTITY, "things", other(cursor))


def test_one_of_another_list_or_service_is_refused() -> None:
    """Positions mean something only where they were given out."""
    cursor = write_cursor(IDENTITY, "things", 7)

    with pytest.raises(InvalidCursor):
        read_cursor(IDENTITY, "others", cursor)
    with pytest.raises(InvalidCursor):
        read_cursor(Identity(b"x" * 32), "things", cursor)
