"""Parquet: interactions and titles in columns, whatever the writer called a string or an integer."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from service.interactions import headers, refusals
from service.interactions.columns import Pairs
from service.interactions.formats import PairColumns, Reading, pair_places, title_places, titles_by_id
from service.interactions.refusals import DataProblem, shown


def read_pairs(path: Path, reading: Reading) -> Pairs:
    """Interactions of a .parquet file; ids are strings, integers or decimals without a fraction.

    Raises:
        DataProblem: it cannot be used; tells the row and what to do.
    """
    table, places = _read(path, reading, pair_places)
    if not table.num_rows:
        raise refusals.empty(path, "columns and no interactions")
    named = {name: table.column(name) for name in places}
    columns = PairColumns(
        _ids(path, headers.USER.name, named),
        _ids(path, headers.ITEM.name, named),
        named.get(headers.RATING.name),
        named.get(headers.TIME.name),
    )
    return reading.pairs(columns, _place(path))


def read_titles(path: Path, reading: Reading) -> dict[str, str]:
    """Titles of an items.parquet by item id."""
    table, places = _read(path, reading, title_places)
    named = {name: table.column(name) for name in places}
    ids = reading.ids(headers.ITEM.name, _ids(path, headers.ITEM.name, named), _place(path))
    try:
        titles = named[headers.TITLE.name].cast(pa.string())
    except pa.ArrowException as error:
        kind = named[headers.TITLE.name].type
        msg = f"{path.name}: the titles are of type {kind}, not text. Convert the column."
        raise DataProblem(msg) from error
    return titles_by_id(ids.cast(pa.string()).to_pylist(), titles.to_pylist())


def _read(
    path: Path, reading: Reading, find: Callable[[Path, list[str], Reading], dict[str, int]]
) -> tuple[pa.Table, dict[str, int]]:
    """The columns that are needed, by our names."""
    try:
        file = pa.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        places = find(path, names, reading)
        table = file.read(columns=[names[place] for place in places.values()])
        table = pa.table({name: table.column(names[place]) for name, place in places.items()})
    except (pa.ArrowException, OSError) as error:
        msg = f"{path.name} is not a readable Parquet file: {shown(str(error))}. Write it again."
        raise DataProblem(msg) from error
    reading.meter.add(path.stat().st_size)
    reading.remark(headers.told(path, names, places))
    return table, places


def _place(path: Path) -> Callable[[int], str]:
    return lambda row: f"{path.name}, row {row + 1}"


def _ids(path: Path, name: str, columns: dict[str, pa.ChunkedArray]) -> pa.ChunkedArray:
    """A column of ids as strings, the same characters; integers in decimal."""
    column = columns[name]
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([_unpacked(chunk) for chunk in column.chunks], column.type.value_type)
    kind = column.type
    if pa.types.is_floating(kind):
        msg = (
            f"{path.name}: the column {name} is of type {kind}, as 7.0 instead of 7. Write it as integers or text "
            "(pandas: astype('Int64'), which keeps integers in spite of gaps)."
        )
        raise DataProblem(msg)
    if pa.types.is_decimal(kind):
        return _integers(path, name, column)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    packed = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    if not any(is_kind(kind) for is_kind in (pa.types.is_integer, *text, *packed)):
        msg = f"{path.name}: the column {name} is of type {kind}; ids are strings or integers. Convert the column."
        raise DataProblem(msg)
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid as error:
        msg = f"{path.name}: the column {name} holds bytes that are not UTF-8. Write it as text."
        raise DataProblem(msg) from error


def _unpacked(chunk: pa.DictionaryArray) -> pa.Array:
    """The values of a dictionary-encoded chunk; Arrow has no kernel that takes from views."""
    words = chunk.dictionary
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(words.type)
    values = (words if plain is None else words.cast(plain)).take(chunk.indices)
    return values if plain is None else values.cast(words.type)


def _integers(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    whole = pa.decimal256(kind.precision, 0) if pa.types.is_decimal256(kind) else pa.decimal128(kind.precision, 0)
    try:
        return column.cast(whole).cast(pa.string())
    except pa.ArrowInvalid as error:
        fraction = pc.not_equal(column, pc.trunc(column))
        row = pc.index(fraction, True).as_py()
        seen = f" ({_place(path)(row)}: {shown(str(column[row].as_py()))})" if row >= 0 else ""
        msg = f"{path.name}: the column {name} is of type {kind} with a fraction{seen}; ids are strings or integers."
        raise DataProblem(f"{msg} Convert the column.") from error
