"""Files as people have them: names, separators, headers, types and packings of others, and what is said of each."""

import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.interactions.options import Format, ReadingOptions
from service.interactions.readers import DataProblem, read, read_dataset
from service.recommender.dataset import Dataset
from tests.factories.files import folder

PAIRS = [("u1", "a"), ("u1", "b"), ("u2", "a")]
ROWS = [("u1", "a", "5", "881250949"), ("u1", "b", "3.5", "881250950"), ("u2", "a", "1", "881250951")]


def table(separator: str, *header: str) -> str:
    """ROWS with that many columns, under a header where there is one."""
    width = len(header) or 4
    lines = [header] if header else []
    return "".join(separator.join(row[:width]) + "\n" for row in (*lines, *ROWS))


def pairs(dataset: Dataset) -> list[tuple[str, str]]:
    return [(dataset.users.ids[user], dataset.items.ids[item]) for user, item in dataset.train.tolist()]


def refusal(source: Path, **how: Any) -> str:
    with pytest.raises(DataProblem) as caught:
        read(source, how=ReadingOptions(**how))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ratings.csv", table(",", "userId", "movieId", "rating", "timestamp")),
        ("train.csv", table(",", "User_ID", "Item ID")),
        ("train.csv", table(";", "user id", "product-id", "rating")),
        ("train.csv", table("\t", "USERID", "movie_id")),
        ("train.csv", table("|", "uid", "iid", "score")),
        ("train.csv", table("::", "user_id", "item_id", "rating", "timestamp")),
        ("train.csv", table(" ", "user_id", "item_id")),
        ("train.tsv", table("\t", "user_id", "item_id", "rating", "timestamp")),
        ("shop.inter", table("\t", "user_id:token", "item_id:token", "rating:float", "timestamp:float")),
        ("shop.train.inter", table("\t", "user_id:token", "item_id:token")),
        ("u.data", table("\t")),
        ("ratings.dat", table("::")),
        ("train.txt", table("\t", "user_id", "item_id", "rating", "timestamp")),
        ("train.txt", "u1 a b\nu2 a\n"),
        ("interactions.csv", 'item_id,user_id,note\na,u1,"two\nlines, ""quoted"""\nb,u1,\na,u2,x\n'),
        ("train.csv", 'note,"user_id","item_id"\n"a, b","u1","a"\n,"u1","b"\n,"u2","a"'),
    ],
)
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_what_people_have_is_read(tmp_path: Path, name: str, content: str, packed: str) -> None:
    """In a folder and as a file, packed or not."""
    data = content.encode()
    if packed == ".gz":
        data = gzip.compress(data)
    elif packed == ".zst":
        data = pa.Codec("zstd").compress(data, asbytes=True)
    path = folder(tmp_path / "d", {})
    (path / (name + packed)).write_bytes(data)

    assert pairs(read_dataset(path)) == PAIRS
    alone = read_dataset(path / (name + packed))
    assert pairs(alone) == PAIRS
    assert alone.name == Path(name).stem


@pytest.mark.parametrize(
    ("format", "content"),
    [(Format.PAIRS, table(" ")), (Format.PAIRS, table(",")), (Format.PAIRS, table("::")), (Format.CSV, "")],
)
def test_a_format_that_was_said_is_taken(tmp_path: Path, format: Format, content: str) -> None:
    """Also under the name of another."""
    content = content or table(",", "user_id", "item_id")
    path = folder(tmp_path / "d", {"train.txt": content, "test.txt": content})

    assert pairs(read_dataset(path, how=ReadingOptions(format=format))) == PAIRS


def test_columns_are_named_by_options(tmp_path: Path) -> None:
    """By name, by another spelling of it, or by place where there is no header."""
    named = folder(tmp_path / "n", {"train.csv": "Kunde;Artikel;Note\nu1;a;5\nu1;b;4\nu2;a;1\n"})
    bare = folder(tmp_path / "b", {"train.csv": "x,a,u1\ny,b,u1\nz,a,u2\n"})

    by_name = ReadingOptions(user_column="kunde", item_column="Artikel", rating_column="Note", min_rating=4)
    by_place = ReadingOptions(format=Format.PAIRS, user_column="3", item_column="2")

    assert pairs(read_dataset(named, how=by_name)) == PAIRS[:2]
    assert pairs(read_dataset(bare, how=by_place)) == PAIRS


