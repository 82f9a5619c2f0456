"""From a folder of files to a data set: which format lies there, and reading it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.interactions import formats
from service.interactions.columns import Pairs, assemble
from service.interactions.formats import Progress, ReadProgress
from service.interactions.refusals import DataProblem
from service.recommender.dataset import Dataset

__all__ = ["DataProblem", "DatasetFiles", "describe", "read_dataset"]

Format = Literal["csv", "parquet", "movielens", "lightgcn"]


@dataclass(frozen=True)
class _Layout:
    """The file names of one format; the first of several that exists is taken."""

    format: Format
    train: tuple[str, ...]
    test: tuple[str, ...]
    items: tuple[str, ...]
    read_pairs: Callable[[Path, ReadProgress], Pairs]
    read_titles: Callable[[Path, ReadProgress], dict[str, str]]


def _text(name: str) -> tuple[str, ...]:
    return (f"{name}.csv", f"{name}.csv.gz")


_LAYOUTS = (
    _Layout("csv", _text("train"), _text("test"), _text("items"), formats.read_csv_pairs, formats.read_csv_titles),
    _Layout(
        "parquet",
        ("train.parquet",),
        ("test.parquet",),
        ("items.parquet",),
        formats.read_parquet_pairs,
        formats.read_parquet_titles,
    ),
    _Layout("movielens", ("ratings.dat",), (), ("movies.dat",), formats.read_dat_pairs, formats.read_dat_titles),
    # LightGCN folders carry no titles; an items.csv beside them is taken where there is one.
    _Layout(
        "lightgcn",
        ("train.txt",),
        ("test.txt",),
        _text("items"),
        formats.read_lightgcn_pairs,
        formats.read_csv_titles,
    ),
)


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a data set that were found in a folder."""

    format: Format
    train: Path
    test: Path | None
    items: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Those that are there, train first."""
        return tuple(path for path in (self.train, self.test, self.items) if path is not None)

    def __str__(self) -> str:
        return f"{self.format} ({', '.join(path.name for path in self.paths)})"


def describe(folder: Path) -> DatasetFiles:
    """Say which format lies in a folder, without reading it.

    Where several do: the first of csv, parquet, movielens, lightgcn.

    Raises:
        DataProblem: no such folder, or no data set in it.
    """
    return _find(folder)[1]


def read_dataset(folder: Path, *, progress: Progress | None = None) -> Dataset:
    """Read the data set that lies in a folder, whatever its format; its name is the folder's.

    Every rating is an interaction, whatever its value. Ids are taken as they stand ("007" stays "007").

    Args:
        folder: holds train.csv[.gz] (+ test, items), train.parquet (+ test, items), ratings.dat (+ movies.dat; no test
            part), or train.txt (+ test.txt).
        progress: told (bytes read, bytes in all), from another thread.

    Raises:
        DataProblem: the files cannot be used; the text says which, where and what to do.
    """
    layout, files = _find(folder)
    meter = ReadProgress(sum(path.stat().st_size for path in files.paths), progress)
    train = layout.read_pairs(files.train, meter)
    test = None if files.test is None else layout.read_pairs(files.test, meter)
    titles = {} if files.items is None else layout.read_titles(files.items, meter)
    return assemble(folder.resolve().name, train, test, titles)


def _find(folder: Path) -> tuple[_Layout, DatasetFiles]:
    if not folder.is_dir():
        what = "a file; name the folder that holds it" if folder.exists() else "not there; name a folder that is"
        msg = f"The data folder {folder} is {what}."
        raise DataProblem(msg)
    for layout in _LAYOUTS:
        train = _first(folder, layout.train)
        if train is not None:
            test, items = _first(folder, layout.test), _first(folder, layout.items)
            return layout, DatasetFiles(layout.format, train, test, items)
    wanted = ", ".join(layout.train[0] for layout in _LAYOUTS)
    msg = f"The folder {folder} holds no data set. Put one of {wanted} (or train.csv.gz) there."
    raise DataProblem(msg)


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)
