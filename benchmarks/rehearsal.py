"""Little generated data and short trainings in place of the real ones, to try the benchmarks themselves in minutes."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import cells
from service.interactions.generated import generate_dataset
from service.recommender.dataset import Dataset


def prepare() -> None:
    """Let `benchmarks.learning` train on generated data, in seconds.

    Raises:
        RuntimeError: the folders of the run are those that count.
    """
    if not cells.is_quick():
        msg = "A rehearsal keeps to folders of its own."
        raise RuntimeError(msg)
    folder = cells.CACHE / "data"
    if not (folder / "ml-1m" / "items.csv").exists():
        _write(folder / "ml-1m", generate_dataset(1))
    os.environ["EXPUNGE_DATA_DIR"] = str(folder)
    from benchmarks import learning  # bound to the folders of the run when it is imported

    learning.RECIPE = replace(learning.RECIPE, embedding_size=32, epochs=3)
    for name in ("FORGET", "DISLIKE", "PUBLISHED"):
        setattr(learning, name, replace(getattr(learning, name), steps=20, judge_every=10))


def _write(folder: Path, data: Dataset) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", data.train), ("test", data.test)):
        pairs = ((data.users.ids[user], data.items.ids[item]) for user, item in rows.tolist())
        _write_csv(folder / f"{part}.csv", ("user_id", "item_id"), pairs)
    _write_csv(folder / "items.csv", ("item_id", "title"), data.titles.items())


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