@pytest.mark.parametrize("separator", ["^^", "§", "~", " ", "\t", "::"])
def test_a_separator_is_taken_as_it_is_said(tmp_path: Path, separator: str) -> None:
    """Whatever it is; quotation marks in the data do not hurt, and a line of another width is told."""
    rows = ["user_id,item_id", 'u"1,a', "u2,b"]
    content = "\n".join(row.replace(",", separator) for row in rows)
    path = folder(tmp_path / "d", {"train.csv": content, "test.csv": content})

    assert pairs(read_dataset(path, how=ReadingOptions(separator=separator))) == [('u"1', "a"), ("u2", "b")]
    (path / "test.csv").write_text(f"{content}\nu3")
    assert "test.csv, line 4 cannot be read (1 fields" in refusal(path, separator=separator)


def test_names_that_are_not_ours_are_told_with_what_they_were_read_as(tmp_path: Path) -> None:
    """Nothing is guessed in silence; our own names are not worth a word."""
    found = read(folder(tmp_path / "d", {"train.csv": table(",", "User_ID", "movieId", "rating", "timestamp")}))

    assert found.remarks == ("train.csv: read 'User_ID' as user_id, 'movieId' as item_id.",)
    expected = {"user_id": "User_ID", "item_id": "movieId", "rating": "rating", "timestamp": "timestamp"}
    assert found.columns == {"train.csv": expected}
    assert read(folder(tmp_path / "e", {"train.csv": table(",", "user_id", "item_id")})).remarks == ()


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (("user_id", "movie_id", "product_id"), "is the item 'movie_id' or 'product_id'?"),
        (("user_id", "item_id", "User_ID"), "is the user 'user_id' or 'User_ID'?"),
        (("user_id", "item_id", "item_id"), "has the column item_id more than once"),
        (("1", "242", "3", "881250949"), "--format pairs"),
    ],
)
def test_a_header_that_can_be_read_in_two_ways_is_refused(tmp_path: Path, header: tuple[str, ...], said: str) -> None:
    """With the option that decides."""
    assert said in refusal(folder(tmp_path / "d", {"train.csv": table(",", *header)}))


def test_options_that_name_what_is_not_there_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "d", {"train.csv": table(",", "user_id", "item_id")})

    assert "no column 'who'; found: 'user_id', 'item_id'. Correct --user-column" in refusal(path, user_column="who")
    assert "one column is named for two things" in refusal(path, item_column="user_id")
    assert "no column rating" in refusal(path, min_rating=3)
    assert "has no ratings" in refusal(folder(tmp_path / "l", {"train.txt": "0 1 2\n1 2\n"}), min_rating=3)


def test_rows_under_the_threshold_are_left_out_and_counted(tmp_path: Path) -> None:
    """Of train and of test; a row without a rating has none that is high enough."""
    rated = "user_id,item_id,rating\nu1,a,5\nu1,b,3.9\nu2,a,4\nu2,c,\nu3,d,0\n"
    test = "user_id,item_id,rating\nu1,a,1\nu2,a,2\n"
    path = folder(tmp_path / "d", {"train.csv": rated, "test.csv": test})

    found = read(path, how=ReadingOptions(min_rating=4))

    assert pairs(found.dataset) == [("u1", "a"), ("u2", "a")]
    counts = found.dataset.counts
    assert (counts.train_rows, counts.train_below_rating, counts.test_below_rating) == (2, 3, 2)
    assert found.dataset.users.ids == ("u1", "u2")
    assert "no row has a rating of 6 or more" in refusal(path, min_rating=6)


