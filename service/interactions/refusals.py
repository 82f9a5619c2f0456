"""What makes a data file unusable, told in one sentence: which file and line, what is wrong there, what to do."""

import re
from pathlib import Path

from service.platform.ids import MAX_ID_LENGTH

SHOWN_CHARACTERS = 80
SHOWN_COLUMNS = 10

# Control characters and line separators, which no id may hold and no terminal should be sent, and U+FEFF and other
# characters of no width, which nobody would see.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\xa0\xad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufdd0\ufeff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufdd0]")


class DataProblem(Exception):
    """A data set that cannot be used; the text is one sentence or two for the person who brought it."""


def shown(text: str) -> str:
    """A piece of a file for a message: at most 80 characters, those that cannot be seen escaped."""
    short = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
    return "'" + _UNSEEN.sub(_escaped, short) + "'"


def listed(names: list[str]) -> str:
    """Some names for a message, at most ten."""
    return ", ".join(shown(name) for name in names[:SHOWN_COLUMNS]) + (", …" if len(names) > SHOWN_COLUMNS else "")


def printable(title: str) -> str:
    """A title without control characters, which have no place on a terminal or a page."""
    return _CONTROL.sub(" ", title).strip()


def empty(path: Path, what: str = "nothing") -> DataProblem:
    """The file holds no interactions."""
    return DataProblem(f"{path.name} holds {what}. Give it at least one interaction, or name another folder.")


def refused_id(place: str, column: str, id: str) -> DataProblem:
    """An id that the service does not take; `place` is the file and the line or row."""
    if not id:
        msg = f"{place}: the {column} is empty. Give every row its ids."
    elif len(id) > MAX_ID_LENGTH:
        msg = f"{place}: the {column} has {len(id):,} characters; an id has at most {MAX_ID_LENGTH}. Shorten it."
    else:
        msg = f"{place}: the {column} {shown(id)} holds control characters. Take them out."
    return DataProblem(msg)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
