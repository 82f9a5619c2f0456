"""`expunge demo`: the whole story on a terminal, on real data, every figure measured while it is told."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from service.cli.context import Json, settings_of
from service.cli.data import (
    FormatName,
    ItemColumn,
    MinRating,
    RatingColumn,
    Separator,
    Strip,
    TimeColumn,
    UserColumn,
    reading_options,
)

Data = Annotated[
    Path | None, typer.Option("--data", metavar="PATH", help="Data set to take [ml-100k of EXPUNGE_DATA_DIR].")
]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the service running, with its home.")]


def demo(
    context: typer.Context,
    data: Data = None,
    keep: Keep = False,
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
    """Tell the whole story: learn, serve, erase, hide, forget, compare with retraining, read the log.

    Takes a home of its own, a temporary one unless --home names one. Without data at hand MovieLens 100K is downloaded,
    and where that fails a generated data set is taken, and said so.
    """
    from service.cli.demo.environment import DemoOptions, left_aside
    from service.cli.demo.run import DemoRun

    how = reading_options(format, user_column, item_column, rating_column, time_column, separator, min_rating, strip)
    # Whoever ends it by SIGTERM gets what Ctrl-C gets: the service stopped, the temporary home gone.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    aside = left_aside()
    settings = settings_of(context)
    plan = DemoOptions(
        data=data,
        how=how,
        data_dir=settings.data_dir,
        cache=settings.home,
        home=context.find_root().obj.home,
        keep=keep,
        json_file=json_file,
        left_aside=aside,
    )
    DemoRun(plan).run()
