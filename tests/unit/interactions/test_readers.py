"""Reading data sets: four formats, one result, and refusals that name the place."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.interactions.readers import DataProblem, describe, read_dataset
from service.recommender.dataset import Dataset
from tests.conftest import require
from tests.factories.files import folder

TRAIN = "user_id,item_id,rating,timestamp\nb,2,5,1\na,1,1,2\na,2,3,3\nb,2,4,9\n"
TEST = "user_id,item_id\na,3\na,1\nb,1\nb,1\nc,1\n"
ITEMS = 'item_id,title,genres\n1,One,x\n2,"Two, the sequel",y\n9,Nine,z\n'


def pairs(dataset: Dataset, part: str = "train") -> list[tuple[str, str]]:
    """The pairs of one part in outside ids."""
    rows = dataset.train if part == "train" else dataset.test
    return [(dataset.users.ids[user], dataset.items.ids[item]) for user, item in rows.tolist()]


def refusal(path: Path) -> str:
    """What reading the folder is refused with."""
    with pytest.raises(DataProblem) as caught:
        read_dataset(path)
    return str(caught.value)


def test_csv_is_read_with_duplicates_merged_and_rows_sorted(tmp_path: Path) -> None:
    """Ratings are interactions whatever their value; a pair counts once."""
    path = folder(tmp_path / "shop", {"train.csv": TRAIN})

    dataset = read_dataset(path)

    assert dataset.name == "shop"
    assert pairs(dataset) == [("a", "1"), ("a", "2"), ("b", "2")]
    assert dataset.train.dtype == np.int32
    assert (dataset.counts.train_rows, dataset.counts.train_duplicates) == (4, 1)


def test_test_pairs_that_no_model_can_rank_are_counted_and_kept_out(tmp_path: Path) -> None:
    """Users and items of test only, and pairs that train has too, are not ranked."""
    path = folder(tmp_path / "d", {"train.csv": TRAIN, "test.csv": TEST})

    dataset = read_dataset(path)

    assert pairs(dataset, "test") == [("b", "1")]
    counts = dataset.counts
    assert (counts.test_rows, counts.test_duplicates, counts.test_unknown, counts.test_overlap) == (5, 1, 2, 1)
    assert (counts.test_unknown_users, counts.test_unknown_items) == (1, 1)
    assert "c" not in dataset.users
    assert "3" not in dataset.items


def test_titles_are_read_and_a_quoted_comma_is_part_of_one(tmp_path: Path) -> None:
    """Titles come by item id, also those of items that nobody touched."""
    path = folder(tmp_path / "d", {"train.csv.gz": TRAIN, "items.csv.gz": ITEMS})

    titles = read_dataset(path).titles

    assert titles == {"1": "One", "2": "Two, the sequel", "9": "Nine"}


def test_the_order_of_lines_does_not_matter(tmp_path: Path) -> None:
    """The same pairs in another order are the same data set."""
    header, *lines = TRAIN.splitlines()
    one = folder(tmp_path / "one" / "d", {"train.csv": TRAIN})
    other = folder(tmp_path / "other" / "d", {"train.csv": "\n".join([header, *reversed(lines)])})

    first, second = read_dataset(one), read_dataset(other)

    assert first.users == second.users
    assert first.items == second.items
    assert np.array_equal(first.train, second.train)


@pytest.mark.parametrize(
    "id", ["007", "a b", "x/y", "日本", "👩‍🚀", "a::b", "O'Neil", "e\u0301", "0x1F", "1e5", "null", "NaN", "#1"]
)
def test_ids_are_taken_as_they_stand(tmp_path: Path, id: str) -> None:
    """Spaces, slashes, emoji, leading zeros and words that look like numbers or nothing stay what they are."""
    path = folder(tmp_path / "d", {"train.csv": f"item_id,user_id\n{id},u\nother,{id}\n"})

    dataset = read_dataset(path)

    assert id in dataset.items
    assert id in dataset.users


def test_a_mark_at_the_beginning_of_the_file_and_windows_line_ends_are_no_part_of_ids(tmp_path: Path) -> None:
    """What spreadsheets write is read."""
    path = folder(tmp_path / "d", {"train.csv": b"\xef\xbb\xbfuser_id,item_id\r\na,1\r\n\r\nb,2\r\n"})

    assert pairs(read_dataset(path)) == [("a", "1"), ("b", "2")]


def test_parquet_is_read_with_ids_as_strings_or_integers(tmp_path: Path) -> None:
    """Integer ids become their decimal text."""
    path = folder(tmp_path / "d", {})
    pq.write_table(pa.table({"user_id": [7, 7, 8], "item_id": ["a", "b", "a"], "x": [1, 2, 3]}), path / "train.parquet")
    pq.write_table(pa.table({"user_id": [8], "item_id": ["b"]}), path / "test.parquet")
    pq.write_table(pa.table({"item_id": ["a"], "title": ["An A"]}), path / "items.parquet")

    dataset = read_dataset(path)

    assert pairs(dataset) == [("7", "a"), ("7", "b"), ("8", "a")]
    assert pairs(dataset, "test") == [("8", "b")]
    assert dataset.titles == {"a": "An A"}


def test_parquet_dictionary_columns_are_read(tmp_path: Path) -> None:
    """Columns that the writer packed as dictionaries hold the same ids; unused words of theirs are none."""
    path = folder(tmp_path / "d", {})
    packed = pa.DictionaryArray.from_arrays(pa.array([0, 2]), pa.array(["u", "unused", "v"]))
    pq.write_table(pa.table({"user_id": packed, "item_id": ["a", "b"]}), path / "train.parquet")

    assert read_dataset(path).users.ids == ("u", "v")


def test_movielens_dat_is_read_with_latin_1_titles_and_no_test_part(tmp_path: Path) -> None:
    """ratings.dat and movies.dat as GroupLens ships them."""
    files: dict[str, str | bytes] = {
        "ratings.dat": "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::1\n",
        "movies.dat": "661::Misérables, Les (1995)::Drama\n1193::Cuckoo (1975)::Drama\n".encode("latin-1"),
    }

    dataset = read_dataset(folder(tmp_path / "ml", files))

    assert pairs(dataset) == [("1", "1193"), ("1", "661"), ("2", "1193")]
    assert len(dataset.test) == 0
    assert dataset.titles == {"661": "Misérables, Les (1995)", "1193": "Cuckoo (1975)"}


def test_movielens_titles_in_utf_8_are_read_too(tmp_path: Path) -> None:
    """Later MovieLens releases write movies.dat in UTF-8."""
    files = {"ratings.dat": "1::2::5::9\n", "movies.dat": "2::Amélie (2001)::Comedy\n"}

    assert read_dataset(folder(tmp_path / "ml", files)).titles == {"2": "Amélie (2001)"}


def test_lightgcn_txt_is_read_line_by_user(tmp_path: Path) -> None:
    """`user item item ...`; a user without items adds nothing, spaces at the end are none."""
    files = {"train.txt": "0 1 2 2\n1\n2 1 \n\n", "test.txt": "0 5\n2 2\n"}

    dataset = read_dataset(folder(tmp_path / "g", files))

    assert pairs(dataset) == [("0", "1"), ("0", "2"), ("2", "1")]
    assert pairs(dataset, "test") == [("2", "2")]
    assert dataset.counts.train_duplicates == 1


def test_describe_names_format_and_files_without_reading_them(tmp_path: Path) -> None:
    """Broken content is no matter here."""
    path = folder(tmp_path / "d", {"train.csv.gz": b"\xff", "items.csv": b""})

    files = describe(path)

    assert str(files) == "csv (train.csv.gz, items.csv)"
    assert files.test is None


def test_progress_ends_at_the_size_of_all_files(tmp_path: Path) -> None:
    """A bar that is drawn from it fills up."""
    path = folder(tmp_path / "d", {"train.csv.gz": TRAIN, "test.csv": TEST, "items.csv": ITEMS})
    told: list[tuple[int, int]] = []

    read_dataset(path, progress=lambda done, total: told.append((done, total)))

    total = sum(file.stat().st_size for file in path.iterdir())
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_missing_column_is_named_with_those_found(tmp_path: Path) -> None:
    """The one that is missing, what is there instead, and the option that names it."""
    told = refusal(folder(tmp_path / "d", {"train.csv": "who,movieId,rating\n1,2,3\n"}))

    assert "no column user_id" in told
    assert "'who', 'movieId', 'rating'" in told
    assert "--user-column" in told


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Which of the two would count?"""
    assert "more than once" in refusal(folder(tmp_path / "d", {"train.csv": "user_id,item_id,user_id\n1,2,3\n"}))


