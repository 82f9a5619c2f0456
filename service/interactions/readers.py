"""From a folder or a file to a data set: which formats lie there, and reading them."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from service.interactions import lists, parquet, tables
from service.interactions.columns import Pairs, assemble, joined
from service.interactions.formats import Progress, Reading, ReadProgress
from service.interactions.identifiers import look_alikes
from service.interactions.options import AS_THEY_ARE, Format, ReadingOptions
from service.interactions.refusals import DataProblem, listed
from service.interactions.text import PACKED, plain_suffix
from service.recommender.dataset import Dataset

__all__ = ["DataProblem", "DatasetFiles", "ReadDataset", "Source", "describe", "read", "read_dataset", "read_file"]

# File names by what they hold, likeliest first; each may be packed, and a .parquet may be a folder of parts.
_TRAIN: tuple[tuple[str, Format], ...] = (
    ("train.csv", Format.CSV),
    ("train.tsv", Format.CSV),
    ("train.parquet", Format.PARQUET),
    ("ratings.dat", Format.MOVIELENS),
    ("u.data", Format.MOVIELENS),
    ("train.txt", Format.LIGHTGCN),
    ("*.train.inter", Format.RECBOLE),
    ("ratings.csv", Format.CSV),
    ("ratings.tsv", Format.CSV),
    ("interactions.csv", Format.CSV),
    ("interactions.tsv", Format.CSV),
    ("*.inter", Format.RECBOLE),
    ("ratings.parquet", Format.PARQUET),
    ("interactions.parquet", Format.PARQUET),
    ("part-*.parquet", Format.PARQUET),
    ("part-*.csv", Format.CSV),
)
_TEST: tuple[tuple[str, Format], ...] = (
    ("test.csv", Format.CSV),
    ("test.tsv", Format.CSV),
    ("test.parquet", Format.PARQUET),
    ("test.txt", Format.LIGHTGCN),
    ("*.test.inter", Format.RECBOLE),
)
_TITLES: tuple[tuple[str, Format], ...] = (
    ("items.csv", Format.CSV),
    ("items.tsv", Format.CSV),
    ("items.parquet", Format.PARQUET),
    ("movies.dat", Format.MOVIELENS),
    ("u.item", Format.MOVIELENS),
    ("*.item", Format.RECBOLE),
    ("movies.csv", Format.CSV),
    ("movies.parquet", Format.PARQUET),
)
_VALIDATION = ("valid.*", "validation.*", "val.*", "dev.*", "*.valid.inter")
_FORMAT_OF_SUFFIX = {
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".tab": Format.CSV,
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
    ".dat": Format.MOVIELENS,
    ".data": Format.MOVIELENS,
    ".base": Format.MOVIELENS,
    ".test": Format.MOVIELENS,
    ".inter": Format.RECBOLE,
    ".txt": Format.LIGHTGCN,
}
_DATA_SUFFIXES = {*_FORMAT_OF_SUFFIX, ".item", ".user", ".jsonl", ".json", ".xlsx", ".feather", ".npz", ".pkl"}
_PAPERS = ("readme", "license", "licence", "notice", "changelog")


@dataclass(frozen=True)
class Source:
    """The files of one part of a data set: one, or several that are read as one."""

    format: Format
    paths: tuple[Path, ...]

    @property
    def name(self) -> str:
        """For people: the file, or the first of several and their number."""
        first = self.paths[0].name
        return first if len(self.paths) == 1 else f"{first} and {len(self.paths) - 1} more"


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a data set that were found.

    `validation`: files of a validation part, which are not read. `rivals`: files that could be the interactions as
    well. `others`: further files that look like data. None of these is used.
    """

    train: Source
    test: Source | None = None
    items: Source | None = None
    validation: tuple[Path, ...] = ()
    rivals: tuple[Path, ...] = ()
    others: tuple[Path, ...] = ()

    @property
    def format(self) -> Format:
        """Of the interactions."""
        return self.train.format

    @property
    def sources(self) -> tuple[Source, ...]:
        """Those that are there, train first."""
        return tuple(source for source in (self.train, self.test, self.items) if source is not None)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that is read, those of train first."""
        return tuple(path for source in self.sources for path in source.paths)

    def __str__(self) -> str:
        return f"{self.format} ({', '.join(source.name for source in self.sources)})"

    def remarks(self) -> Iterator[str]:
        """A sentence on each kind of file that is passed over."""
        if self.rivals:
            yield (
                f"Read {self.train.name}; passed over {listed([path.name for path in self.rivals])}, which could be "
                "the interactions, too. Name the file itself with --data to take another."
            )
        if self.validation:
            yield (
                f"Not used: {listed([path.name for path in self.validation])}. Training holds out a validation part of "
                "its own; add these rows to the train file to have them recorded and learnt."
            )
        if self.others:
            yield f"Passed over: {listed([path.name for path in self.others])}."


@dataclass(frozen=True)
class ReadDataset:
    """A data set, where it came from, and what was noticed while it was read.

    `columns` says by file which of its columns was read as what. `n_rated` and `n_timed`: rows of train with a rating
    and a time, which are not kept yet. `remarks`: sentences for the person who brought the data.
    """

    dataset: Dataset
    files: DatasetFiles
    columns: dict[str, dict[str, str]]
    n_rated: int
    n_timed: int
    remarks: tuple[str, ...]


def describe(source: Path, how: ReadingOptions = AS_THEY_ARE) -> DatasetFiles:
    """Say which files of a folder are the data set, without reading them; a file is its own interactions.

    Where several could be: train.csv, .parquet, MovieLens, LightGCN, then the other names, in that order.

    Raises:
        DataProblem: nothing is there, or no data set in it.
    """
    if source.is_file():
        return DatasetFiles(Source(_format_of(source, how), (source,)))
    if not source.is_dir():
        msg = f"The data folder {source} is not there; name a folder or a file that is."
        raise DataProblem(msg)
    return _in_folder(source, how)


def read_dataset(source: Path, *, how: ReadingOptions = AS_THEY_ARE, progress: Progress | None = None) -> Dataset:
    """The data set of `read`, without what was noticed."""
    return read(source, how=how, progress=progress).dataset


def read(source: Path, *, how: ReadingOptions = AS_THEY_ARE, progress: Progress | None = None) -> ReadDataset:
    """Read the data set that lies in a folder, or one file of interactions; its name is the folder's or the file's.

    Every rating is an interaction, whatever its value, unless `how` sets a threshold. Ids are taken as they stand
    ("007" stays "007").

    Args:
        source: a folder with train.csv, train.parquet, ratings.dat, u.data, train.txt or another known name, plain or
            packed (.gz, .zst), perhaps with a test part and titles in the same format or another; or one such file.
        how: what names and headers do not say.
        progress: told (bytes read, bytes in all), from another thread.

    Raises:
        DataProblem: the files cannot be used; the text says which, where and what to do.
    """
    files = describe(source, how)
    reading = Reading(how, ReadProgress(sum(path.stat().st_size for path in files.paths), progress))
    for remark in files.remarks():
        reading.remark(remark)
    train = _pairs(files.train, reading)
    if not len(train):
        msg = f"{files.train.name}: no row has a rating of {how.min_rating:g} or more. Lower --min-rating."
        raise DataProblem(msg)
    test = None if files.test is None else _pairs(files.test, reading)
    titles = {} if files.items is None else _titles(files.items, reading)
    for remark in look_alikes(reading.columns):
        reading.remark(remark)
    resolved = source.resolve()
    name = resolved.name if source.is_dir() else _stem(resolved)
    dataset = assemble(name, train, test, titles)
    if files.items is not None and titles and not any(id in dataset.items for id in titles):
        reading.remark(
            f"None of the {len(titles):,} titles of {files.items.name} belongs to an item of {files.train.name}: are "
            "its ids those of the interactions?"
        )
    return ReadDataset(dataset, files, reading.names, train.n_rated, train.n_timed, tuple(reading.remarks))


def read_file(path: Path, reading: Reading) -> Pairs:
    """The interactions of one file, in the format that options or its name say; raises DataProblem."""
    return _pairs(Source(_format_of(path, reading.how), (path,)), reading)


def _pairs(source: Source, reading: Reading) -> Pairs:
    return joined([_pairs_of(path, source.format, reading) for path in source.paths])


def _pairs_of(path: Path, format: Format, reading: Reading) -> Pairs:
    if format is Format.PARQUET:
        return parquet.read_pairs(path, reading)
    if format is Format.LIGHTGCN:
        return lists.read_lists(path, reading)
    return tables.read_pairs(path, reading, format)


def _titles(source: Source, reading: Reading) -> dict[str, str]:
    titles: dict[str, str] = {}
    for path in source.paths:
        found = _titles_of(path, source.format, reading)
        titles = found | titles
    return titles


def _titles_of(path: Path, format: Format, reading: Reading) -> dict[str, str]:
    if format is Format.PARQUET:
        return parquet.read_titles(path, reading)
    if format is Format.MOVIELENS:
        return tables.read_bare_titles(path, reading, "|" if plain_suffix(path) == ".item" else tables.DOUBLE_COLON)
    return tables.read_titles(path, reading, format)


def _in_folder(folder: Path, how: ReadingOptions) -> DatasetFiles:
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "_")))
    trains = _candidates(entries, _TRAIN, how.format)
    if not trains:
        files = [entry.name for entry in entries if entry.is_file()]
        there = f"; found: {listed(files)}" if files else ""
        msg = (
            f"The folder {folder} holds no data set{there}. Put one of train.csv, train.parquet, ratings.dat, u.data, "
            "train.txt (or train.csv.gz) there, or name the file itself."
        )
        raise DataProblem(msg)
    train = trains[0]
    test = _preferred(_candidates(entries, _TEST, how.format), train.format)
    items = _preferred(_candidates(entries, _TITLES, None), train.format)
    used = {path for source in (train, test, items) if source is not None for path in source.paths}
    validation = [entry for entry in entries if any(fnmatch(_plain_name(entry), name) for name in _VALIDATION)]
    rivals = [path for source in _candidates(entries, _TRAIN, None) for path in _shown_paths(source, folder)]
    rivals = [path for path in dict.fromkeys(rivals) if path not in validation and not _uses(path, used)]
    rivals = [path for path in rivals if not any(fnmatch(_plain_name(path), name) for name, _ in _TEST)]
    known = {*rivals, *validation}
    others = [entry for entry in entries if _looks_like_data(entry) and entry not in known and not _uses(entry, used)]
    return DatasetFiles(train, test, items, tuple(validation), tuple(rivals), tuple(others))


def _candidates(entries: list[Path], names: tuple[tuple[str, Format], ...], format: Format | None) -> list[Source]:
    """What lies there under these names, likeliest first; in the wanted format where one was asked for."""
    found: list[Source] = []
    for name, natural in names:
        matching = [entry for entry in entries if fnmatch(_plain_name(entry), name) and not _is_other_part(entry, name)]
        if name.startswith("part-") and matching:
            found.append(Source(natural, tuple(matching)))
            continue
        # Of train.csv and train.csv.gz the plain one is taken.
        for entry in sorted(matching, key=lambda entry: (entry.suffix in PACKED, entry.name)):
            paths = (entry,) if entry.is_file() else _parts(entry)
            if paths:
                found.append(Source(natural, paths))
    if format is None:
        return found
    fitting = [source for source in found if (source.format is Format.PARQUET) == (format is Format.PARQUET)]
    return [Source(format, source.paths) for source in sorted(fitting, key=lambda each: each.format is not format)]


def _preferred(found: list[Source], format: Format) -> Source | None:
    """The first in the same format as the interactions, else the first."""
    return next((source for source in found if source.format is format), found[0] if found else None)


def _parts(folder: Path) -> tuple[Path, ...]:
    """The files in a folder that is named like one of them, as Spark and Dask write it."""
    parts = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith((".", "_")))
    return tuple(path for path in parts if plain_suffix(path) == plain_suffix(folder))


def _shown_paths(source: Source, folder: Path) -> list[Path]:
    """The entries of the folder that a source's files lie in or are."""
    return [folder / path.relative_to(folder).parts[0] for path in source.paths]


