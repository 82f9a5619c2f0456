"""No file, however malformed, names anything wider than what it spells out."""

import csv
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from service.cli.failures import Refusal
from service.cli.target_file import HEADER, read_target_file
from service.cli.targets import RequestedTargets

NAMES = [
    "user_id",
    "item_id",
    " item_id",
    "User_ID",
    "movie_id",
    "item_id:token",
    "\ufeffuser_id",
    "",
    "x",
    '"item_id"',
]
FIELDS = ["u1", "i1", "", " ", '""', '"', "'", "a,b", "\x00", "\ufeff", "\u2028", "\t", "\\"]
ENDS = ["\n", "\r\n", "\r", "\n\n", ""]

lines = st.lists(st.tuples(st.lists(st.sampled_from(FIELDS), max_size=4), st.sampled_from(ENDS)), max_size=6)
headers = st.lists(st.sampled_from(NAMES), max_size=4)
separators = st.sampled_from([",", ",", ",", ";", "\t", ", "])


def read(content: str, strip: bool = False) -> RequestedTargets | None:
    """What a file of this content names; None where it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "targets.csv"
        file.write_text(content, encoding="utf-8", newline="")
        try:
            return read_target_file(file, strip=strip)
        except Refusal:
            return None


def spelt_out(content: str) -> set[tuple[str, ...]]:
    """Every record of two fields under the exact header, as Python's own reader of the whole text sees them."""
    text = content.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    head, _, rest = text.partition("\n")
    columns = next(csv.reader([head]), [])
    assert sorted(columns) == sorted(HEADER.split(","))
    rows = [next(csv.reader([line]), []) for line in rest.split("\n")]
    return {tuple(row if columns[0] == "user_id" else row[::-1]) for row in rows if row}


@given(header=headers, body=lines, separator=separators, strip=st.booleans())
def test_whole_users_and_items_come_only_from_explicitly_empty_fields(
    header: list[str], body: list[tuple[list[str], str]], separator: str, strip: bool
) -> None:
    """Whatever is read at all was spelt out: the exact columns, and for each target a record that says just this."""
    content = separator.join(header) + "\n" + "".join(separator.join(fields) + end for fields, end in body)

    targets = read(content, strip)

    if targets is None:
        return
    records = spelt_out(content)
    if strip:
        records = {tuple(field.strip() if field.strip() else field for field in record) for record in records}
    assert all(len(record) == 2 for record in records)
    assert {(user, "") for user in targets.users} <= records
    assert {("", item) for item in targets.items} <= records
    assert set(targets.interactions) <= records
    assert len(targets) == len(records)


@given(content=st.text(max_size=200))
def test_any_text_is_refused_or_spelt_out(content: str) -> None:
    """Without a header of ours nothing is named."""
    try:
        content.encode()
    except UnicodeEncodeError:
        return
    assert read(content) is None or "user_id" in content
