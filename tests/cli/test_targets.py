"""The targets of `expunge erase`: what a file or arguments say, never anything wider."""

import gzip
import io
import sys
from pathlib import Path

import pytest

from service.cli.failures import Refusal
from service.cli.target_file import LINE_MAX, read_target_file
from service.cli.targets import ReachSummary, RequestedTargets, targets_of_arguments


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test writes its targets."""
    return tmp_path / "targets.csv"


def named(targets: RequestedTargets) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """Interactions, users and items, in the order named."""
    return list(targets.interactions), list(targets.users), list(targets.items)


@pytest.mark.parametrize(
    "content",
    [
        b'item_id,user_id\n"a,b",u 1\n,u2\n\ni3,\n',
        b'item_id,user_id\r\n"a,b",u 1\r\n"",u2\r\ni3,\r\n',
        b'item_id,user_id\r"a,b",u 1\r,u2\ri3,',
        b'\xef\xbb\xbfitem_id,"user_id"\n"a,b","u 1"\n,u2\ni3,""\ni3,\n,u2\n',
    ],
)
def test_a_file_says_what_is_meant(file: Path, content: bytes) -> None:
    """Two ids are an interaction, an empty field all of the other; order, quotes, line ends do not matter."""
    file.write_bytes(content)

    assert named(read_target_file(file)) == ([("u 1", "a,b")], ["u2"], ["i3"])


def test_a_file_may_be_packed(tmp_path: Path) -> None:
    """As it comes from an export."""
    packed = tmp_path / "targets.csv.gz"
    packed.write_bytes(gzip.compress("user_id,item_id\n🙂,1\n".encode()))

    assert named(read_target_file(packed)) == ([("🙂", "1")], [], [])


def test_a_file_may_come_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which stays open."""
    given = io.TextIOWrapper(io.BytesIO(b"user_id,item_id\nu1,i1\n"))
    monkeypatch.setattr(sys, "stdin", given)

    assert named(read_target_file(Path("-"))) == ([("u1", "i1")], [], [])
    assert not given.buffer.closed


@pytest.mark.parametrize(("before", "after"), [("", " "), ("\u00a0", ""), ("\u200b", "\u2060"), ("\u3000", "\ufeff")])
def test_white_space_is_taken_off_only_when_asked(file: Path, before: str, after: str) -> None:
    """Also what cannot be seen; and it never leaves an empty field behind."""
    file.write_text(f"user_id,item_id\n{before}u1{after}, i1\n")

    assert named(read_target_file(file, strip=True)) == ([("u1", "i1")], [], [])
    with pytest.raises(Refusal, match=r"line 2 has white space, seen or unseen, around an id.*--strip"):
        read_target_file(file)
    file.write_text(f"user_id,item_id\nu1,{before}{after}\n")
    with pytest.raises(Refusal, match="line 2 has a field of white space alone"):
        read_target_file(file, strip=True)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        ("\nuser_id,item_id\nu1,i1\n", "begins with an empty line"),
        ("user_id,item_id\n", "names nothing to erase"),
        ("user_id,item_id\n\n\n", "names nothing to erase"),
        ("user_id, item_id\n10,100\n", "line 1: column 2 must be named item_id, exactly so"),
        ("User_ID,item_id\n10,100\n", "column 1 must be named user_id"),
        ("USERID,itemId\n10,100\n", "column 1 must be named user_id"),
        ("user_id,movie_id\n10,100\n", "column 2 must be named item_id"),
        ("user_id,item_id:token\n10,100\n", "column 2 must be named item_id"),
        ("user_id,'item_id'\n10,100\n", "column 2 must be named item_id"),
        ('user_id, "item_id"\n10,100\n', "column 2 must be named item_id"),
        ("\ufeff\ufeffuser_id,item_id\n10,100\n", "column 1 must be named user_id"),
        ("user_id,item_id,item_id\n10,100,\n", "names item_id twice"),
        ("user_id,user_id\n10,100\n", "names user_id twice"),
        ("user_id\n10\n", "has no column item_id"),
        ("item_id\n10\n", "has no column user_id"),
        ("user_id,item_id,note\n10,100,x\n", "column 3 is not known"),
        ("user_id,item_id,\n10,100,\n", "column 3 is not known"),
        ("10,100\n11,100\n", "column 1 is not known"),
        ("user_id;item_id\n10;100\n", "separates its columns by semicolons"),
        ("user_id\titem_id\n10\t100\n", "separates its columns by tabs"),
        ("user_id,item_id\n10,100\n11\n", "line 3 has 1 field where the header names 2"),
        ("user_id,item_id\n10,100,\n", "line 2 has 3 fields"),
        ("user_id,item_id\n10;100\n", "line 2 has 1 field"),
        ("user_id,item_id\n,\n", "line 2 names neither a user nor an item"),
        ('user_id,item_id\n"10,100\n11,100\n', "line 2 has a quote that is not closed"),
        ('user_id,item_id\n"10"x,100\n', "line 2 has a quote"),
        ('user_id,item_id\n10,"a\nb"\n', "line 2 has a quote that is not closed"),
        ("user_id,item_id\n10,\x00\n", "line 2 holds what is no id"),
        ("user_id,item_id\n10,a\u2028b\n", "line 2 holds what is no id"),
        (f"user_id,item_id\n10,{'x' * 513}\n", "line 2 holds what is no id"),
        (f"user_id,item_id\n10,{'x' * LINE_MAX}", "line 2 is longer than"),
    ],
)
def test_a_file_that_is_not_quite_right_is_refused(file: Path, content: str, sentence: str) -> None:
    """With the line and what was expected; what stands in it is not repeated."""
    file.write_text(content, encoding="utf-8", newline="")

    with pytest.raises(Refusal, match=sentence) as refused:
        read_target_file(file)
    assert "100" not in str(refused.value)


