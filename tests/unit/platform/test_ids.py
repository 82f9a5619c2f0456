import time
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from service.platform.ids import SLASH, ItemId, PathUserId, UserId, uuid7

USER, PATH_USER = TypeAdapter(UserId), TypeAdapter(PathUserId)

ids = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters=SLASH), min_size=1, max_size=512
)


def test_a_new_id_is_a_uuid_of_version_7():
    """The canonical text of RFC 9562, with now in its first 48 bits."""
    made = uuid.UUID(uuid7())

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert abs((made.int >> 80) - time.time() * 1000) < 60_000


def test_later_ids_sort_after_earlier_ones():
    """Text order is time order, finer than a millisecond."""
    at = 1_790_000_000_000_000_000

    made = [uuid7(at + microseconds * 1000) for microseconds in range(0, 3000, 7)]

    assert made == sorted(made)


def test_ids_of_one_instant_differ():
    """62 random bits keep them apart."""
    assert len({uuid7(1_790_000_000_000_000_000) for _ in range(1000)}) == 1000


@given(ids)
@example("a/b")
@example("two words")
@example("🦆")
@example(".." * 3)
@example("\ufffe" + "x" * 511)
def test_any_text_is_an_id(value: str):
    """Slashes, spaces, emoji: an id is what the caller calls things."""
    assert USER.validate_python(value) == value
    assert TypeAdapter(ItemId).validate_python(value) == value


@pytest.mark.parametrize("value", ["", "x" * 513, "a\nb", "\x00", "\x7f", "\x9b", "a\u2028b", "\ud800", f"a{SLASH}b"])
def test_what_is_no_id_is_refused_without_repeating_it(value: str):
    """Empty, too long, control characters, lone surrogates."""
    with pytest.raises(ValidationError) as refusal:
        USER.validate_python(value)

    assert next(error["msg"] for error in refusal.value.errors()).startswith(("An id", "String should", "Input should"))


@given(ids)
def test_a_path_parameter_gets_its_slashes_back(value: str):
    """What the path middleware put in place of %2F is a slash again."""
    assert PATH_USER.validate_python(value.replace("/", SLASH)) == value
