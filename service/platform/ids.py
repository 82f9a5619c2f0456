"""Ids: the UUIDv7 that the service gives out, and the ids of users and items that callers bring."""

import os
import re
import time
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

MAX_ID_LENGTH = 512

# Stands for a slash that came as %2F, from the router to the path parameter. A noncharacter: no id may hold it.
SLASH = "\ufdd0"

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff" + SLASH + "]")


# What cannot be seen and stands around an id by mistake, besides what Python takes for white space.
INVISIBLE = "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
_MARGIN = "".join(chr(code) for code in range(0x3001) if chr(code).isspace()) + INVISIBLE


def uuid7(unix_ns: int | None = None) -> str:
    """A new UUIDv7 in canonical text: 36 characters that sort by time (RFC 9562), to a quarter of a microsecond.

    `unix_ns` is nanoseconds since 1970 UTC; without it, now.
    """
    milliseconds, rest = divmod(time.time_ns() if unix_ns is None else unix_ns, 1_000_000)
    fraction = (rest << 12) // 1_000_000
    tail = (int.from_bytes(os.urandom(8)) & 0x3FFFFFFFFFFFFFFF) | 0x8000000000000000
    digits = f"{milliseconds:012x}7{fraction:03x}{tail:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def check_id(value: str, limit: int = MAX_ID_LENGTH) -> str:
    """Return a user id or an item id unchanged, or raise a validation error that does not repeat it.

    1 to `limit` characters; any Unicode (slashes, spaces, emoji) but control characters, line separators, surrogates.
    """
    if not 0 < len(value) <= limit:
        raise PydanticCustomError("id_length", "An id has 1 to {limit} characters.", {"limit": limit})
    if _FORBIDDEN.search(value):
        raise PydanticCustomError("id_characters", "An id holds no control characters.")
    return value


def trim_id(value: str) -> str:
    """An id without white space and characters that cannot be seen around it."""
    return value.strip(_MARGIN)


def restore_slashes(value: Any) -> Any:
    """Turn the stand-in of an encoded slash in a path back into a slash."""
    return value.replace(SLASH, "/") if isinstance(value, str) else value


ERASURE_ID = "^[0-9A-Za-z-]{1,36}$"
"""The pattern of an erasure's id, looser than the UUIDs that are given out: others are not found."""

_SHAPE = Field(
    min_length=1,
    max_length=MAX_ID_LENGTH,
    json_schema_extra={"pattern": r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029\ufdd0]*$"},  # surrogates are no text
)

UserId = Annotated[str, _SHAPE, AfterValidator(check_id)]
"""A user id in a body or a query."""
ItemId = Annotated[str, _SHAPE, AfterValidator(check_id)]
"""An item id in a body or a query."""
PathUserId = Annotated[str, _SHAPE, AfterValidator(check_id), BeforeValidator(restore_slashes)]
"""A user id as a path parameter, one segment, slashes written %2F."""
PathItemId = Annotated[str, _SHAPE, AfterValidator(check_id), BeforeValidator(restore_slashes)]
"""An item id as a path parameter, one segment, slashes written %2F."""
