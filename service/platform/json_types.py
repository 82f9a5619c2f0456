"""What scalars of a JSON body are read as: what JSON has them as, and nothing that could be read as one."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator
from pydantic_core import PydanticCustomError

# pydantic would read any number as seconds since 1970.
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d")


def _number(value: Any) -> Any:
    if isinstance(value, str | bool):
        raise PydanticCustomError("whole_number", "A whole number, without quotes.")
    return value


def _instant(value: Any) -> Any:
    if not isinstance(value, datetime) and not (isinstance(value, str) and _RFC_3339.match(value)):
        raise PydanticCustomError("instant", "An instant as in RFC 3339: 2026-12-30T00:00:00Z.")
    return value


def _utc(instant: datetime) -> datetime:
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("instant_far", "It lies beyond what a calendar holds in UTC.") from None


WholeNumber = Annotated[int, BeforeValidator(_number)]
"""A whole number of a body; `5.0` is one, `"5"` and `true` are none."""
GivenInstant = Annotated[AwareDatetime, AfterValidator(_utc), BeforeValidator(_instant)]
"""An instant with a zone, as a caller gives it in a body or a query, in UTC."""
