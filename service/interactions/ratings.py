"""Ratings and times as a file has them: numbers where they are some, and the rows that a threshold leaves out."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.interactions.columns import encode
from service.interactions.identifiers import NUMBER, Place
from service.interactions.refusals import DataProblem, shown


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers.

    `values`: (n,) float64, NaN where the field is empty or no number. `remark`: what was no number, empty where all
    were.
    """

    values: NDArray[np.float64]
    remark: str = ""

    @property
    def n_known(self) -> int:
        """How many rows have one."""
        return int((~np.isnan(self.values)).sum())

    def at_least(self, threshold: float) -> NDArray[np.bool_]:
        """(n,) bool: the rows with such a value; one without a value is not among them."""
        return np.asarray(self.values >= threshold)


def read_numbers(name: str, column: pa.Array | pa.ChunkedArray, place: Place, *, strict: bool) -> NumberColumn:
    """Read a column of ratings or times.

    Args:
        name: of the column, for messages.
        column: numbers, strings (plain or dictionary-encoded), decimals, dates or timestamps.
        place: where its rows stand.
        strict: refuse what is no number instead of remarking on it; somebody asked for this column.

    Raises:
        DataProblem: a value is no number, and `strict`.
    """
    if pa.types.is_dictionary(column.type) or _is_text(column.type):
        encoded = encode(column)
        words = _numbers(encoded.dictionary.cast(pa.string()))
        codes = pc.fill_null(encoded.indices, -1).to_numpy().astype(np.int64)
        values = np.append(words[0], np.nan)[codes]
        bad = np.append(words[1], False)[codes]
    elif _is_number(column.type):
        values, bad = _of_numbers(column), np.zeros(len(column), np.bool_)
    else:
        values = np.full(len(column), np.nan)
        bad = np.asarray(pc.is_valid(column).to_numpy(), np.bool_)
    if not bad.any():
        return NumberColumn(values)
    row = int(np.argmax(bad))
    seen = shown(str(column[row].as_py()))
    if strict:
        msg = f"{place(row)}: the {name} {seen} is no number. Correct it, or name another column."
        raise DataProblem(msg)
    count = f"{int(bad.sum()):,} of {len(column):,} values of {name} are no numbers"
    return NumberColumn(values, f"{count}, the first is {seen} ({place(row)}); they count as missing.")


def _is_text(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _is_number(kind: pa.DataType) -> bool:
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_temporal)
    return any(is_kind(kind) for is_kind in checks)


def _of_numbers(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    kind = column.type
    if pa.types.is_temporal(kind):
        seconds = pc.cast(pc.cast(column, pa.timestamp("us"), safe=False), pa.int64())
        return np.asarray(pc.cast(seconds, pa.float64()).to_numpy() / 1e6, np.float64)
    return np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(), np.float64)


def _numbers(texts: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The numbers that texts stand for, (n,) float64, ISO 8601 instants in seconds; and which are neither nor empty."""
    texts = pc.utf8_trim_whitespace(texts)
    missing = pc.is_in(pc.utf8_lower(texts), value_set=pa.array(["", "nan", "null", "na", "none"]))
    is_number = pc.match_substring_regex(texts, NUMBER)
    nothing = pa.scalar(None, pa.string())
    numbers = pc.cast(pc.if_else(is_number, texts, nothing), pa.float64())
    values = np.array(pc.fill_null(numbers, np.nan).to_numpy(False), np.float64)
    bad = ~np.asarray(pc.or_(is_number, missing).to_numpy(False), np.bool_)
    for place in np.flatnonzero(bad):
        instant = _instant(texts[int(place)].as_py())
        if instant is not None:
            values[place], bad[place] = instant, False
    return values, bad


def _instant(text: str) -> float | None:
    try:
        instant = np.datetime64(text.removesuffix("Z"), "us")
    except ValueError:
        return None
    return None if np.isnat(instant) else float(instant.astype(np.int64)) / 1e6
