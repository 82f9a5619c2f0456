"""Which column of a table is the user, the item, the rating, the time or the title, by its name.

`user_id` and `item_id` are ours. Spellings of them (`userId`, `User_ID`, `user id`, RecBole's `user_id:token`) and the
names that public data sets use (`movieId`, `product_id`) are taken as well, which is told; two columns that could both
be meant are refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.interactions.options import ReadingOptions
from service.interactions.refusals import DataProblem, listed, shown

_TYPE = re.compile(r":(token|float|token_seq|float_seq)\s*$")
_SKIPPED = re.compile(r"[\s_.\-]+")


@dataclass(frozen=True)
class ColumnRole:
    """What a column can mean: our `name` for it, the `option` that names it, and names in `tiers`, likeliest first.

    Names of tiers are in lower case and without spaces, underscores, dots and hyphens.
    """

    word: str
    name: str
    option: str
    tiers: tuple[frozenset[str], ...]


def _tiers(*lines: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(line.split()) for line in lines)


USER = ColumnRole(
    "user", "user_id", "--user-column", _tiers("userid", "user uid customerid visitorid reviewerid memberid userno")
)
ITEM = ColumnRole(
    "item",
    "item_id",
    "--item-column",
    _tiers(
        "itemid",
        "item iid movieid movie productid product bookid articleid songid trackid artistid businessid gameid asin isbn",
    ),
)
RATING = ColumnRole("rating", "rating", "--rating-column", _tiers("rating", "ratings score stars overall"))
TIME = ColumnRole(
    "time", "timestamp", "--time-column", _tiers("timestamp", "time datetime unixreviewtime unixtime ts date createdat")
)
TITLE = ColumnRole(
    "title", "title", "", _tiers("title", "movietitle itemtitle producttitle booktitle name itemname productname")
)


def place_of(path: Path, header: Sequence[str], role: ColumnRole, given: str | None = None) -> int | None:
    """The place from 0 of the column with that role, None where no name says so.

    Args:
        path: told in refusals.
        header: the names of the columns.
        role: which is wanted.
        given: the column's name, where a person said it.

    Raises:
        DataProblem: the column that was given is not there, or several could be meant.
    """
    if given is not None:
        places = [place for place, name in enumerate(header) if name == given]
        places = places or [place for place, name in enumerate(header) if _bare(name) == _bare(given)]
        if not places:
            msg = f"{path.name} has no column {shown(given)}; found: {listed(list(header))}. Correct {role.option}."
            raise DataProblem(msg)
        return _only(path, header, role, places)
    for tier in role.tiers:
        places = [place for place, name in enumerate(header) if _bare(name) in tier]
        if places:
            return _only(path, header, role, places)
    return None


def needed(path: Path, header: Sequence[str], role: ColumnRole, given: str | None = None) -> int:
    """The place of a column that must be there; raises DataProblem where it is not."""
    place = place_of(path, header, role, given)
    if place is None:
        how = f", or say which it is with {role.option}" if role.option else ", or take the file away"
        msg = (
            f"{path.name} has no column {role.name}; found: {listed(list(header))}. "
            f"Name the columns in the first line{how}."
        )
        if _is_data(header):
            msg += " A file without a header line is read with --format pairs."
        raise DataProblem(msg)
    return place


def names_all(fields: Sequence[str], wanted: Sequence[ColumnRole], how: ReadingOptions) -> bool:
    """Whether these fields are names of columns, one or more for each of these meanings."""
    given = {USER: how.user_column, ITEM: how.item_column}
    bare = {_bare(name) for name in fields}
    named = [any(bare & tier for tier in each.tiers) for each in wanted]
    asked = [bool(given.get(each)) and _bare(given[each] or "") in bare for each in wanted]
    return all(one or other for one, other in zip(named, asked, strict=True))


def told(path: Path, header: Sequence[str], places: dict[str, int]) -> str:
    """A sentence on columns that do not have our names; empty where all do.

    `places` goes from our name to the place of the column.
    """
    others = [f"{shown(header[place])} as {name}" for name, place in places.items() if header[place] != name]
    return f"{path.name}: read {', '.join(others)}." if others else ""


def _bare(name: str) -> str:
    return _SKIPPED.sub("", _TYPE.sub("", name.strip())).lower()


def _only(path: Path, header: Sequence[str], role: ColumnRole, places: list[int]) -> int:
    if len(places) == 1:
        return places[0]
    found = listed(list(header))
    if len({header[place] for place in places}) == 1:
        msg = f"{path.name} has the column {header[places[0]]} more than once; found: {found}. Keep one of them."
        raise DataProblem(msg)
    rivals = " or ".join(shown(header[place]) for place in places)
    way = f"Say which with {role.option}." if role.option else "Keep one of them."
    msg = f"{path.name}: is the {role.word} {rivals}? Found: {found}. {way}"
    raise DataProblem(msg)


def _is_data(header: Sequence[str]) -> bool:
    return len(header) > 1 and sum(name.strip().lstrip("-").replace(".", "", 1).isdigit() for name in header) > 1
