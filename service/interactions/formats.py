"""What the readers of all formats share: the progress, the options, and what they have to say."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from service.interactions import headers, refusals
from service.interactions.columns import Pairs
from service.interactions.identifiers import IdColumn, Place, check_column
from service.interactions.options import AS_THEY_ARE, ReadingOptions
from service.interactions.ratings import read_numbers
from service.interactions.text import unpack

Progress = Callable[[int, int], None]
"""Told (done, total) while a long step runs."""


@dataclass
class ReadProgress:
    """Counts the bytes read of all files together, and tells."""

    total: int = 0
    tell: Progress | None = None
    done: int = field(default=0, init=False)

    def add(self, n_bytes: int) -> None:
        """That many bytes more are read."""
        self.done += n_bytes
        if self.tell is not None and n_bytes:
            self.tell(min(self.done, self.total), self.total)


@dataclass
class Reading:
    """One reading of a data set: how it is to be done, how far it is, and what was noticed on the way.

    `remarks` are sentences for the person who brought the data. `columns` are the ids of all files so far. `names`
    says by file which of its columns was read as what.
    """

    how: ReadingOptions = AS_THEY_ARE
    meter: ReadProgress = field(default_factory=ReadProgress)
    remarks: list[str] = field(default_factory=list, init=False)
    columns: list[IdColumn] = field(default_factory=list, init=False)
    names: dict[str, dict[str, str]] = field(default_factory=dict, init=False)

    def remark(self, text: str) -> None:
        """Say something once; an empty text is nothing."""
        if text and text not in self.remarks:
            self.remarks.append(text)

    def bytes_of(self, path: Path) -> bytes:
        """What a file holds, unpacked; raises DataProblem for a damaged .gz or .zst."""
        with _Metered(path, self.meter) as file:
            return unpack(path, file.readall())

    def ids(self, name: str, column: pa.Array | pa.ChunkedArray, place: Place) -> pa.DictionaryArray:
        """The checked ids of a column of strings; raises DataProblem."""
        checked = check_column(name, column, place, self.how.strip)
        self.columns.append(checked)
        return checked.ids

    def pairs(self, columns: "PairColumns", place: Place) -> Pairs:
        """Interactions from columns: ids checked, ratings and times counted, rows under the threshold left out."""
        users = self.ids(headers.USER.name, columns.users, place)
        items = self.ids(headers.ITEM.name, columns.items, place)
        threshold, how = self.how.min_rating, self.how
        ratings = times = None
        if columns.ratings is not None:
            strict = threshold is not None or how.rating_column is not None
            ratings = read_numbers(columns.rating_name, columns.ratings, place, strict=strict)
            self.remark(ratings.remark)
        if columns.times is not None:
            times = read_numbers(columns.time_name, columns.times, place, strict=how.time_column is not None)
            self.remark(times.remark)
        facts = {
            "n_rows": len(users),
            "n_rated": ratings.n_known if ratings else 0,
            "n_timed": times.n_known if times else 0,
        }
        if threshold is None or ratings is None:
            return Pairs(users, items, **facts)
        kept = pa.array(ratings.at_least(threshold))
        return Pairs(_kept(users, kept), _kept(items, kept), **facts)


@dataclass(frozen=True)
class PairColumns:
    """The columns of a file of interactions, of one length: ids as strings, ratings and times as they stand."""

    users: pa.Array | pa.ChunkedArray
    items: pa.Array | pa.ChunkedArray
    ratings: pa.Array | pa.ChunkedArray | None = None
    times: pa.Array | pa.ChunkedArray | None = None
    rating_name: str = headers.RATING.name
    time_name: str = headers.TIME.name


def pair_places(path: Path, names: Sequence[str], reading: Reading, *, bare: bool = False) -> dict[str, int]:
    """Where user, item, and rating and time if they are there, stand among columns; by our name for them.

    Args:
        path: told in refusals.
        names: of the columns; without a header (`bare`) their places from 1, read as user, item, rating, time.
        reading: options; the names that were taken are noted in it.
        bare: there is no header.

    Raises:
        DataProblem: one that is needed or was asked for is missing, or cannot be told.
    """
    how = reading.how
    asked = {
        headers.USER: how.user_column,
        headers.ITEM: how.item_column,
        headers.RATING: how.rating_column,
        headers.TIME: how.time_column,
    }
    places: dict[str, int] = {}
    for position, (role, given) in enumerate(asked.items()):
        is_needed = role in (headers.USER, headers.ITEM) or (role is headers.RATING and how.min_rating is not None)
        by_default = str(position + 1) if bare and str(position + 1) in names else None
        if given is not None or is_needed:
            places[role.name] = headers.needed(path, names, role, given or by_default)
        else:
            found = position if by_default else _unless_doubtful(path, names, role)
            if found is not None and found not in places.values():
                places[role.name] = found
    if len(set(places.values())) < len(places):
        msg = f"{path.name}: one column is named for two things; found: {refusals.listed(list(names))}."
        raise refusals.DataProblem(f"{msg} Correct --user-column, --item-column, --rating-column or --time-column.")
    reading.names[path.name] = {name: names[place] for name, place in places.items()}
    return places


def title_places(path: Path, names: Sequence[str], reading: Reading) -> dict[str, int]:
    """Where item and title stand among named columns, by our name for them; raises DataProblem."""
    given = reading.how.item_column  # is a column of the interactions; titles may have it or not
    return {
        headers.ITEM.name: headers.needed(path, names, headers.ITEM, given if given in names else None),
        headers.TITLE.name: headers.needed(path, names, headers.TITLE),
    }


def titles_by_id(ids: Sequence[str], titles: Sequence[str | None]) -> dict[str, str]:
    """Titles by item id; the first of several counts, empty ones are left out."""
    # The last entry of a dict wins, so reading backwards keeps the first title of an item.
    pairs = zip(reversed(ids), reversed(titles), strict=True)
    return {id: refusals.printable(title) for id, title in pairs if title and title.strip()}


def _unless_doubtful(path: Path, names: Sequence[str], role: headers.ColumnRole) -> int | None:
    # Nobody asked for it: where several columns could be meant, it is not read.
    try:
        return headers.place_of(path, names, role)
    except refusals.DataProblem:
        return None


def _kept(column: pa.DictionaryArray, mask: pa.Array) -> pa.DictionaryArray:
    # The dictionary is made anew, so that it holds no id without a row.
    return column.filter(mask).cast(pa.string()).dictionary_encode()


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
