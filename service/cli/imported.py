"""Where the latest import was read from: `expunge train` tells how well the test part there is found.

The files are read again and not copied: what the service keeps of people lies in the database alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.terminal import write_json

if TYPE_CHECKING:
    from service.cli.context import Home
    from service.interactions.options import ReadingOptions
    from service.recommender.dataset import Dataset
    from service.recommender.ranking import RankingQuality

NAME = "imported.json"


def remember_import(home: Path, source: Path, how: ReadingOptions, n_test: int) -> None:
    """Note the path and how it was read; forget an earlier one."""
    write_json(home / NAME, {"path": str(source.resolve()), "options": asdict(how), "n_test": n_test})


def imported_again(home: Path) -> Dataset | None:
    """The data set of the latest import, read again where it has a test part and lies there still; else None."""
    from service.interactions.options import Format, ReadingOptions
    from service.interactions.readers import read_dataset
    from service.interactions.refusals import DataProblem

    try:
        noted = json.loads((home / NAME).read_text(encoding="utf-8"))
        options = dict(noted["options"])
        options["format"] = options["format"] and Format(options["format"])
        return read_dataset(Path(noted["path"]), how=ReadingOptions(**options)) if noted["n_test"] else None
    except (OSError, ValueError, KeyError, TypeError, DataProblem):
        return None


def quality_on_test_part(home: Home, base: int) -> RankingQuality | None:
    """How well a base finds the test part of the latest import; None where there is none any more."""
    from service.worker.measuring import quality_on_pairs

    dataset = imported_again(home.settings.home)
    if dataset is None:
        return None
    pairs = [(dataset.users.ids[user], dataset.items.ids[item]) for user, item in dataset.test.tolist()]
    return quality_on_pairs(home.database, home.store, home.identity, base, pairs)
