"""What makes a data file unusable, told in one sentence: which file and line, what is wrong there, what to do."""

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import NoReturn

from service.platform.ids import MAX_ID_LENGTH

SHOWN_CHARACTERS = 80
SHOWN_COLUMNS = 10

# The characters that service.platform.ids refuses, for Arrow's regular expressions.
FORBIDDEN_IN_IDS = r"[\x{00}-\x{1f}\x{7f}-\x{9f}\x{2028}\x{2029}\x{fdd0}]"
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufdd0]")

LineIds = Callable[[str], list[tuple[str, str]]]
"""From a line to its ids as (column name, id); raises ValueError saying why the line cannot be read."""


class DataProblem(Exception):
    """A data set that cannot be used; the text is one sentence or two for the person who brought it."""


def shown(text: str) -> str:
    """A piece of a file for a message: at most 80 characters, control characters escaped."""
    short = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
    return "'" + _FORBIDDEN.sub(lambda found: f"\\x{ord(found.group()):02x}", short) + "'"


def printable(title: str) -> str:
    """A title without control characters, which have no place on a terminal or a page."""
    return _FORBIDDEN.sub(" ", title).strip()


def empty(path: Path, what: str = "nothing") -> DataProblem:
    """The file holds no interactions."""
    return DataProblem(f"{path.name} holds {what}. Give it at least one interaction, or name another folder.")


def check_columns(path: Path, found: list[str], wanted: tuple[str, ...]) -> None:
    """Refuse a table in which a wanted column is missing or there twice."""
    listed = ", ".join(shown(name) for name in found[:SHOWN_COLUMNS]) + (", …" if len(found) > SHOWN_COLUMNS else "")
    for name in wanted:
        if name not in found:
            msg = f"{path.name} has no column {name}; found: {listed}. Name the columns in the first line."
            raise DataProblem(msg)
        if found.count(name) > 1:
            msg = f"{path.name} has the column {name} more than once; found: {listed}. Keep one of them."
            raise DataProblem(msg)


def read_text_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, unpacked where it is a .gz, with their numbers from 1 and without their ends."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in zip(count(1), file, strict=False):
                yield number, line.rstrip(b"\r\n")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        msg = f"{path.name} is not a complete gzip file. Copy it again, or unpack it to {path.stem}."
        raise DataProblem(msg) from error


def diagnose(path: Path, ids_of: LineIds, *, skip_lines: int = 0, cause: str = "") -> NoReturn:
    """Find the first line that cannot be used and raise DataProblem with its number; slow, for refused files only.

    `skip_lines` are passed over (a header); `cause` is told where no line can be blamed.
    """
    for number, raw in read_text_lines(path):
        if number > skip_lines and raw.strip():
            _check_line(path, number, raw, ids_of)
    reason = cause.partition("\n")[0] or "no reason was given"
    msg = f"{path.name} cannot be read: {shown(reason)}. Check how it was written."
    raise DataProblem(msg)


def check_id(place: str, column: str, id: str) -> None:
    """Refuse an id that the service does not take; `place` is the file and the line or row."""
    if not id:
        msg = f"{place}: the {column} is empty. Give every interaction a user_id and an item_id."
        raise DataProblem(msg)
    if len(id) > MAX_ID_LENGTH:
        msg = f"{place}: the {column} has {len(id):,} characters; an id has at most {MAX_ID_LENGTH}. Shorten it."
        raise DataProblem(msg)
    if _FORBIDDEN.search(id):
        msg = f"{place}: the {column} {shown(id)} holds control characters. Take them out."
        raise DataProblem(msg)


def _check_line(path: Path, number: int, raw: bytes, ids_of: LineIds) -> None:
    place = f"{path.name}, line {number}"
    try:
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        ids = ids_of(line)
    except ValueError as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        text = shown(raw.decode("utf-8", "backslashreplace"))
        msg = f"{place} cannot be read ({reason}): {text}. Correct the line or leave it out."
        raise DataProblem(msg) from error
    for column, id in ids:
        check_id(place, column, id)


def csv_fields(line: str) -> list[str]:
    """The fields of one CSV line; raises ValueError."""
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        msg = "a quotation mark is not closed" if "unexpected end" in str(error) else str(error)
        raise ValueError(msg) from error
