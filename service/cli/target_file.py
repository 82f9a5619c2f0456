"""The targets of a CSV file, checked to the last line before anything is sent.

A file is read as it says or refused, never guessed at: the columns are `user_id` and `item_id`, both, by exactly these
names; each line is one record with two fields. An empty field where the column is there means all of the other: a
whole user or a whole item. A field, a column or a name that is missing or unlike never does.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from service.cli.failures import Refusal
from service.cli.targets import TARGETS_MAX, RequestedTargets, id_check
from service.platform.ids import trim_id

USER, ITEM = "user_id", "item_id"
HEADER = f"{USER},{ITEM}"
LINE_MAX = 8_192
"""Characters of a line: two ids of 512, quoted, need 2,100. Ids hold no line ends, so a record is a line."""

_SENT = "Nothing was sent."
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_UNLIKE = {
    USER: {"user", "userid", "uid", "users", "userids"},
    ITEM: {"item", "itemid", "iid", "items", "itemids", "movie", "movieid", "product", "productid", "articleid"},
}


def read_target_file(path: Path, *, strip: bool = False) -> RequestedTargets:
    """The targets of a file (`-`: standard input; `.gz` is unpacked).

    Args:
        path: CSV in UTF-8, with or without a byte order mark, lines ended by LF, CRLF or CR.
        strip: take white space off both ends of every field, where it is refused otherwise.

    Raises:
        Refusal: names the line and what was expected; ids are not repeated.
        OSError: there is no such file, or it may not be read.
    """
    name, targets = "standard input" if str(path) == "-" else path.name, RequestedTargets()
    with _opened(path) as file:
        records = _records(name, file)
        user, item = _columns(name, next(records, (1, []))[1])
        fault_of = id_check()
        for number, row in records:
            if len(row) != 2:
                found = "1 field" if len(row) == 1 else f"{len(row)} fields"
                raise _refusal(name, number, f"has {found} where the header names 2")
            user_id, item_id = (_field(name, number, row[place], strip, fault_of) for place in (user, item))
            _add(name, number, targets, user_id, item_id)
    if not len(targets):
        msg = f"{name} names nothing to erase: no line follows the header. {_SENT}"
        raise Refusal(msg)
    return targets


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    if str(path) == "-":
        text = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")
        try:
            yield text
        finally:
            text.detach()
    elif path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as unpacked:
            yield unpacked
    else:
        with path.open(encoding="utf-8-sig", newline="") as plain:
            yield plain


def _records(name: str, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of every line that is not blank; holds one line at a time."""
    number = 0
    try:
        while line := file.readline(LINE_MAX + 1):
            number += 1
            if len(line) > LINE_MAX:
                raise _refusal(name, number, f"is longer than {LINE_MAX:,} characters")
            row = next(csv.reader([line], strict=True), [])
            if row or number == 1:
                yield number, row
    except csv.Error as error:
        raise _refusal(name, number, "has a quote that is not closed, or text after a closed one") from error
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        msg = f"{name} cannot be read after line {number}. Give CSV in UTF-8, as it is or as .gz. {_SENT}"
        raise Refusal(msg) from error


def _columns(name: str, header: list[str]) -> tuple[int, int]:
    """The places of user and item; raises Refusal for any header but the two names."""
    if not header:
        msg = f"{name} is empty, or begins with an empty line. Its first line must be: {HEADER}"
        raise Refusal(msg)
    for place, column in enumerate(header, 1):
        if column in (USER, ITEM):
            continue
        if len(header) == 1 and (by := _separator(column)) is not None:
            raise _refusal(name, 1, f"separates its columns by {by}; separate them by commas: {HEADER}")
        meant = _meant(column)
        what = f"is not known; there are {USER} and {ITEM}" if meant is None else f"must be named {meant}, exactly so"
        raise _refusal(name, 1, f": column {place} {what}")
    for column in (USER, ITEM):
        if header.count(column) != 1:
            missing = f"has no column {column}; the header must be {HEADER}, a field may be empty"
            raise _refusal(name, 1, missing if column not in header else f"names {column} twice")
    return header.index(USER), header.index(ITEM)


def _meant(column: str) -> str | None:
    """The column that a name which is not quite one stands for, if that is clear."""
    plain = re.sub(r":.*|[\s\ufeff\"'`]", "", column).lower()
    joined = re.sub(r"[^a-z]", "", plain)
    return next((right for right, others in _UNLIKE.items() if plain == right or joined in others), None)


def _separator(column: str) -> str | None:
    return next(
        (words for mark, words in _SEPARATORS.items() if mark in column and _meant(column.split(mark)[0])), None
    )


def _field(name: str, number: int, value: str, strip: bool, fault_of: Callable[[str], str | None]) -> str:
    if not value:
        return value
    bare = trim_id(value)
    if not bare:
        # Neither empty nor an id that anybody would have: also with `strip` it never comes to mean everything.
        raise _refusal(
            name,
            number,
            "has a field of white space alone, seen or unseen; leave it empty, or fill it in",
        )
    if strip:
        value = bare
    elif bare != value:
        raise _refusal(name, number, "has white space, seen or unseen, around an id; take it away, or say --strip")
    if (fault := fault_of(value)) is not None:
        raise _refusal(name, number, f"holds what is no id: {fault.rstrip('.')}")
    return value


def _add(name: str, number: int, targets: RequestedTargets, user_id: str, item_id: str) -> None:
    if user_id and item_id:
        targets.interactions[user_id, item_id] = None
    elif user_id:
        targets.users[user_id] = None
    elif item_id:
        targets.items[item_id] = None
    else:
        raise _refusal(name, number, "names neither a user nor an item")
    if len(targets) > TARGETS_MAX:
        raise _refusal(name, number, f"is past the {TARGETS_MAX:,} targets of one call; split the file")


def _refusal(name: str, number: int, what: str) -> Refusal:
    space = "" if what.startswith(":") else " "
    return Refusal(f"{name}, line {number}{space}{what}. {_SENT}")
