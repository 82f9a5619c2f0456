"""`expunge erase` and `audit list`, against a real service."""

import gzip
import json
from pathlib import Path

import pytest

from service.cli.erase import RequestedTargets, read_targets
from service.cli.failures import Refusal
from tests.cli.conftest import WAIT_S, Run, Serving


def test_targets_are_read_from_csv(tmp_path: Path) -> None:
    """Both ids name an interaction, one alone a whole user or item; quoting and order of columns do not matter."""
    file = tmp_path / "targets.csv"
    file.write_text('note,item_id,user_id\nx,"a,b",u 1\n,,u2\n\n,i3,\n')
    targets = RequestedTargets()

    read_targets(file, targets)

    assert targets == RequestedTargets([("u 1", "a,b")], ["u2"], ["i3"])


def test_targets_are_read_from_gzip(tmp_path: Path) -> None:
    """As they come from an export."""
    file = tmp_path / "targets.csv.gz"
    file.write_bytes(gzip.compress("user_id\n🙂\n".encode()))
    targets = RequestedTargets()

    read_targets(file, targets)

    assert targets.users == ["🙂"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "neither a column user_id nor item_id"),
        (b"user,item\n1,2\n", "neither a column user_id nor item_id"),
        (b"user_id,item_id\nu1,i1\n,\n", "line 3 names neither"),
        (b"user_id\n\xff\xfe\n", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    """The line is named; its ids are not repeated."""
    file = tmp_path / "targets.csv"
    file.write_bytes(content)

    with pytest.raises(Refusal, match=sentence):
        read_targets(file, RequestedTargets())


def test_many_targets_are_split_without_losing_one() -> None:
    """10,000 at most in one erasure, all of them in all."""
    targets = RequestedTargets([(f"u{n}", "i") for n in range(7)], ["u"] * 3, ["i"] * 2)

    parts = list(targets.parts(5))

    assert [len(part) for part in parts] == [5, 5, 2]
    assert [pair for part in parts for pair in part.interactions] == targets.interactions
    assert sum(len(part.users) for part in parts) == 3
    assert sum(len(part.items) for part in parts) == 2


def test_an_erasure_is_waited_for_and_told_by_the_log(service: Serving, run: Run, tmp_path: Path) -> None:
    """From the command line: erased, forgotten, and every step of it in the log."""
    item = service.get("/v1/users/u0000002/interactions").json()["interactions"][0]["item_id"]
    where = ("--url", service.url, "--key", service.key)
    out = tmp_path / "erased.json"

    ran = run("erase", "u0000002", item, "--reason", "asked by mail", "--wait", WAIT_S, "--json", out, *where)

    assert ran.status == 0, ran.err
    (state,) = json.loads(out.read_text())["erasures"]
    assert state["status"] == "forgotten"
    assert (state["requested"], state["matched"]) == (1, 1)
    assert len(state["salt"]) == 64
    log = run("audit", "list", "--erasure", state["id"], *where)
    assert "erasure.accepted" in log.out
    assert "erasure.forgotten" in log.out
    assert "u0000002" not in log.out


def test_users_items_and_files_go_together(service: Serving, run: Run, tmp_path: Path) -> None:
    """All ways of naming targets end in one erasure."""
    file = tmp_path / "more.csv"
    file.write_text("user_id,item_id\nu0000003,i0000001\n")
    where = ("--url", service.url, "--key", service.key)

    ran = run("erase", "--user", "u0000004", "--item", "i0000002", "--file", file, "--json", "-", *where)

    assert ran.status == 0, ran.err
    (accepted,) = json.loads(ran.out)["erasures"]
    assert accepted["status"] == "accepted"
    assert accepted["requested"] == 3


def test_a_wrong_key_is_one_sentence(service: Serving, run: Run) -> None:
    """The service's own explanation is passed on."""
    ran = run("erase", "u1", "i1", "--url", service.url, "--key", "exp_wrong")

    assert ran.status == 1
    assert "API key" in ran.err
    assert ran.err.count("\n") == 1


def test_key_and_address_come_from_the_environment(service: Serving, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """EXPUNGE_URL and EXPUNGE_API_KEY are what the demonstration prints."""
    monkeypatch.setenv("EXPUNGE_URL", service.url)
    monkeypatch.setenv("EXPUNGE_API_KEY", service.key)

    assert run("audit", "list", "--limit", 1).status == 0
