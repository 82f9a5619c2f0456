"""The one check that every id of every file passes, whatever its format: what enters here can be named over REST.

Ids are never altered unless that was asked for. What a person hardly means is refused with its place (white space
around ids, integers that were written as floats), and ids that differ only in their spelling are told.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context

import pyarrow as pa
import pyarrow.compute as pc
from pydantic_core import PydanticCustomError

from service.interactions.columns import encode
from service.interactions.refusals import DataProblem, refused_id, shown
from service.platform.ids import INVISIBLE, check_id, trim_id

Place = Callable[[int], str]
"""From a row (from 0) to where it stands, `train.csv, line 7`; may be slow, it is asked for messages only."""

INTEGER = r"^-?(0|[1-9][0-9]*)$"
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"

# A zero-width joiner makes one emoji of several: it can be seen.
_UNSEEN = re.compile(f"[{INVISIBLE}]".replace("\u200d", ""))
_NUMBER = re.compile(NUMBER)
_EXACT = Context(prec=600, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
_DIGITS_MAX = 600


@dataclass(frozen=True)
class IdColumn:
    """The ids of one column of one file, checked; `name` is user_id or item_id."""

    name: str
    ids: pa.DictionaryArray
    place: Place


def check_column(name: str, column: pa.Array | pa.ChunkedArray, place: Place, strip: bool | None) -> IdColumn:
    """Check a column of ids.

    Args:
        name: what its ids are, user_id or item_id.
        column: strings, plain or dictionary-encoded (every word of the dictionary used).
        place: where its rows stand.
        strip: as in ReadingOptions.

    Raises:
        DataProblem: an id that the API does not take, or one that needs a decision on `strip`.
    """
    encoded = encode(column)
    if encoded.null_count or encoded.dictionary.null_count:
        row = pc.index(pc.is_null(encoded.cast(pa.string())), True).as_py()
        raise refused_id(place(row), name, "")
    if strip:
        encoded = _stripped(encoded)
    ids = encoded.dictionary.to_pylist()
    for code, id in enumerate(ids):
        problem = _problem(id, strip)
        if problem:
            where = place(_first_row(encoded, code))
            if problem == "id":
                raise refused_id(where, name, id)
            msg = (
                f"{where}: the {name} {shown(id)} has white space or characters that cannot be seen around it. "
                "--strip takes them off all ids, --no-strip takes every id as it stands."
            )
            raise DataProblem(msg)
    if strip is not False:
        _check_floats(name, encoded, place)
    return IdColumn(name, encoded, place)


def look_alikes(columns: Sequence[IdColumn]) -> list[str]:
    """A sentence for each kind of id of which several differ only in spelling: 7 and 007, é in one or two characters.

    Each pair may well be two; nothing is altered. Somebody who erases one of them would leave the other.
    """
    return [text for name in dict.fromkeys(column.name for column in columns) if (text := _alike(name, columns))]


def _problem(id: str, strip: bool | None) -> str:
    try:
        check_id(id)
    except PydanticCustomError:
        return "id"
    return "margin" if strip is None and trim_id(id) != id else ""


def _stripped(encoded: pa.DictionaryArray) -> pa.DictionaryArray:
    # Two ids may become one, so the dictionary is made anew.
    again = pa.array([trim_id(id) for id in encoded.dictionary.to_pylist()], pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(again.indices.take(encoded.indices), again.dictionary)


def _first_row(encoded: pa.DictionaryArray, code: int) -> int:
    return int(pc.index(encoded.indices, pa.scalar(code, encoded.indices.type)).as_py())


def _check_floats(name: str, encoded: pa.DictionaryArray, place: Place) -> None:
    """Refuse a column of integers that were written as floats: 7.0, or 1e+05 among integers."""
    ids = encoded.dictionary
    if pc.all(pc.match_substring_regex(ids, INTEGER)).as_py():
        return
    pointed = pc.sum(pc.match_substring_regex(ids, r"^-?[0-9]+\.0+$")).as_py() or 0
    numeric = pc.all(pc.match_substring_regex(ids, NUMBER)).as_py()
    if not numeric and pointed * 2 <= len(ids):
        return
    for code, id in enumerate(ids.to_pylist()):
        if not id.lstrip("+-").isdigit() and _NUMBER.match(id) and float(id).is_integer():
            msg = (
                f"{place(_first_row(encoded, code))}: the {name} {shown(id)} is an integer written as a float. Write "
                f"the column as integers or text (pandas: astype('Int64')); --no-strip takes every id as it stands."
            )
            raise DataProblem(msg)


def _alike(name: str, columns: Sequence[IdColumn]) -> str:
    words = [column.ids.dictionary for column in columns if column.name == name]
    doubtful = [_may_be_spelt_otherwise(ids) for ids in words]
    odd = [id for ids, mask in zip(words, doubtful, strict=True) for id in ids.filter(mask).to_pylist()]
    if not odd:
        return ""
    known = {
        id: id for ids, mask in zip(words, doubtful, strict=True) for id in ids.filter(pc.invert(mask)).to_pylist()
    }
    pairs = [(known.setdefault(_plainest(id), id), id) for id in dict.fromkeys(odd)]
    found = [(one, other) for one, other in pairs if one != other]
    if not found:
        return ""
    (one, other), rest = found[0], len(found) - 1
    more = f" (and {rest:,} more)" if rest else ""
    return (
        f"The {name} {shown(other)} ({_where(name, other, columns)}) reads like {shown(one)} "
        f"({_where(name, one, columns)}){more}: they are different ids here. Correct the file where they are one."
    )


def _may_be_spelt_otherwise(ids: pa.Array) -> pa.Array:
    is_number, is_plain = (pc.match_substring_regex(ids, pattern) for pattern in (NUMBER, INTEGER))
    return pc.or_(pc.match_substring_regex(ids, r"[^!-~]"), pc.and_not(is_number, is_plain))


def _plainest(id: str) -> str:
    """The spelling that two ids share which a person would take for one."""
    text = " ".join(unicodedata.normalize("NFC", _UNSEEN.sub("", id)).split())
    if not _NUMBER.match(text.replace(" ", "")):
        return text
    text = text.replace(" ", "")
    number = _EXACT.create_decimal(text).normalize(_EXACT)
    exponent = number.as_tuple().exponent
    return format(number, "f") if isinstance(exponent, int) and abs(exponent) < _DIGITS_MAX else text


def _where(name: str, id: str, columns: Sequence[IdColumn]) -> str:
    for column in columns:
        if column.name == name:
            code = pc.index(column.ids.dictionary, id).as_py()
            if code >= 0:
                return column.place(_first_row(column.ids, code))
    return "elsewhere"