def _uses(entry: Path, used: set[Path]) -> bool:
    return entry in used or any(entry in path.parents for path in used)


def _is_other_part(entry: Path, name: str) -> bool:
    """Whether *.inter or *.item found a file of a part that has a pattern of its own."""
    parts = (".train.inter", ".test.inter", ".valid.inter")
    plain = _plain_name(entry)
    return (name == "*.inter" and plain.endswith(parts)) or (name == "*.item" and plain == "u.item")


def _looks_like_data(entry: Path) -> bool:
    return entry.is_file() and plain_suffix(entry) in _DATA_SUFFIXES and not entry.name.lower().startswith(_PAPERS)


def _plain_name(path: Path) -> str:
    """The name in lower case, without what says that it is packed."""
    return (path.stem if path.suffix.lower() in PACKED else path.name).lower()


def _stem(path: Path) -> str:
    return Path(path.stem).stem if path.suffix.lower() in PACKED else path.stem


def _format_of(path: Path, how: ReadingOptions) -> Format:
    if how.format is not None:
        return how.format
    found = _FORMAT_OF_SUFFIX.get(plain_suffix(path))
    if found is None:
        names = ", ".join(Format)
        msg = f"{path.name}: its name does not say which format it has. Say it with --format ({names})."
        raise DataProblem(msg)
    return found
