"""The file formats of interactions and titles, each read in columns by Arrow."""

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from service.interactions import refusals
from service.interactions.columns import Pairs, encode
from service.interactions.refusals import DataProblem
from service.platform.ids import MAX_ID_LENGTH

Progress = Callable[[int, int], None]
"""Told (done, total) while a long step runs."""

PAIR_COLUMNS = ("user_id", "item_id")
TITLE_COLUMNS = ("item_id", "title")
DAT_SEPARATOR = "::"
_UNIT_SEPARATOR = b"\x1f"  # Arrow splits at one byte only; this one may not stand in an id
_ID_COLUMN = pa.dictionary(pa.int32(), pa.string())


@dataclass
class ReadProgress:
    """Counts the bytes read of all files together, and tells."""

    total: int
    tell: Progress | None = None
    done: int = field(default=0, init=False)

    def add(self, n_bytes: int) -> None:
        """That many bytes more are read."""
        self.done += n_bytes
        if self.tell is not None and n_bytes:
            self.tell(min(self.done, self.total), self.total)


class _Metered(io.RawIOBase):
    """A binary file that counts what is read of it; compressed bytes, so that the total is known."""

    def __init__(self, path: Path, meter: ReadProgress) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._meter = meter

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self._meter.add(count)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _bytes_of(path: Path, meter: ReadProgress) -> bytes:
    with _Metered(path, meter) as file:
        return file.readall()


def read_csv_pairs(path: Path, meter: ReadProgress) -> Pairs:
    """Interactions of a .csv or .csv.gz with a header line; other columns are passed over."""
    header_line, header = _csv_header(path)
    refusals.check_columns(path, header, PAIR_COLUMNS)
    places = [header.index(name) for name in PAIR_COLUMNS]

    def ids_of(line: str) -> list[tuple[str, str]]:
        fields = _expect(refusals.csv_fields(line), len(header))
        return [(name, fields[place]) for name, place in zip(PAIR_COLUMNS, places, strict=True)]

    types = dict.fromkeys(PAIR_COLUMNS, _ID_COLUMN)
    try:
        table = _csv(path, meter, types, multiline=False)
    except (pa.ArrowException, OSError) as error:
        refusals.diagnose(path, ids_of, skip_lines=header_line, cause=str(error))
    if not table.num_rows:
        raise refusals.empty(path, "a header and no interactions")
    pairs = Pairs(encode(table["user_id"]), encode(table["item_id"]))
    if not _sound(pairs):
        refusals.diagnose(path, ids_of, skip_lines=header_line)
    return pairs


def read_csv_titles(path: Path, meter: ReadProgress) -> dict[str, str]:
    """Titles of an items.csv or items.csv.gz by item id; the first of several counts, empty ones are left out."""
    header_line, header = _csv_header(path)
    refusals.check_columns(path, header, TITLE_COLUMNS)

    def ids_of(line: str) -> list[tuple[str, str]]:
        return [("item_id", _expect(refusals.csv_fields(line), len(header))[header.index("item_id")])]

    try:
        table = _csv(path, meter, dict.fromkeys(TITLE_COLUMNS, pa.string()), multiline=True)
    except (pa.ArrowException, OSError) as error:
        refusals.diagnose(path, ids_of, skip_lines=header_line, cause=str(error))
    return _titles(table["item_id"].to_pylist(), table["title"].to_pylist())


def read_parquet_pairs(path: Path, meter: ReadProgress) -> Pairs:
    """Interactions of a .parquet file; ids are strings or integers."""
    table = _parquet(path, meter, PAIR_COLUMNS)
    if not table.num_rows:
        raise refusals.empty(path, "columns and no interactions")
    columns = [_id_column(path, name, table[name]) for name in PAIR_COLUMNS]
    pairs = Pairs(encode(columns[0]), encode(columns[1]))
    if not _sound(pairs):
        for row, ids in enumerate(zip(*(column.to_pylist() for column in columns), strict=True), 1):
            for name, id in zip(PAIR_COLUMNS, ids, strict=True):
                refusals.check_id(f"{path.name}, row {row}", name, id or "")
    return pairs


def read_parquet_titles(path: Path, meter: ReadProgress) -> dict[str, str]:
    """Titles of an items.parquet by item id."""
    table = _parquet(path, meter, TITLE_COLUMNS)
    ids = _id_column(path, "item_id", table["item_id"])
    return _titles(ids.to_pylist(), table["title"].cast(pa.string()).to_pylist())


def read_dat_pairs(path: Path, meter: ReadProgress) -> Pairs:
    """Interactions of a MovieLens ratings.dat: user::item[::rating::timestamp], no header."""
    data = _bytes_of(path, meter)
    first = data.lstrip(b"\r\n").partition(b"\n")[0].strip()
    if not first:
        raise refusals.empty(path)
    n_fields = first.count(DAT_SEPARATOR.encode()) + 1

    def ids_of(line: str) -> list[tuple[str, str]]:
        return list(zip(PAIR_COLUMNS, _expect(line.split(DAT_SEPARATOR), max(n_fields, 2)), strict=False))

    names = [*PAIR_COLUMNS, *(f"rest_{place}" for place in range(2, n_fields))]
    packed = data.replace(DAT_SEPARATOR.encode(), _UNIT_SEPARATOR)
    if n_fields < 2:
        refusals.diagnose(path, ids_of)
    try:
        table = _dat(packed, names)
    except (pa.ArrowException, OSError) as error:
        refusals.diagnose(path, ids_of, cause=str(error))
    pairs = Pairs(encode(table["user_id"]), encode(table["item_id"]))
    if not _sound(pairs):
        refusals.diagnose(path, ids_of)
    return pairs