@pytest.mark.parametrize("name", ["train.csv", "train.csv.gz", "ratings.dat", "train.txt"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing in it, nothing to learn."""
    assert f"{name} holds nothing" in refusal(folder(tmp_path / "d", {name: ""}))


@pytest.mark.parametrize("blank", ["\x1c", "\u00a0\n", "\u2003\u2003\n\n"])
@pytest.mark.parametrize("name", ["train.txt", "train.csv", "ratings.dat"])
def test_a_file_of_blanks_of_any_kind_is_refused(tmp_path: Path, name: str, blank: str) -> None:
    """In a sentence that names it, though the first letter is no ASCII space."""
    assert name in refusal(folder(tmp_path / "d", {name: blank}))


def test_a_header_alone_is_refused(tmp_path: Path) -> None:
    """Columns without a line below them."""
    assert "a header and no interactions" in refusal(folder(tmp_path / "d", {"train.csv": "user_id,item_id\n"}))


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    """Columns without a row."""
    path = folder(tmp_path / "d", {})
    pq.write_table(
        pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())}), path / "train.parquet"
    )

    assert "no interactions" in refusal(path)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("user_id,item_id\na,1\n\nb,2,3\nc,3\n", "line 4 cannot be read (3 fields where 2 are expected): 'b,2,3'"),
        ("user_id,item_id\na,1\nb\n", "line 3 cannot be read (1 fields where 2 are expected): 'b'"),
        ('user_id,item_id\na,1\n"b,2\nc,3\n', "line 3 cannot be read (a quotation mark is not closed)"),
        (b"user_id,item_id\na,1\nb\xff,2\n", "line 3 cannot be read (it is not UTF-8): 'b\\xff,2'"),
        ("user_id,item_id\na,1\n,2\n", "line 3: the user_id is empty"),
        ("user_id,item_id\na,1\nb,\n", "line 3: the item_id is empty"),
        ("user_id,item_id\na,\x07\n", "line 2: the item_id '\\x07' holds control characters"),
    ],
)
def test_a_csv_line_that_cannot_be_used_is_named_by_number_and_content(
    tmp_path: Path, content: str | bytes, line: str
) -> None:
    """The number is that of the file, blank lines and header counted."""
    told = refusal(folder(tmp_path / "d", {"train.csv": content}))

    assert f"train.csv, {line}" in told


@pytest.mark.parametrize("name", ["train.csv", "train.csv.gz"])
def test_a_bad_line_far_down_is_found_in_packed_files_too(tmp_path: Path, name: str) -> None:
    """Beyond the first block that is read."""
    lines = [f"user-{number},item-{number % 97}" for number in range(120_000)]
    lines[100_001] = "oh no"

    told = refusal(folder(tmp_path / "d", {name: "\n".join(["user_id,item_id", *lines])}))

    assert f"{name}, line 100003 cannot be read" in told


def test_a_long_line_is_shown_shortened(tmp_path: Path) -> None:
    """80 characters of it."""
    told = refusal(folder(tmp_path / "d", {"train.csv": f"user_id,item_id\na,{'x' * 100},z\n"}))

    assert f"'a,{'x' * 78}…'" in told


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("train.csv", f"user_id,item_id\na,1\nb,{'x' * 10_000}\n", "train.csv, line 3: the item_id has 10,000"),
        ("ratings.dat", f"1::2::3\n{'x' * 513}::2::3\n", "ratings.dat, line 2: the user_id has 513"),
        ("train.txt", f"1 2\n2 1 {'x' * 600}\n", "train.txt, line 2: the item_id has 600"),
    ],
)
def test_an_id_that_is_too_long_is_named_by_line_and_length(
    tmp_path: Path, name: str, content: str, place: str
) -> None:
    """512 characters are the limit of the service."""
    assert f"{place} characters; an id has at most 512" in refusal(folder(tmp_path / "d", {name: content}))


def test_an_id_of_512_characters_is_taken(tmp_path: Path) -> None:
    """Characters, not bytes."""
    path = folder(tmp_path / "d", {"train.csv": f"user_id,item_id\n{'é' * 512},1\n"})

    assert read_dataset(path).users.ids == ("é" * 512,)


def test_a_parquet_row_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Rows have no lines; their number is told."""
    path = folder(tmp_path / "d", {})
    pq.write_table(pa.table({"user_id": ["a", None], "item_id": ["1", "2"]}), path / "train.parquet")

    assert "train.parquet, row 2: the user_id is empty" in refusal(path)


def test_parquet_ids_of_another_type_are_refused(tmp_path: Path) -> None:
    """1.0 is no id."""
    path = folder(tmp_path / "d", {})
    pq.write_table(pa.table({"user_id": [1.0], "item_id": [2]}), path / "train.parquet")

    assert "column user_id is of type double" in refusal(path)


@pytest.mark.parametrize("name", ["train.parquet", "train.csv.gz"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    """The name says one thing, the bytes another."""
    path = folder(tmp_path / "d", {})
    (path / name).write_bytes(b"user_id,item_id\n1,2\n")

    assert name in refusal(path)


def test_a_packed_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    """Half a download is no data set."""
    path = folder(tmp_path / "d", {"train.csv.gz": "user_id,item_id\n" + "".join(f"{n},{n}\n" for n in range(9_999))})
    whole = (path / "train.csv.gz").read_bytes()
    (path / "train.csv.gz").write_bytes(whole[: len(whole) // 2])

    assert "not a complete gzip file" in refusal(path)


def test_a_line_of_a_dat_file_with_other_fields_is_named(tmp_path: Path) -> None:
    """Its number and its content."""
    told = refusal(folder(tmp_path / "d", {"ratings.dat": "1::2::3::4\n1::2::3\n"}))

    assert "ratings.dat, line 2 cannot be read (3 fields where 4 are expected): '1::2::3'" in told


def test_a_dat_file_with_single_colons_is_refused(tmp_path: Path) -> None:
    """One field is no pair."""
    assert "line 1 cannot be read" in refusal(folder(tmp_path / "d", {"ratings.dat": "1:2:3:4\n"}))


def test_a_title_line_without_title_is_named(tmp_path: Path) -> None:
    """Of movies.dat as of any other file."""
    files = {"ratings.dat": "1::2::3::4\n", "movies.dat": "2::Two::x\n3\n"}

    assert "movies.dat, line 2 cannot be read" in refusal(folder(tmp_path / "d", files))


def test_a_title_file_without_its_columns_is_refused(tmp_path: Path) -> None:
    """Titles need to be found by item."""
    files = {"train.csv": TRAIN, "items.csv": "number,title\n1,One\n"}

    assert "items.csv has no column item_id" in refusal(folder(tmp_path / "d", files))


@pytest.mark.parametrize("files", [{}, {"readme.txt": "hello"}, {"test.csv": TEST}])
def test_a_folder_without_a_data_set_is_refused(tmp_path: Path, files: dict[str, str | bytes]) -> None:
    """With what would make it one."""
    assert "train.csv" in refusal(folder(tmp_path / "d", files))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """With what to do."""
    assert "is not there" in refusal(tmp_path / "nowhere")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "n_users", "n_train", "n_test_kept_out"),
    [("ml-100k", 943, 90_570, 2), ("ml-1m", 6_040, 800_168, 30), ("gowalla", 29_858, 810_128, 0)],
)
def test_the_real_data_sets_are_read(name: str, n_users: int, n_train: int, n_test_kept_out: int) -> None:
    """The counts that their sources state."""
    data_dir = os.environ.get("EXPUNGE_DATA_DIR")
    require(data_dir, "EXPUNGE_DATA_DIR")
    assert data_dir is not None

    dataset = read_dataset(Path(data_dir) / name)

    assert (len(dataset.users), len(dataset.train)) == (n_users, n_train)
    assert dataset.counts.train_duplicates == 0
    assert dataset.counts.test_unknown == n_test_kept_out
