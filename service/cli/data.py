"""`expunge import`: bring a data set into the database."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.context import Json, open_home, print_result, settings_of
from service.cli.failures import Refusal
from service.cli.terminal import Terminal

if TYPE_CHECKING:
    from service.interactions.importing import ImportReport
    from service.recommender.dataset import Dataset

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder with train.csv[.gz], .parquet, ratings.dat or train.txt."),
]


def import_(context: typer.Context, data: Data = None, json_file: Json = None) -> None:
    """Read a data set and record its interactions and titles. Doing it again changes nothing.

    Only the train part is recorded; a test part is for evaluation. What an erasure covers stays out.
    """
    from service.interactions.importing import import_dataset
    from service.interactions.readers import read_dataset

    settings = settings_of(context)
    folder = data or settings.data_dir
    if folder is None:
        msg = "Which data? Name the folder with --data DIR."
        raise Refusal(msg)
    terminal = Terminal()
    with terminal.step("Reading", "bytes") as progress:
        dataset = read_dataset(folder.expanduser(), progress=progress)
    with open_home(settings, upgrade=True) as home, terminal.step("Recording", "interactions") as progress:
        report = import_dataset(home.database, home.identity, dataset, progress=progress)
    document = {"dataset": dataset_facts(dataset), "import": asdict(report)}
    print_result(json_file, document, _text(dataset, report))


def dataset_facts(dataset: Dataset) -> dict[str, object]:
    """Name and size of a data set."""
    return {
        "name": dataset.name,
        "n_users": len(dataset.users),
        "n_items": len(dataset.items),
        "n_train": len(dataset.train),
        "n_test": len(dataset.test),
    }


def _text(dataset: Dataset, report: ImportReport) -> str:
    counts = dataset.counts
    lines = [
        f"{dataset.name}: {len(dataset.users):,} users, {len(dataset.items):,} items, "
        f"{len(dataset.train):,} interactions, {len(dataset.test):,} more for evaluation.",
        f"Recorded {report.recorded:,}; {report.duplicates:,} were recorded before; "
        f"{report.refused:,} are covered by an erasure.",
    ]
    if counts.train_duplicates or counts.test_duplicates:
        lines.append(f"Merged {counts.train_duplicates + counts.test_duplicates:,} repeated rows.")
    if counts.test_unknown or counts.test_overlap:
        lines.append(
            f"Left out of evaluation: {counts.test_unknown:,} pairs of a user or item that train lacks, "
            f"{counts.test_overlap:,} that train has too."
        )
    return "\n".join(lines)