def test_ratings_and_times_are_checked_and_counted(tmp_path: Path) -> None:
    """What is no number is told; it is refused where somebody asked for the column."""
    rows = "user_id,item_id,rating,timestamp\nu1,a,5,2024-05-01\nu1,b,good,881250950\nu2,a,,2024-05-01T10:00:00Z\n"
    path = folder(tmp_path / "d", {"train.csv": rows})

    found = read(path)

    assert (found.n_rated, found.n_timed) == (1, 3)
    assert found.remarks == (
        "1 of 3 values of rating are no numbers, the first is 'good' (train.csv, line 3); they count as missing.",
    )
    assert "train.csv, line 3: the rating 'good' is no number" in refusal(path, min_rating=3)
    assert "train.csv, line 3: the rating 'good' is no number" in refusal(path, rating_column="rating")


@pytest.mark.parametrize(
    ("content", "sign"),
    [
        ("0 100 1\n0 101 3\n1 100 2\n", "users come on several"),
        ("0\t100\t1\t881250949\n0\t101\t3\t881250950\n", "users come on several"),
        ("0 100 1\n0 101 3 881250950\n", "users come on several"),
        ("A1 B1 5.0 1303862400\nA2 B2 1.0 1346976000\n", "the third with a decimal point"),
        ("1 7 3 881250949\n2 8 5 881250950\n", "the fourth like a time"),
        ("".join(f"{n} {n + 100} {n % 5 + 1}\n" for n in range(20)), "the third like a rating"),
        ("0,100,3\n1,100,2\n", "every line holds ','"),
        ("0, 100\n1, 100\n", "every line holds ','"),
        ("0::100::3\n", "every line holds '::'"),
        ("who what\n1 2\n1 3\n", "line 1 reads like a header"),
    ],
)
def test_a_table_under_the_name_of_lists_is_refused(tmp_path: Path, content: str, sign: str) -> None:
    """Ratings and times are no items; both ways on are named. So it is for a test part."""
    path = folder(tmp_path / "d", {"train.txt": content})
    told = refusal(path)

    assert sign in told
    assert "--format" in told
    assert "--format lightgcn" in told
    aside = folder(tmp_path / "t", {"train.txt": "0 1 2 3 4\n1 2\n", "test.txt": content})
    assert "test.txt" in refusal(aside)
    if " " in content or "\t" in content:
        assert len(read_dataset(path, how=ReadingOptions(format=Format.LIGHTGCN)).items)


@pytest.mark.parametrize(
    "content",
    [
        "".join(f"{user} {user % 7} {user % 5 + 8}\n" for user in range(30)),
        "".join(f"{user} {user % 7} {user % 3 + 7} {user + 30}\n" for user in range(30)),
        "0 5 3\n1 4 2\n",
        "0 1\n1 2\n",
        "0 1\n0 2\n1 1\n",
        "u:1 i:1 i:2\nu:2 i:3 i:1\n",
        "7 1 2\n",
        "".join(f"{user} {user % 9} {user % 8}\n" for user in range(40)),
    ],
)
def test_lists_of_few_items_are_still_lists(tmp_path: Path, content: str) -> None:
    """Everybody has one, two or three items, and nobody comes twice, or only with one item a line."""
    dataset = read_dataset(folder(tmp_path / "d", {"train.txt": content}))

    tokens = {token for line in content.splitlines() for token in line.split()[1:]}
    assert set(dataset.items.ids) == tokens


PARQUET_IDS = [
    (pa.string(), ["1", "20"]),
    (pa.large_string(), ["1", "20"]),
    (pa.string_view(), ["1", "20"]),
    (pa.binary(), [b"1", b"20"]),
    (pa.int8(), [1, 20]),
    (pa.uint64(), [1, 20]),
    (pa.decimal128(20, 0), [Decimal(1), Decimal(20)]),
    (pa.decimal128(20, 2), [Decimal("1.00"), Decimal("20.00")]),
    (pa.decimal256(60, 1), [Decimal("1.0"), Decimal("20.0")]),
]


