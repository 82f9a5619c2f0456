"""`expunge import`: bring a data set into the database; and the options of everything that reads data."""

from __future__ import annotations

from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.context import Json, open_home, print_result, settings_of
from service.cli.failures import Refusal
from service.cli.imported import remember_import
from service.cli.terminal import Terminal
from service.interactions.options import Format, ReadingOptions

if TYPE_CHECKING:
    from service.interactions.importing import ImportReport
    from service.interactions.readers import ReadDataset
    from service.recommender.dataset import Dataset

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="PATH", help="Folder with train.csv, .parquet, ratings.dat, u.data ..., or a file."),
]

# How to read it; shared by all commands that read data.
_PANEL = "Reading the data"
FormatName = Annotated[
    Format | None,
    typer.Option("--format", help="What the interactions look like [as the file's name says].", rich_help_panel=_PANEL),
]
UserColumn = Annotated[
    str | None,
    typer.Option(
        "--user-column",
        metavar="NAME",
        help="Column of users, by name or, without a header, place [user_id].",
        rich_help_panel=_PANEL,
    ),
]
ItemColumn = Annotated[
    str | None,
    typer.Option("--item-column", metavar="NAME", help="Column of items [item_id].", rich_help_panel=_PANEL),
]
RatingColumn = Annotated[
    str | None,
    typer.Option("--rating-column", metavar="NAME", help="Column of ratings [rating].", rich_help_panel=_PANEL),
]
TimeColumn = Annotated[
    str | None,
    typer.Option("--time-column", metavar="NAME", help="Column of times [timestamp].", rich_help_panel=_PANEL),
]
Separator = Annotated[
    str | None,
    typer.Option(
        "--separator",
        metavar="TEXT",
        help="Between fields: `;`, `::`, `tab`, `space` ... [seen].",
        rich_help_panel=_PANEL,
    ),
]
MinRating = Annotated[
    float | None,
    typer.Option(
        "--min-rating", metavar="R", help="Leave out rows with a lower rating, or none.", rich_help_panel=_PANEL
    ),
]
Strip = Annotated[
    bool | None,
    typer.Option(
        "--strip/--no-strip",
        help="Take white space around ids off, or take every id as it stands [refuse such ids].",
        rich_help_panel=_PANEL,
    ),
]

_SEPARATORS = {"tab": "\t", "\\t": "\t", "space": " ", "blank": " ", "comma": ",", "semicolon": ";", "pipe": "|"}


def import_(
    context: typer.Context,
    data: Data = None,
    format: FormatName = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    rating_column: RatingColumn = None,
    time_column: TimeColumn = None,
    separator: Separator = None,
    min_rating: MinRating = None,
    strip: Strip = None,
    json_file: Json = None,
) -> None:
    """Read a data set and record its interactions and titles. Doing it again changes nothing.

    Only the train part is recorded; a test part is for evaluation. What an erasure covers stays out.
    """
    from service.interactions.importing import import_dataset
    from service.interactions.readers import read

    settings = settings_of(context)
    source = data or settings.data_dir
    if source is None:
        msg = "Which data? Name the folder or the file with --data PATH."
        raise Refusal(msg)
    how = reading_options(format, user_column, item_column, rating_column, time_column, separator, min_rating, strip)
    terminal = Terminal()
    with terminal.step("Reading", "bytes") as progress:
        found = read(source.expanduser(), how=how, progress=progress)
    with open_home(settings, upgrade=True) as home, terminal.step("Recording", "interactions") as progress:
        report = import_dataset(home.database, home.identity, found.dataset, progress=progress)
    remember_import(settings.home, source.expanduser(), how, len(found.dataset.test))
    document = {"dataset": dataset_facts(found.dataset), "import": asdict(report), "reading": reading_facts(found, how)}
    print_result(json_file, document, _text(found, report, how))


def reading_options(
    format: Format | None = None,
    user_column: str | None = None,
    item_column: str | None = None,
    rating_column: str | None = None,
    time_column: str | None = None,
    separator: str | None = None,
    min_rating: float | None = None,
    strip: bool | None = None,
) -> ReadingOptions:
    """What the command line says of the files; raises BadParameter."""
    if separator is not None:
        separator = _SEPARATORS.get(separator.lower(), separator)
        if not separator or set(separator) & set('\r\n"'):
            msg = "A separator is one or more characters, and neither a line end nor a quotation mark."
            raise typer.BadParameter(msg, param_hint="--separator")
    if min_rating is not None and isnan(min_rating):
        msg = "NaN is above and below nothing; give a number."
        raise typer.BadParameter(msg, param_hint="--min-rating")
    return ReadingOptions(format, user_column, item_column, rating_column, time_column, separator, min_rating, strip)


def dataset_facts(dataset: Dataset) -> dict[str, object]:
    """Name and size of a data set."""
    return {
        "name": dataset.name,
        "n_users": len(dataset.users),
        "n_items": len(dataset.items),
        "n_train": len(dataset.train),
        "n_test": len(dataset.test),
    }


def reading_facts(found: ReadDataset, how: ReadingOptions) -> dict[str, Any]:
    """What was read, how it was understood, and what was left out."""
    files, counts = found.files, found.dataset.counts
    parts = {"train": files.train, "test": files.test, "titles": files.items}
    return {
        "format": files.format.value,
        "files": {part: [path.name for path in source.paths] if source else [] for part, source in parts.items()},
        "columns": found.columns,
        "not_used": [path.name for path in (*files.validation, *files.rivals, *files.others)],
        "n_rated": found.n_rated,
        "n_timed": found.n_timed,
        "n_titles": len(found.dataset.titles),
        "min_rating": how.min_rating,
        "below_min_rating": {"train": counts.train_below_rating, "test": counts.test_below_rating},
        "repeated": {"train": counts.train_duplicates, "test": counts.test_duplicates},
        "left_out_of_test": {"unknown": counts.test_unknown, "in_train": counts.test_overlap},
        "remarks": list(found.remarks),
    }


def _text(found: ReadDataset, report: ImportReport, how: ReadingOptions) -> str:
    dataset = found.dataset
    counts = dataset.counts
    lines = [
        f"{dataset.name}: {len(dataset.users):,} users, {len(dataset.items):,} items, "
        f"{len(dataset.train):,} interactions, {len(dataset.test):,} more for evaluation.",
        f"Recorded {report.recorded:,}; {report.duplicates:,} were recorded before; "
        f"{report.refused:,} are covered by an erasure.",
    ]
    if how.min_rating is not None:
        of_test = f" and {counts.test_below_rating:,} of test" if counts.test_rows else ""
        lines.append(
            f"Left out {counts.train_below_rating:,} rows{of_test} with a rating below {how.min_rating:g}, or none."
        )
    if counts.train_duplicates or counts.test_duplicates:
        lines.append(f"Merged {counts.train_duplicates + counts.test_duplicates:,} repeated rows.")
    if counts.test_unknown or counts.test_overlap:
        lines.append(
            f"Left out of evaluation: {counts.test_unknown:,} pairs of a user or item that train lacks, "
            f"{counts.test_overlap:,} that train has too."
        )
    return "\n".join((*lines, *found.remarks))
