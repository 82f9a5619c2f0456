"""Which data set the demonstration takes: the one named, the one at hand, the one downloaded, else a generated one."""

import csv
import gzip
import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from service.interactions.formats import Progress
from service.interactions.generated import generate_dataset
from service.interactions.options import AS_THEY_ARE, ReadingOptions
from service.interactions.readers import DataProblem, read
from service.recommender.dataset import Dataset

NAME = "ml-100k"
SEED = 20
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0
MEMBER_MAX_BYTES = 16 * 1024 * 1024

Origin = Literal["named", "at hand", "downloaded", "generated"]
Fetch = Callable[["Archive"], bytes]


@dataclass(frozen=True)
class Archive:
    """An archive on the web, and what its bytes must be."""

    url: str
    sha256: str
    size_bytes: int


# Frozen since 1998; GroupLens publishes its MD5, 0e33842e24a9c977be4e0107933c0723, of the same bytes.
MOVIELENS_100K = Archive(
    "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
    "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    4_924_029,
)


@dataclass(frozen=True)
class FoundDataset:
    """A data set, where it comes from, and a sentence that says so; `remarks` on its files, where it was read."""

    dataset: Dataset
    origin: Origin
    note: str
    remarks: tuple[str, ...] = ()


class NotDownloaded(Exception):
    """The archive could not be had, or is not what it should be; the text says why."""


def find_dataset(
    data: Path | None,
    data_dir: Path | None,
    home: Path,
    *,
    how: ReadingOptions = AS_THEY_ARE,
    progress: Progress | None = None,
    fetch: Fetch | None = None,
) -> FoundDataset:
    """Find a data set: `data`; else `ml-100k` in `data_dir`; else MovieLens 100K from GroupLens; else a generated one.

    Args:
        data: a folder or a file that was asked for; nothing else is tried then.
        data_dir: a folder that holds data sets.
        home: a download is kept in `<home>/datasets`, and found there the next time.
        how: what the names and headers of `data` do not say.
        progress: told (bytes read, bytes in all) while files are read.
        fetch: gets the bytes of an archive; by default over HTTPS.

    Raises:
        DataProblem: the folder that was asked for, or the one at hand, cannot be used.
    """
    if data is not None:
        return _read(data, "named", progress, how)
    if data_dir is not None and (data_dir / NAME).is_dir():
        return _read(data_dir / NAME, "at hand", progress)
    folder = home / "datasets" / NAME
    try:
        if not folder.is_dir():
            _unpack((fetch or download)(MOVIELENS_100K), folder)
    except NotDownloaded as error:
        note = f"MovieLens 100K is not at hand ({error}): this runs on a generated data set with planted communities."
        return FoundDataset(generate_dataset(SEED), "generated", note)
    return _read(folder, "downloaded", progress)


def download(archive: Archive) -> bytes:
    """Get an archive over HTTPS, with time limits, and check its size and SHA-256; raises NotDownloaded."""
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    try:
        with httpx.stream("GET", archive.url, timeout=timeout) as response:
            response.raise_for_status()
            body = _bounded(response, archive.size_bytes)
    except httpx.HTTPError as error:
        msg = f"{httpx.URL(archive.url).host} does not answer: {type(error).__name__}"
        raise NotDownloaded(msg) from error
    if len(body) != archive.size_bytes or hashlib.sha256(body).hexdigest() != archive.sha256:
        msg = "what was downloaded fails its checksum"
        raise NotDownloaded(msg)
    return body


def _bounded(response: httpx.Response, limit_bytes: int) -> bytes:
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > limit_bytes:
            break
    return bytes(body)


def _read(source: Path, origin: Origin, progress: Progress | None, how: ReadingOptions = AS_THEY_ARE) -> FoundDataset:
    found = read(source, how=how, progress=progress)
    note = f"{found.dataset.name}: {found.files}, {origin}."
    return FoundDataset(found.dataset, origin, note, found.remarks)


def _unpack(archive: bytes, folder: Path) -> None:
    """Write the official `ua` split (ten test ratings a user) as our CSV files, all of them or none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            _write(aside / "train.csv.gz", _ratings(members, "ua.base"))
            _write(aside / "test.csv.gz", _ratings(members, "ua.test"))
            _write(aside / "items.csv.gz", _titles(members, "u.item"))
        os.replace(aside, folder)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        msg = f"the archive cannot be unpacked: {type(error).__name__}"
        raise NotDownloaded(msg) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _ratings(members: zipfile.ZipFile, name: str) -> bytes:
    return b"user_id,item_id,rating,timestamp\n" + _member(members, name).replace(b"\t", b",")


def _titles(members: zipfile.ZipFile, name: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("item_id", "title"))
    writer.writerows(line.split("|")[:2] for line in _member(members, name).decode("latin-1").split("\n") if line)
    return text.getvalue().encode()


def _member(members: zipfile.ZipFile, name: str) -> bytes:
    info = members.getinfo(f"{NAME}/{name}")
    if info.file_size > MEMBER_MAX_BYTES:
        msg = f"{name} is larger than it should be"
        raise NotDownloaded(msg)
    return members.read(info)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, mtime=0))


__all__ = [
    "Archive",
    "DataProblem",
    "FoundDataset",
    "NotDownloaded",
    "download",
    "find_dataset",
    "generate_dataset",
]
