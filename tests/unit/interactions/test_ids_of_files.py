"""The ids of every kind of file: what enters is what the API can name, byte for byte; what nobody means is refused."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.interactions.options import ReadingOptions
from service.interactions.readers import DataProblem, read, read_dataset
from service.interactions.vectors import read_vectors
from service.platform.ids import check_id
from tests.factories.files import folder

ANY_TEXT = st.text(st.characters(codec="utf-8"), min_size=0, max_size=12)
LIKELY = st.sampled_from(
    ["0", "00", "0.0", "1e3", " 0", "0 ", "a\tb", "é", "e\u0301", "\ufeff1", "a\u2028b", "a\x85b", "\u00a01", "x" * 600]
)
IDS = st.lists(st.tuples(ANY_TEXT | LIKELY, ANY_TEXT | LIKELY), min_size=1, max_size=6)

Pairs = list[tuple[str, str]]


def as_csv(path: Path, pairs: Pairs) -> Path:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("user_id", "item_id"), *pairs])
    return folder(path, {"train.csv": text.getvalue()})


def as_semicolons(path: Path, pairs: Pairs) -> Path:
    lines = [f"{user};{item}" for user, item in [("user_id", "item_id"), *pairs]]
    return folder(path, {"train.csv": "\n".join(lines)})


def as_dat(path: Path, pairs: Pairs) -> Path:
    return folder(path, {"ratings.dat": "\n".join(f"{user}::{item}::5::1" for user, item in pairs)})


def as_lists(path: Path, pairs: Pairs) -> Path:
    return folder(path, {"train.txt": "\n".join(f"{user} {item}" for user, item in pairs)})


def as_titles(path: Path, pairs: Pairs) -> Path:
    """The ids under test are those of movies.dat."""
    files = {"train.csv": "user_id,item_id\nu,i\n", "movies.dat": "\n".join(f"{item}::T" for _, item in pairs)}
    return folder(path, files)


def as_parquet(path: Path, pairs: Pairs) -> Path:
    users, items = zip(*pairs, strict=True)
    folder(path, {})
    pq.write_table(pa.table({"user_id": users, "item_id": items}), path / "train.parquet")
    return path


FORMATS = [as_csv, as_semicolons, as_dat, as_lists, as_titles, as_parquet]


@pytest.mark.parametrize("write", FORMATS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=IDS, strip=st.sampled_from([None, True, False]))
def test_whatever_is_read_the_api_can_name(
    tmp_path_factory: pytest.TempPathFactory, write: Callable[[Path, Pairs], Path], pairs: Pairs, strip: bool | None
) -> None:
    """Every id that enters passes the check of REST; a file with others is refused whole."""
    path = write(tmp_path_factory.mktemp("any"), pairs)

    try:
        dataset = read_dataset(path, how=ReadingOptions(strip=strip))
    except DataProblem:
        return

    for id in (*dataset.users.ids, *dataset.items.ids, *dataset.titles):
        assert check_id(id) == id


@pytest.mark.parametrize("write", [as_csv, as_parquet])
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=IDS)
def test_what_is_read_as_it_stands_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, write: Callable[[Path, Pairs], Path], pairs: Pairs
) -> None:
    """Byte for byte, where the format can hold it at all."""
    path = write(tmp_path_factory.mktemp("same"), pairs)
    may_enter = all(is_id(id) for pair in pairs for id in pair)

    try:
        dataset = read_dataset(path, how=ReadingOptions(strip=False))
    except DataProblem:
        assert not may_enter
        return

    assert may_enter
    read_pairs = {(dataset.users.ids[user], dataset.items.ids[item]) for user, item in dataset.train.tolist()}
    assert read_pairs == set(pairs)


def is_id(text: str) -> bool:
    try:
        check_id(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("id", [" 0", "0 ", "\u00a00", "0\u200b", "0\ufeff", "\u30000"])
def test_margins_are_refused_and_both_ways_on_are_offered(tmp_path: Path, id: str) -> None:
    """Nobody sees them, and nobody who asks to erase 0 means them."""
    path = as_csv(tmp_path / "d", [("a", "1"), ("b", id)])

    with pytest.raises(DataProblem, match=r"train.csv, line 3: the item_id .* --strip .* --no-strip"):
        read_dataset(path)
    assert "0" in read_dataset(path, how=ReadingOptions(strip=True)).items
    assert id in read_dataset(path, how=ReadingOptions(strip=False)).items


def test_ids_that_become_one_by_stripping_are_one(tmp_path: Path) -> None:
    """And their rows are merged."""
    path = as_csv(tmp_path / "d", [("a", "1"), ("a ", "1"), (" a", " 2")])

    dataset = read_dataset(path, how=ReadingOptions(strip=True))

    assert (dataset.users.ids, dataset.items.ids) == (("a",), ("1", "2"))
    assert dataset.counts.train_duplicates == 1


@pytest.mark.parametrize(
    "ids", [("0.0", "1.0"), ("0", "1.0"), ("99999", "1e+05"), ("1.", "2"), ("x", "1.0", "2.0", "3.0")]
)
def test_integers_that_were_written_as_floats_are_refused(tmp_path: Path, ids: tuple[str, ...]) -> None:
    """pandas makes 1.0 of 1 in a column with gaps; 1.0 is another id than 1."""
    path = as_csv(tmp_path / "d", [("u", id) for id in ids])

    with pytest.raises(DataProblem, match=r"line \d: the item_id .* integer written as a float.*--no-strip"):
        read_dataset(path)
    assert read_dataset(path, how=ReadingOptions(strip=False)).items.ids == tuple(sorted(ids))


def test_ids_that_only_look_like_numbers_are_taken(tmp_path: Path) -> None:
    """Where the others are none."""
    assert "1e5" in read_dataset(as_csv(tmp_path / "d", [("u", "1e5"), ("u", "B00"), ("u", "007")])).items


@pytest.mark.parametrize(
    ("one", "other"), [("7", "007"), ("é", "e\u0301"), ("a b", "a\u00a0b"), ("ab", "a\u200bb"), ("12", "+12")]
)
def test_ids_that_read_alike_are_told_with_their_places(tmp_path: Path, one: str, other: str) -> None:
    """They stay two; who erases one leaves the other."""
    found = read(as_csv(tmp_path / "d", [("u", one), ("u", "else"), ("u", other)]))

    (remark,) = found.remarks
    assert "train.csv, line 2" in remark
    assert "train.csv, line 4" in remark
    assert {one, other} <= set(found.dataset.items.ids)


def test_ids_that_read_alike_in_two_files_are_told(tmp_path: Path) -> None:
    """A title of 07 belongs to no 7."""
    path = folder(tmp_path / "d", {"train.csv": "user_id,item_id\nu,7\n", "items.csv": "item_id,title\n07,Seven\n"})

    told = read(path).remarks

    assert any("'07' (items.csv, line 2) reads like '7' (train.csv, line 2)" in remark for remark in told)


@pytest.mark.parametrize("mark", ["\x0b", "\x0c", "\x1c", "\x1e", "\x1f", "\x85", "\u2028", "\x00"])
@pytest.mark.parametrize("write", [as_csv, as_semicolons, as_dat, as_lists, as_titles, as_parquet])
def test_what_only_python_takes_for_a_line_end_is_a_control_character(
    tmp_path: Path, write: Callable[[Path, Pairs], Path], mark: str
) -> None:
    """In no file does it end a line or part two ids."""
    with pytest.raises(DataProblem, match="control characters"):
        read_dataset(write(tmp_path / "d", [("u", "1"), ("u", f"a{mark}b")]))


@pytest.mark.parametrize("mark", ["\x0b", "\x85", "\u2028", "\x1d"])
def test_in_a_title_it_tears_nothing_apart(tmp_path: Path, mark: str) -> None:
    """What follows is no item."""
    movies = f"1::Before{mark}2::After::Drama\n3::Third::Drama\n"
    path = folder(tmp_path / "d", {"train.csv": "user_id,item_id\nu,1\n", "movies.dat": movies.encode()})

    assert list(read_dataset(path).titles) == ["3", "1"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks_are_no_part_of_ids(tmp_path: Path, end: str, mark: str) -> None:
    """In any text file."""
    files = {
        "a/train.csv": f"user_id,item_id{end}u,1{end}v,2{end}",
        "b/ratings.dat": f"u::1::5::9{end}v::2::5::9{end}",
        "c/train.txt": f"u 1{end}v 2{end}",
    }
    titles = f"1::One{end}2::Two{end}"
    for name, content in files.items():
        place, file = name.split("/")
        path = folder(tmp_path / place, {file: mark + content, "movies.dat": mark + titles})
        dataset = read_dataset(path)
        assert (dataset.users.ids, dataset.items.ids) == (("u", "v"), ("1", "2"))
        assert dataset.titles == {"1": "One", "2": "Two"}


def test_listed_ids_of_a_model_pass_the_same_check(tmp_path: Path) -> None:
    """An id that REST refuses cannot be adopted."""
    np.savez(tmp_path / "m.npz", users=np.eye(2), items=np.eye(2), item_ids=np.array([1, 2]))
    (tmp_path / "u.txt").write_text("a\tb\nc\n")

    with pytest.raises(DataProblem, match=r"u\.txt, line 1"):
        read_vectors(tmp_path / "m.npz", tmp_path / "u.txt")