def read_dat_titles(path: Path, meter: ReadProgress) -> dict[str, str]:
    """Titles of a MovieLens movies.dat: item::title[::genres]; UTF-8 where it is valid, else Latin-1 as ML-1M is."""
    data = _bytes_of(path, meter)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    ids, titles = [], []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split(DAT_SEPARATOR)
        if line and len(fields) < 2:
            place = f"{path.name}, line {number}"
            msg = f"{place} cannot be read (no title): {refusals.shown(line)}. Correct the line or leave it out."
            raise DataProblem(msg)
        if line:
            ids.append(fields[0])
            titles.append(fields[1])
    return _titles(ids, titles)


def read_lightgcn_pairs(path: Path, meter: ReadProgress) -> Pairs:
    """Interactions of a LightGCN train.txt: a line a user, `user item item ...`; a user alone adds nothing."""
    data = _bytes_of(path, meter)

    def ids_of(line: str) -> list[tuple[str, str]]:
        columns = itertools.chain(["user_id"], itertools.repeat("item_id"))
        return list(zip(columns, line.split(), strict=False))

    try:
        lines = pa.array(data.decode("utf-8-sig").split("\n"), pa.large_string())
    except UnicodeDecodeError:
        refusals.diagnose(path, ids_of)
    pairs = _adjacency(pc.ascii_split_whitespace(pc.ascii_trim_whitespace(lines)))
    if not len(pairs):
        raise refusals.empty(path, "no line with a user and an item" if data.strip() else "nothing")
    if not _sound(pairs):
        refusals.diagnose(path, ids_of)
    return pairs


def _adjacency(lists: Any) -> Pairs:
    """Pairs from lists of tokens, the first of each the user."""
    lengths = pc.list_value_length(lists).to_numpy()
    tokens = pc.list_flatten(lists)
    starts = np.cumsum(lengths) - lengths
    filled = (lengths > 1) & (tokens.take(pa.array(np.minimum(starts, len(tokens) - 1))).to_numpy(False) != "")
    is_item = np.repeat(filled, lengths)
    is_item[starts[filled]] = False
    users = tokens.take(pa.array(starts[filled])).dictionary_encode()
    repeated = np.repeat(users.indices.to_numpy(), lengths[filled] - 1)
    return Pairs(pa.DictionaryArray.from_arrays(repeated, users.dictionary), encode(tokens.filter(pa.array(is_item))))


def _sound(pairs: Pairs) -> bool:
    """Whether every id of both columns may be an id."""
    return _sound_ids(pairs.users) and _sound_ids(pairs.items)


def _sound_ids(column: pa.DictionaryArray) -> bool:
    ids = column.dictionary
    if column.null_count or ids.null_count:
        return False
    length = pc.utf8_length(ids)
    bad = pc.or_(pc.equal(length, 0), pc.greater(length, MAX_ID_LENGTH))
    return not pc.any(pc.or_(bad, pc.match_substring_regex(ids, refusals.FORBIDDEN_IN_IDS))).as_py()


def _csv_header(path: Path) -> tuple[int, list[str]]:
    """The number of the header's line and its column names."""
    for number, raw in refusals.read_text_lines(path):
        if raw.strip():
            try:
                return number, refusals.csv_fields(raw.decode("utf-8-sig"))
            except ValueError as error:
                text = refusals.shown(raw.decode("utf-8", "backslashreplace"))
                msg = f"{path.name}, line {number} is no header: {text}. Begin the file with user_id,item_id."
                raise DataProblem(msg) from error
    raise refusals.empty(path)


def _csv(path: Path, meter: ReadProgress, types: dict[str, Any], *, multiline: bool) -> pa.Table:
    with _Metered(path, meter) as file:
        stream = pa.PythonFile(file, mode="r")
        return pa.csv.read_csv(
            pa.CompressedInputStream(stream, "gzip") if path.suffix == ".gz" else stream,
            parse_options=pa.csv.ParseOptions(newlines_in_values=multiline),
            convert_options=pa.csv.ConvertOptions(
                column_types=types, include_columns=list(types), strings_can_be_null=False
            ),
        )


def _dat(packed: bytes, names: list[str]) -> pa.Table:
    return pa.csv.read_csv(
        pa.BufferReader(packed),
        read_options=pa.csv.ReadOptions(column_names=names),
        parse_options=pa.csv.ParseOptions(delimiter=_UNIT_SEPARATOR.decode(), quote_char=False),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(PAIR_COLUMNS, _ID_COLUMN),
            include_columns=list(PAIR_COLUMNS),
            strings_can_be_null=False,
        ),
    )


def _parquet(path: Path, meter: ReadProgress, wanted: tuple[str, ...]) -> pa.Table:
    try:
        file = pa.parquet.ParquetFile(path)
        refusals.check_columns(path, file.schema_arrow.names, wanted)
        table = file.read(columns=list(wanted))
    except (pa.ArrowException, OSError) as error:
        msg = f"{path.name} is not a readable Parquet file: {refusals.shown(str(error))}. Write it again."
        raise DataProblem(msg) from error
    meter.add(path.stat().st_size)
    return table


def _id_column(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        msg = f"{path.name}: the column {name} is of type {kind}; ids are strings or integers. Convert the column."
        raise DataProblem(msg)
    return column.cast(pa.string())


def _titles(ids: Sequence[str | None], titles: Sequence[str | None]) -> dict[str, str]:
    # The last entry of a dict wins, so reading backwards keeps the first title of an item.
    pairs = zip(reversed(ids), reversed(titles), strict=True)
    return {id: refusals.printable(title) for id, title in pairs if id and title and title.strip()}


def _expect(fields: list[str], n_fields: int) -> list[str]:
    if len(fields) != n_fields:
        msg = f"{len(fields)} fields where {n_fields} are expected"
        raise ValueError(msg)
    return fields
