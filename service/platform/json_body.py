"""A JSON body, read as strictly as RFC 8259 has it. What is refused is told by its place, never by its content."""

import json
import math
from typing import Any, NoReturn

from service.platform.problem import BadRequest, FieldError

DIGITS_MAX = 300  # what a float holds; Python would take seconds over millions of them


def parse_json(body: bytes) -> Any:
    """The value of a JSON text in UTF-8; raises BadRequest with line and column.

    Refused as well: NaN and Infinity, numbers beyond what a float holds, and nesting too deep to be read.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = body[: error.start]
        column = error.start - before.rfind(b"\n")
        raise _refusal("Not UTF-8", before.count(b"\n") + 1, column) from None
    try:
        return json.loads(text, parse_constant=_constant, parse_int=_integer, parse_float=_float)
    except json.JSONDecodeError as error:
        raise _refusal("Not well-formed JSON", error.lineno, error.colno) from None
    except RecursionError:
        raise _bad("Nested too deeply.") from None


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