@pytest.mark.parametrize(("kind", "ids"), PARQUET_IDS, ids=str)
@pytest.mark.parametrize("packed", [False, True])
def test_parquet_ids_are_read_whatever_their_type_is_called(
    tmp_path: Path, kind: Any, ids: list[Any], packed: bool
) -> None:
    """Strings, integers and decimals without a fraction, as they are or as a dictionary."""
    column = pa.array(ids, kind)
    if packed and kind != pa.string_view():  # which Arrow cannot write
        column = pa.DictionaryArray.from_arrays(pa.array([0, 1]), column)
    path = folder(tmp_path / "d", {})
    pq.write_table(pa.table({"userId": column, "item_id": column}), path / "train.parquet")

    assert read_dataset(path).users.ids == ("1", "20")


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([1.0, None]), "is of type double, as 7.0 instead of 7"),
        (pa.array([Decimal("1.5"), Decimal("2.0")]), "with a fraction (train.parquet, row 1: '1.5')"),
        (pa.array([True, False]), "is of type bool"),
        (pa.array([b"\xff", b"1"]), "not UTF-8"),
        (pa.array(["1", None]), "train.parquet, row 2: the user_id is empty"),
        (pa.array(["1", "a\tb"]), "train.parquet, row 2: the user_id 'a\\x09b' holds control characters"),
        (pa.array(["1", "1.0"]), "train.parquet, row 2: the user_id '1.0' is an integer written as a float"),
    ],
    ids=str,
)
def test_parquet_ids_that_are_none_are_refused_by_row(tmp_path: Path, column: Any, said: str) -> None:
    path = folder(tmp_path / "d", {})
    pq.write_table(pa.table({"user_id": column, "item_id": [1, 2]}), path / "train.parquet")

    assert said in refusal(path)


@pytest.mark.parametrize(
    "place", ["part-{}.parquet", "train.parquet/part-{}.snappy.parquet", "train.parquet/d={}/p.parquet"]
)
def test_parquet_in_parts_is_one_table(tmp_path: Path, place: str) -> None:
    """As Spark, Dask and Polars write it; the parts may differ in the width of integers."""
    for number, kind in enumerate((pa.int32(), pa.int64(), pa.string())):
        part = pa.table({"user_id": pa.array([1], pa.int64()).cast(kind), "item_id": [number]})
        file = tmp_path / "d" / place.format(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, file)
        (file.parent / "_SUCCESS").touch()

    found = read(tmp_path / "d")

    assert pairs(found.dataset) == [("1", "0"), ("1", "1"), ("1", "2")]
    assert len(found.files.train.paths) == 3
    assert found.remarks == ()


TITLES = [
    ("items.csv", "item_id,title\na,Misérables\n".encode()),
    ("items.csv", "ProductID;Name\na;Misérables\n".encode()),
    ("items.tsv", "item_id\ttitle\na\tMisérables\n".encode()),
    ("movies.csv", "movieId,title,genres\na,Misérables,Drama\n".encode()),
    ("movies.dat", "a::Misérables::Drama\n".encode("latin-1")),
    ("u.item", "a|Misérables|01-Jan-1995||http://x|0\n".encode("latin-1")),
    ("shop.item", 'item_id:token\tmovie_title:token_seq\ty:token\na\tMisérables\t"9\n'.encode()),
]


@pytest.mark.parametrize(("name", "titles"), TITLES, ids=[name for name, _ in TITLES])
@pytest.mark.parametrize("train", ["train.csv", "train.parquet", "train.txt", "u.data"])
def test_titles_are_read_beside_interactions_of_any_format(
    tmp_path: Path, name: str, titles: bytes, train: str
) -> None:
    contents = {"train.csv": table(",", "user_id", "item_id"), "train.txt": "u1 a b\nu2 a\n", "u.data": table("\t")}
    path = folder(tmp_path / "d", {name: titles} | ({train: contents[train]} if train in contents else {}))
    if train == "train.parquet":
        pq.write_table(pa.table({"user_id": ["u1"], "item_id": ["a"]}), path / train)

    assert read_dataset(path).titles == {"a": "Misérables"}


def test_titles_that_belong_to_nothing_are_told(tmp_path: Path) -> None:
    """Another numbering, perhaps."""
    files = {"train.csv": table(",", "user_id", "item_id"), "items.csv": "item_id,title\nx,X\n"}

    (remark,) = read(folder(tmp_path / "d", files)).remarks

    assert "None of the 1 titles of items.csv" in remark


def test_a_header_that_is_not_understood_is_no_pair(tmp_path: Path) -> None:
    """`pairs` have no header; one of other words above numbers is refused."""
    path = folder(tmp_path / "d", {"train.txt": "who what how\n1 2 3\n1 3 4\n"})

    assert "line 1 reads like a header" in refusal(path, format=Format.PAIRS)


