"""Tables as text: interactions or titles a line, with a header or without, split at any separator."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from service.interactions import headers, refusals
from service.interactions.columns import Pairs, encode
from service.interactions.formats import PairColumns, Reading, pair_places, title_places, titles_by_id
from service.interactions.identifiers import INTEGER, NUMBER
from service.interactions.options import AS_THEY_ARE, Format, ReadingOptions
from service.interactions.refusals import DataProblem, shown
from service.interactions.text import csv_records, decode, line_at, plain, plain_suffix, split_lines, unreadable

BLANKS = " "
"""The separator that stands for any run of spaces and tabs."""
DOUBLE_COLON = "::"

_SEPARATORS = (",", "\t", ";", "|", DOUBLE_COLON, BLANKS)
_BARE_SEPARATORS = (DOUBLE_COLON, "\t", ";", "|", ",", BLANKS)
_FIRST_LINE = re.compile(rb"(?:^|(?<=[\r\n]))([^\r\n]*[^\s][^\r\n]*)(?:\r\n|\r|\n|\Z)")
_MARGINS = re.compile(rb"(?:\A|(?<=[\r\n]))[ \t]+|[ \t]+(?=[\r\n]|\Z)")
_BLANK_RUN = re.compile("[ \t]+")
_UNIT_SEPARATOR = b"\x1f"  # Arrow splits at one byte only; this one may not stand in an id
_FEW_WORDS = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class _Table:
    """The bytes of a table and how its lines are to be split.

    `names`: of its columns; places from 1 where it has no header. `skipped`: bytes up to the end of the header line.
    `quoting`: whether a quotation mark may stand around a field.
    """

    path: Path
    data: bytes
    separator: str
    names: list[str]
    skipped: int
    quoting: bool

    @cached_property
    def quoted(self) -> bool:
        """Whether there are quotation marks to be heeded."""
        return self.quoting and b'"' in self.data

    def place(self, row: int) -> str:
        """Where a row stands, counted from 0 without the header; slow."""
        number = next(islice(self._rows(self.data.decode("utf-8", "replace")), row, None), (0, []))[0]
        return f"{self.path.name}, line {number}"

    def _rows(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """The fields of each row below the header with the number of its line."""
        records: Iterator[tuple[int, list[str]]]
        if self.quoted:
            records = csv_records(self.path, text, self.separator)
        else:
            lines = enumerate(split_lines(text), 1)
            records = ((number, _split(line, self.separator)) for number, line in lines if not _is_blank(line, self))
        return islice(records, 1 if self.skipped else 0, None)

    def columns(self, wanted: dict[str, Any]) -> pa.Table:
        """The wanted columns (place -> type), by Arrow."""
        data = self.data[self.skipped :]
        delimiter = self.separator
        if not _may_quote_at(delimiter):
            if _UNIT_SEPARATOR in data:
                self.diagnose()
            data = _packed(data, delimiter)
            delimiter = _UNIT_SEPARATOR.decode()
        if self.quoted and _may_be_badly_quoted(data, delimiter):
            _exhaust(self._rows(decode(self.path, self.data)))
        if not data.strip():
            return pa.table({name: pa.array([], kind) for name, kind in wanted.items()})
        try:
            return self._read(data, delimiter, wanted)
        except (pa.ArrowException, OSError) as error:
            # A row longer than one of Arrow's blocks is read in one block as large as the file.
            try:
                return self._read(data, delimiter, wanted, block_size=min(len(data) + 1, 2**31 - 1))
            except (pa.ArrowException, OSError):
                self.diagnose(str(error))

    def _read(self, data: bytes, delimiter: str, wanted: dict[str, Any], block_size: int | None = None) -> pa.Table:
        return pa.csv.read_csv(
            pa.BufferReader(data),
            read_options=pa.csv.ReadOptions(
                column_names=[str(place) for place in range(len(self.names))], block_size=block_size
            ),
            parse_options=pa.csv.ParseOptions(
                delimiter=delimiter, quote_char='"' if self.quoted else False, newlines_in_values=self.quoted
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types=wanted, include_columns=list(wanted), strings_can_be_null=False
            ),
        )

    def diagnose(self, cause: str = "") -> NoReturn:
        """Find the first line that cannot be used and raise DataProblem with its number; slow."""
        text = decode(self.path, self.data)
        for number, fields in self._rows(text):
            if len(fields) != len(self.names):
                reason = f"{len(fields)} fields where {len(self.names)} are expected"
                raise unreadable(self.path, number, reason, line_at(text, number))
            if any(_UNIT_SEPARATOR.decode() in field for field in fields):
                raise unreadable(self.path, number, "it holds control characters", line_at(text, number))
        reason = cause.partition("\n")[0] or "no reason was given"
        msg = f"{self.path.name} cannot be read: {shown(reason)}. Check how it was written."
        raise DataProblem(msg)


def read_pairs(path: Path, reading: Reading, natural: Format = Format.CSV) -> Pairs:
    """Interactions of a table.

    Args:
        path: the file, packed or not.
        reading: options, progress and remarks.
        natural: csv and recbole need a header line; pairs and movielens may do without one.

    Raises:
        DataProblem: it cannot be used; tells the line and what to do.
    """
    table = _open(path, reading, natural, (headers.USER, headers.ITEM))
    places = pair_places(path, table.names, reading, bare=not table.skipped)
    if table.skipped:
        reading.remark(headers.told(path, table.names, places))
    kinds = {headers.RATING.name: _FEW_WORDS, headers.TIME.name: pa.string()}
    read = table.columns({str(place): kinds.get(name, _FEW_WORDS) for name, place in places.items()})
    if not read.num_rows:
        raise refusals.empty(path, "a header and no interactions")
    found = {name: read[str(place)] for name, place in places.items()}
    columns = PairColumns(
        found[headers.USER.name],
        found[headers.ITEM.name],
        found.get(headers.RATING.name),
        found.get(headers.TIME.name),
    )
    if not table.skipped:
        _refuse_header(table, columns)
    return reading.pairs(columns, table.place)


def read_titles(path: Path, reading: Reading, natural: Format = Format.CSV) -> dict[str, str]:
    """Titles of a table with a header, by item id; the first of several counts, empty ones are left out."""
    table = _open(path, reading, natural, (headers.ITEM, headers.TITLE))
    places = title_places(path, table.names, reading)
    reading.remark(headers.told(path, table.names, places))
    read = table.columns({str(place): pa.string() for place in places.values()})
    ids = reading.ids(headers.ITEM.name, read[str(places[headers.ITEM.name])], table.place)
    return titles_by_id(ids.cast(pa.string()).to_pylist(), read[str(places[headers.TITLE.name])].to_pylist())


def read_bare_titles(path: Path, reading: Reading, separator: str) -> dict[str, str]:
    """Titles of MovieLens' movies.dat (`item::title[::genres]`) and u.item (`item|title|...`), which have no header.

    UTF-8 where it is valid, else Latin-1 as the older releases are.
    """
    text = decode(path, reading.bytes_of(path), fallback="latin-1")
    numbered = [(number, line) for number, line in enumerate(split_lines(text), 1) if line]
    for number, line in numbered:
        if separator not in line:
            raise unreadable(path, number, "no title", line)
    rows = [line.split(separator, 2) for _, line in numbered]
    if not rows:
        return {}
    if headers.names_all(rows[0], (headers.ITEM, headers.TITLE), AS_THEY_ARE):
        numbered, rows = numbered[1:], rows[1:]
    ids = reading.ids(
        headers.ITEM.name,
        pa.array([row[0] for row in rows], pa.string()),
        lambda row: f"{path.name}, line {numbered[row][0]}",
    )
    return titles_by_id(ids.cast(pa.string()).to_pylist(), [row[1] for row in rows])


def has_header(first_line: str, how: ReadingOptions) -> bool:
    """Whether a first line names the columns of a user and an item, whatever stands between them."""
    wanted = (headers.USER, headers.ITEM)
    return any(headers.names_all(_names(first_line, each, _may_quote_at(each)), wanted, how) for each in _SEPARATORS)


def separator_in(line: str) -> str:
    """What the fields of a line without a header are most likely split at."""
    return next((separator for separator in _BARE_SEPARATORS if separator in line), BLANKS)


def _open(path: Path, reading: Reading, natural: Format, wanted: tuple[headers.ColumnRole, ...]) -> _Table:
    data = plain(path, reading.bytes_of(path))
    first = _FIRST_LINE.search(data)
    if first is None:
        raise refusals.empty(path)
    line, given = decode(path, first.group(1)), reading.how.separator
    may_quote = natural not in (Format.RECBOLE, Format.MOVIELENS)
    tabs_first = natural is Format.RECBOLE or plain_suffix(path) in (".tsv", ".tab")
    candidates = (given,) if given else ("\t", *_SEPARATORS) if tabs_first else _SEPARATORS
    split = {each: _names(line, each, may_quote and _may_quote_at(each)) for each in candidates}
    for separator, names in split.items():
        if headers.names_all(names, wanted, reading.how):
            quoting = may_quote and _may_quote_at(separator)
            return _Table(path, data, separator, names, first.end(), quoting)
    if natural in (Format.PAIRS, Format.MOVIELENS):
        return _without_header(path, data, line, given or separator_in(line), may_quote)
    separator = max(split, key=lambda each: len(split[each]))
    quoting = may_quote and _may_quote_at(separator)
    return _Table(path, data, separator, split[separator], first.end(), quoting)


def _without_header(path: Path, data: bytes, line: str, separator: str, may_quote: bool) -> _Table:
    quoting = may_quote and _may_quote_at(separator)
    names = _names(line, separator, quoting)
    if len(names) < 2:
        number = len(split_lines(data[: data.find(line.encode())].decode())) + 1
        raise unreadable(path, number, "1 field where a user and an item are expected", line)
    places = [str(number) for number in range(1, len(names) + 1)]
    return _Table(path, data, separator, places, 0, quoting)


def _may_quote_at(separator: str) -> bool:
    """Whether it is the one byte that CSV parts at; at anything longer, quotation marks are part of the fields."""
    return separator != BLANKS and len(separator.encode()) == 1


def _names(line: str, separator: str, quoting: bool) -> list[str]:
    """The fields of one line."""
    if not quoting or '"' not in line:
        return _split(line, separator)
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error:
        return _split(line, separator)


def _split(line: str, separator: str) -> list[str]:
    return _BLANK_RUN.split(line.strip(" \t")) if separator == BLANKS else line.split(separator)


def _refuse_header(table: _Table, columns: PairColumns) -> None:
    """Refuse a first row that is a header whose names are not understood: it would become a user and an item."""
    ids = [encode(column).dictionary for column in (columns.users, columns.items)]
    below = [words.slice(1) for words in ids]  # words stand in the order of their first rows
    alone = all(len(each) and pc.all(pc.match_substring_regex(each, INTEGER)).as_py() for each in below)
    strange = not any(pc.match_substring_regex(each.slice(0, 1), NUMBER)[0].as_py() for each in ids)
    if alone and strange:
        line = table.separator.join(str(each[0]) for each in ids)
        msg = (
            f"{table.place(0)} reads like a header: {shown(line)} above numbers. Say --format csv with --user-column "
            "and --item-column, or take the line away."
        )
        raise DataProblem(msg)


def _exhaust(rows: Iterator[tuple[int, list[str]]]) -> None:
    """Go through all rows; the first that cannot be read is refused."""
    for _ in rows:
        pass


def _is_blank(line: str, table: _Table) -> bool:
    return not (line.strip(" \t") if table.separator == BLANKS else line)


def _packed(data: bytes, separator: str) -> bytes:
    """The same lines, split at one byte that stands nowhere else."""
    if separator != BLANKS:
        return data.replace(separator.encode(), _UNIT_SEPARATOR)
    return re.sub(rb"[ \t]+", _UNIT_SEPARATOR, _MARGINS.sub(b"", data))


def _may_be_badly_quoted(data: bytes, delimiter: str) -> bool:
    """Whether text may stand beside a quotation mark outside of it: Arrow would join both, and so alter an id.

    A quick look at the marks by turns, opening and closing, that may be wrong where one stands inside a field without
    others around it; going through the lines then decides.
    """
    content = np.frombuffer(data, np.uint8)
    marks = np.flatnonzero(content == ord('"'))
    if len(marks) % 2:
        return True
    beside = np.frombuffer(delimiter.encode()[:1] + b'\r\n"', np.uint8)
    padded = np.concatenate((beside[1:2], content, beside[1:2]))
    before, after = padded[marks[::2]], padded[marks[1::2] + 2]
    return not (np.isin(before, beside).all() and np.isin(after, beside).all())
