"""How data files are to be read, where their names and headers do not say it or somebody wants it otherwise."""

from dataclasses import dataclass
from enum import StrEnum


class Format(StrEnum):
    """What the interactions of a file look like.

    `csv`: a header line, then a line an interaction; any separator. `pairs`: the same without a header,
    `user item [rating [time]]`. `movielens`: pairs as ratings.dat and u.data have them. `recbole`: tab-separated with
    a typed header. `lightgcn`: a line a user, `user item item ...`. `parquet`: columns.
    """

    CSV = "csv"
    PARQUET = "parquet"
    MOVIELENS = "movielens"
    LIGHTGCN = "lightgcn"
    RECBOLE = "recbole"
    PAIRS = "pairs"


@dataclass(frozen=True)
class ReadingOptions:
    """What a person says of the files; None leaves it to names and headers.

    `user_column` .. `time_column`: names of columns, or their places from 1 in a file without a header. `separator`:
    between fields, one or more characters. `min_rating`: rows with a lower rating, or none, are left out. `strip`:
    True takes white space off ids; False takes every id as it stands; None refuses ids with white space around them
    and whole columns of numbers that were written as floats, since nobody means such ids.
    """

    format: Format | None = None
    user_column: str | None = None
    item_column: str | None = None
    rating_column: str | None = None
    time_column: str | None = None
    separator: str | None = None
    min_rating: float | None = None
    strip: bool | None = None


AS_THEY_ARE = ReadingOptions()
"""Nothing is said."""