def test_a_rating_column_of_another_type_is_refused_where_it_counts(tmp_path: Path) -> None:
    """A list is no number."""
    path = folder(tmp_path / "d", {})
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["a"], "rating": [[5]]}), path / "train.parquet")

    assert "train.parquet, row 1: the rating '[5]' is no number" in refusal(path, min_rating=3)


def test_names_of_files_are_read_in_any_case_and_tables_in_parts(tmp_path: Path) -> None:
    """As Windows and Spark write them."""
    content = table(",", "user_id", "item_id")
    for name in ("Train.CSV", "part-00000.csv", "train.csv/part-0.csv"):
        file = tmp_path / name.replace("/", "_") / name
        file.parent.mkdir(parents=True)
        file.write_text(content)
        assert pairs(read_dataset(tmp_path / name.replace("/", "_"))) == PAIRS


def test_a_validation_part_is_named(tmp_path: Path) -> None:
    """Training holds out its own."""
    files = {"train.csv": table(",", "user_id", "item_id"), "valid.csv.gz": table(",", "user_id", "item_id")}

    (remark,) = read(folder(tmp_path / "d", files)).remarks

    assert "Not used: 'valid.csv.gz'" in remark


def test_of_several_files_it_is_told_which_was_taken(tmp_path: Path) -> None:
    """And of others that they were passed over; papers and hidden files are not worth a word."""
    content = table(",", "user_id", "item_id")
    names = ("train.csv", "train.csv.gz", "ratings.csv", "links.csv", "README.txt", "LICENSE", ".hidden.csv")
    found = read(folder(tmp_path / "d", dict.fromkeys(names, content)))

    assert found.files.train.name == "train.csv"
    assert found.remarks == (
        "Read train.csv; passed over 'train.csv.gz', 'ratings.csv', which could be the interactions, too. Name the "
        "file itself with --data to take another.",
        "Passed over: 'links.csv'.",
    )


def test_a_file_whose_name_says_nothing_needs_a_format(tmp_path: Path) -> None:
    path = folder(tmp_path / "d", {"clicks.log": table(",", "user_id", "item_id")})

    assert "--format" in refusal(path / "clicks.log")
    assert "clicks.log" in refusal(path)
    assert pairs(read_dataset(path / "clicks.log", how=ReadingOptions(format=Format.CSV))) == PAIRS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("user_id,item_id\nü,1\n".encode("utf-16"), "train.csv is UTF-16, not UTF-8"),
        ("user_id,item_id\nü,1\n".encode("utf-16-le"), "train.csv is UTF-16, or no text at all, not UTF-8"),
        ("user_id,item_id\nu,1\nü,1\n".encode("latin-1"), "line 3 cannot be read (it is not UTF-8): '\\xfc,1'"),
        (b'user_id,item_id\nu,1\n"a"b,2\n', "train.csv, line 3 cannot be read"),
        (b'user_id,item_id,note\nu,1,"x\ny"\nv,,\n', "train.csv, line 4: the item_id is empty"),
        (b"user_id,item_id\nu,1\n" + b"x" * 3_000_000 + b",1\n", "line 3: the user_id has 3,000,000 characters; an id"),
        (b"user_id,item_id\nu\x00v,1\n", "line 2: the user_id 'u\\x00v' holds control characters"),
    ],
)
def test_files_that_are_damaged_are_refused_for_what_they_are(tmp_path: Path, content: bytes, said: str) -> None:
    """Another encoding, quotation marks that Arrow would join, bounds of readers that are none of ids."""
    assert said in refusal(folder(tmp_path / "d", {"train.csv": content}))


def test_a_long_field_elsewhere_does_not_matter(tmp_path: Path) -> None:
    """Longer than the blocks that Arrow reads and than Python's bound."""
    rows = f'user_id,item_id,review\nu1,a,"{"x" * 2_000_000}"\nu1,b,\nu2,a,\n'

    assert pairs(read_dataset(folder(tmp_path / "d", {"train.csv": rows}))) == PAIRS
