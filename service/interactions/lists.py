"""LightGCN's lists, `user item item ...`, and telling them from another format under the same name.

`train.txt` holds `user item rating time` in other projects. Read as a list, ratings and times would become items.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.interactions import refusals
from service.interactions.columns import Pairs
from service.interactions.formats import PairColumns, Reading
from service.interactions.identifiers import NUMBER
from service.interactions.options import Format
from service.interactions.refusals import DataProblem, shown
from service.interactions.tables import has_header, read_pairs
from service.interactions.text import decode, plain

RATING_MAX = 10.0
RATED_LINES_MIN = 10
"""Fewer lines whose third number could be a rating are no sign: they may be three small catalogues' items."""
UNIX_TIME_MIN = 1e8
_OTHER_BLANKS = (b"\x0b", b"\x0c")  # Arrow splits at them, too


def read_lists(path: Path, reading: Reading) -> Pairs:
    """Interactions of a LightGCN train.txt: a line a user, `user item item ...`; a user alone adds nothing.

    A file with a header line that names users and items is read as the table that it is.

    Raises:
        DataProblem: it cannot be used, or looks like a table without a header and nobody said what it is.
    """
    data = plain(path, reading.bytes_of(path)).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    text = decode(path, data)
    if not text.strip():
        raise refusals.empty(path)
    lines = text.split("\n")
    for blank in _OTHER_BLANKS:
        if blank in data:
            number = data[: data.index(blank)].count(b"\n") + 1
            msg = f"{path.name}, line {number} holds control characters: {shown(lines[number - 1])}. Take them out."
            raise DataProblem(msg)
    if reading.how.format is None and has_header(next(line for line in lines if line.strip()), reading.how):
        reading.remark(f"{path.name} has a header line: read as a table, not as LightGCN's lists of items.")
        return read_pairs(path, reading, Format.CSV)
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip(" \t")]
    lists = _Lists([line for _, line in numbered])
    if reading.how.format is None:
        _refuse_table(path, lists)
    if reading.how.min_rating is not None:
        msg = f"{path.name} is a list of items and has no ratings. Leave --min-rating out, or name another --format."
        raise DataProblem(msg)
    users, items, line_of = lists.pairs()
    if not len(users):
        raise refusals.empty(path, "no line with a user and an item")
    return reading.pairs(PairColumns(users, items), lambda row: f"{path.name}, line {numbered[line_of[row]][0]}")


class _Lists:
    """The tokens of lines that are not blank.

    Shapes: `lengths` and `starts` (n,) int64 by line, `starts` into `tokens`.
    """

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        split = pc.ascii_split_whitespace(pc.ascii_trim_whitespace(pa.array(lines, pa.large_string())))
        self.tokens = pc.list_flatten(split)
        self.lengths: NDArray[np.int64] = pc.list_value_length(split).to_numpy().astype(np.int64)
        self.starts: NDArray[np.int64] = np.cumsum(self.lengths) - self.lengths

    def column(self, place: int) -> pa.Array:
        """The tokens at that place of every line; each has that many."""
        return self.tokens.take(pa.array(self.starts + place))

    def pairs(self) -> tuple[pa.DictionaryArray, pa.DictionaryArray, NDArray[np.int64]]:
        """Users, items and the place of the line among those not blank, of each pair."""
        is_item = np.ones(len(self.tokens), np.bool_)
        is_item[self.starts] = False
        line_of = np.repeat(np.arange(len(self.lengths)), self.lengths - 1)
        with_items = self.lengths > 1
        users = self.tokens.take(pa.array(self.starts[with_items])).dictionary_encode()
        codes = np.repeat(users.indices.to_numpy(), self.lengths[with_items] - 1)
        repeated = pa.DictionaryArray.from_arrays(pa.array(codes), users.dictionary)
        return repeated, self.tokens.filter(pa.array(is_item)).dictionary_encode(), line_of


def _refuse_table(path: Path, lists: _Lists) -> None:
    """Refuse a table without a header, or with one that is not understood."""
    for mark in ("::", ",", ";", "|"):
        if all(mark in line for line in lists.lines):
            raise _misnamed(path, f"every line holds {shown(mark)}", lists.lines[0], f" --separator '{mark}'")
    numeric = pc.match_substring_regex(lists.tokens, NUMBER).to_numpy(zero_copy_only=False)
    first = int(lists.lengths[0]) if len(lists.lengths) else 0
    if len(lists.lines) > 1 and first > 1 and not numeric[:first].any() and numeric[first:].all():
        msg = (
            f"{path.name}, line 1 reads like a header, not like LightGCN's `user item item ...`: "
            f"{shown(lists.lines[0])}. Say --format csv with --user-column and --item-column, or --format lightgcn."
        )
        raise DataProblem(msg)
    sign = _sign_of_ratings(lists, numeric)
    if sign:
        raise _misnamed(path, sign, lists.lines[0], "")


def _sign_of_ratings(lists: _Lists, numeric: NDArray[np.bool_]) -> str:
    """Why lines are rather `user item rating [time]`; empty where they are not."""
    widths = set(lists.lengths.tolist())
    if not widths <= {3, 4}:
        return ""
    width = " or ".join(str(each) for each in sorted(widths))
    every = f"every line has {width} fields"
    users = lists.column(0)
    if len(users.unique()) < len(users):
        return f"{every}, and users come on several of them"
    third = lists.column(2)
    if pc.all(pc.match_substring_regex(third, r"^[0-9]+\.[0-9]+$")).as_py():
        return f"{every}, the third with a decimal point"
    is_timed = widths == {4} and numeric[lists.starts + 3].all()
    if is_timed and pc.min(pc.cast(lists.column(3), pa.float64())).as_py() >= UNIX_TIME_MIN:
        return f"{every}, the fourth like a time"
    if widths == {3} and len(third) >= RATED_LINES_MIN and numeric[lists.starts + 2].all():
        most = pc.max(pc.cast(third, pa.float64())).as_py()
        items = lists.column(1)
        if most <= RATING_MAX and not pc.any(pc.is_in(items, value_set=third)).as_py():
            return f"{every}, the third like a rating"
    return ""


def _misnamed(path: Path, sign: str, line: str, separator: str) -> DataProblem:
    return DataProblem(
        f"{path.name} reads like `user item [rating [time]]`, not like LightGCN's `user item item ...`: {sign}, as in "
        f"{shown(line)}. Say --format pairs{separator} to read one interaction a line, or --format lightgcn where all "
        "but the first are items."
    )
