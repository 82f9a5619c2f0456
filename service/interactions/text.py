"""One decoding and one line rule for every text file: the bytes, the text, its lines and its CSV records.

A file is UTF-8, with or without a byte order mark, packed by gzip or Zstandard or not at all. Lines end with LF, CR LF
or CR and with nothing else: what `str.splitlines` also takes for an end (U+0085, U+2028, form feeds) stands inside
titles and must not tear them apart.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from service.interactions.refusals import DataProblem, shown

PACKED = {".gz": "gzip", ".zst": "zstd"}
"""Suffixes of packed files, and what Arrow calls the packing."""

_LINE_END = re.compile("\r\n|\n|\r")
# A longer mark before those that begin like it.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_UNBOUNDED = 2**31 - 1
_UNCLOSED = "a quotation mark is not closed"


def plain_suffix(path: Path) -> str:
    """The suffix that tells the format, in lower case: `.csv` of `train.csv.gz`."""
    name = Path(path.stem) if path.suffix.lower() in PACKED else path
    return name.suffix.lower()


def unpack(path: Path, data: bytes) -> bytes:
    """What a file holds, given its bytes: unpacked as its name says.

    Raises:
        DataProblem: it is not packed as its name says, or was cut off.
    """
    packing = PACKED.get(path.suffix.lower())
    if packing is None:
        return data
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), packing) as stream:
            return bytes(stream.read())
    except (pa.ArrowException, OSError) as error:
        msg = f"{path.name} is not a complete {packing} file. Copy it again, or unpack it to {path.stem}."
        raise DataProblem(msg) from error


def plain(path: Path, data: bytes) -> bytes:
    """The bytes of a text file without a byte order mark; raises DataProblem for UTF-16 and UTF-32."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            raise _encoded(path, encoding)
    if b"\0" in data[:512] and data[:512].count(b"\0") * 3 > len(data[:512]):
        raise _encoded(path, "UTF-16, or no text at all")
    return data.removeprefix(codecs.BOM_UTF8)


def decode(path: Path, data: bytes, fallback: str | None = None) -> str:
    """The text of a file's unpacked bytes.

    Args:
        path: told in a refusal.
        data: its bytes.
        fallback: an encoding that the format allows where it is not UTF-8 (Latin-1 in MovieLens).

    Raises:
        DataProblem: it is in another encoding; names the line.
    """
    data = plain(path, data)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if fallback is not None:
            return data.decode(fallback)
        before = _LINE_END.split(data[: error.start].decode("utf-8"))
        rest = _LINE_END.split(data[error.start : error.start + 200].decode("utf-8", "backslashreplace"))
        place = f"{path.name}, line {len(before)}"
        msg = (
            f"{place} cannot be read (it is not UTF-8): {shown(before[-1][-60:] + rest[0])}. Correct the line or leave "
            f"it out; where the whole file is in another encoding such as Latin-1 or Windows-1252, save it as UTF-8."
        )
        raise DataProblem(msg) from error


def read_text(path: Path) -> str:
    """The text of a file, unpacked; raises DataProblem where it is not UTF-8."""
    return decode(path, unpack(path, path.read_bytes()))


def split_lines(text: str) -> list[str]:
    """The lines of a text without their ends; a last line end begins no new line."""
    lines = _LINE_END.split(text)
    return lines[:-1] if lines and not lines[-1] else lines


def csv_records(path: Path, text: str, separator: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV text, each with the number of its first line; blank lines are passed over.

    Raises:
        DataProblem: a quotation mark that is not closed, or text after one that closes a field.
    """
    # Python's bound of 131,072 characters a field is no rule of any format; the bounds that count are told by name.
    csv.field_size_limit(_UNBOUNDED)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = _UNCLOSED if "unexpected end" in str(error) else str(error)
            raise unreadable(path, number, reason, line_at(text, number)) from error
        if record:
            yield number, record


def line_at(text: str, number: int) -> str:
    """That line of a text, counted from 1."""
    return split_lines(text)[number - 1]


def unreadable(path: Path, number: int, reason: str, line: str) -> DataProblem:
    """One line of a file that cannot be used, and why."""
    return DataProblem(
        f"{path.name}, line {number} cannot be read ({reason}): {shown(line)}. Correct the line or leave it out."
    )


def _encoded(path: Path, encoding: str) -> DataProblem:
    return DataProblem(f"{path.name} is {encoding}, not UTF-8. Save it as UTF-8.")