@pytest.mark.parametrize("content", [b"user_id,item_id\n\xff\xfe,1\n", "user_id,item_id\n1,2\n".encode("utf-16")])
def test_other_encodings_are_refused(file: Path, content: bytes) -> None:
    """Not guessed at."""
    file.write_bytes(content)

    with pytest.raises(Refusal, match="Give CSV in UTF-8"):
        read_target_file(file)


def test_a_packed_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    """What came before the cut is not erased either."""
    packed = tmp_path / "targets.csv.gz"
    packed.write_bytes(gzip.compress(b"user_id,item_id\n" + b"".join(b"u%d,i\n" % n for n in range(5000)))[:-900])

    with pytest.raises(Refusal, match="cannot be read"):
        read_target_file(packed)


@pytest.mark.P10
def test_the_targets_of_one_call_are_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger file is refused as a whole, not erased in part."""
    monkeypatch.setattr("service.cli.target_file.TARGETS_MAX", 3)
    file.write_text("user_id,item_id\n" + "".join(f"u{number},i\n" for number in range(4)))

    with pytest.raises(Refusal, match="line 5 is past the 3 targets of one call"):
        read_target_file(file)


def test_many_targets_are_split_without_losing_or_widening_one() -> None:
    """Each part holds what was named, as what it was named."""
    targets = targets_of_arguments(
        [word for number in range(7) for word in (f"u{number}", "i")], ["a", "b", "c"], ["x", "y"]
    )

    parts = list(targets.parts(5))

    assert [len(part) for part in parts] == [5, 5, 2]
    assert [pair for part in parts for pair in part.interactions] == list(targets.interactions)
    assert [user for part in parts for user in part.users] == ["a", "b", "c"]
    assert [item for part in parts for item in part.items] == ["x", "y"]


def test_a_reach_of_several_parts_is_an_upper_bound() -> None:
    """And says so; never more than there is."""
    part = {"matched": 60, "hidden": 50, "affected_users": 4, "recorded": 100}

    one, two = ReachSummary.of([part]), ReachSummary.of([part, part])

    assert one.words() == "60 of 100 recorded interactions (60.00 %), of 4 users"
    assert two.words() == "at most 100 of 100 recorded interactions (100.00 %), of at most 8 users"
    with pytest.raises(Refusal, match="does not tell how far"):
        ReachSummary.of([{"id": "x"}])
