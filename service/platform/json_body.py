"""A JSON body, read as strictly as RFC 8259 has it. What is refused is told by its place, never by its content."""

import json
import math
from collections import Counter
from collections.abc import Collection
from typing import Any, NoReturn

from service.platform.problem import BadRequest, FieldError, InvalidRequest

DIGITS_MAX = 300  # what a float holds; Python would take seconds over millions of them


def parse_json(body: bytes, members: Collection[str] = ()) -> Any:
    """The value of a JSON text in UTF-8.

    Args:
        body: the text.
        members: names that may be told; others are the caller's, and may be anything.

    Raises:
        BadRequest: it is not well-formed, with line and column; it holds NaN or Infinity, a number beyond what a float
            holds, or is nested too deeply to be read.
        InvalidRequest: a member stands twice in one object: readers keep the last and drop the others unseen.
    """
    doubled = set[str]()

    def closed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            doubled.update(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        return value

    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = body[: error.start]
        column = error.start - before.rfind(b"\n")
        raise _refusal("Not UTF-8", before.count(b"\n") + 1, column) from None
    try:
        value = json.loads(
            text, object_pairs_hook=closed, parse_constant=_constant, parse_int=_integer, parse_float=_float
        )
    except json.JSONDecodeError as error:
        raise _refusal("Not well-formed JSON", error.lineno, error.colno) from None
    except RecursionError:
        raise _bad("Nested too deeply.") from None
    if doubled:
        pointers = sorted({f"#/{name}" if name in members else "#" for name in doubled})
        raise InvalidRequest(errors=[FieldError(each, "A member stands twice in one object.") for each in pointers])
    return value


def _refusal(what: str, line: int, column: int) -> BadRequest:
    return _bad(f"{what}: line {line}, column {column}.")


def _bad(detail: str) -> BadRequest:
    return BadRequest(detail, errors=[FieldError("#", detail)])


def _constant(_name: str) -> NoReturn:
    raise _bad("NaN and Infinity are no numbers of JSON.")


def _integer(digits: str) -> int:
    if len(digits) > DIGITS_MAX:
        raise _bad("A number has too many digits.")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _bad("A number is too large.")
    return value
