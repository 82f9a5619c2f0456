"""`expunge erase` and `audit list`, against a real service."""

import io
import json
from pathlib import Path

import pytest

from tests.cli.conftest import WAIT_S, Run, Serving


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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("", "i0000001"), "Value 1 of USER ITEM is no id"),
        (("u0000001", ""), "Value 2 of USER ITEM is no id"),
        (("u0000001", "i0000001", "u0000002", ""), "Value 4 of USER ITEM is no id"),
        (("u0000001",), "the last of them has no item"),
        (("--user", ""), "Value 1 of --user is no id"),
        (("--item", "i0000001", "--item", ""), "Value 2 of --item is no id"),
        (("--user", "a\tb"), "Value 1 of --user is no id"),
        ((), "Nothing is named"),
    ],
)
def test_an_unset_variable_of_a_shell_widens_nothing(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    """An empty user beside an item is not the whole item; nothing is sent (nobody answers at this address)."""
    ran = run("erase", *arguments, "--url", "http://127.0.0.1:9", "--key", "exp_x")

    assert ran.status == 1
    assert sentence in ran.err


def test_a_preview_tells_the_reach_and_erases_nothing(service: Serving, run: Run, tmp_path: Path) -> None:
    """In words and as JSON, with what would be hidden."""
    user, where = "u0000007", ("--url", service.url, "--key", service.key)
    own = service.get(f"/v1/users/{user}/interactions").json()["interactions"]
    file = tmp_path / "targets.csv"
    file.write_text(f"user_id,item_id\n{user},\nu0000008,nothing\n")
    out = tmp_path / "reach.json"

    ran = run("erase", "--file", file, "--preview", "--json", out, *where)

    assert ran.status == 0, ran.err
    assert "Would erase 1 interaction and 1 whole user" in ran.out
    document = json.loads(out.read_text())
    assert document["targets"] == {"interactions": 1, "users": 1, "items": 0}
    assert document["reach"]["matched"] == document["reach"]["hidden"] == len(own)
    assert service.get(f"/v1/users/{user}/interactions").json()["interactions"] == own


def test_what_reaches_far_is_not_erased_without_a_yes(service: Serving, run: Run, tmp_path: Path) -> None:
    """Without a terminal there is nobody to ask: one sentence with the reach, and nothing is sent."""
    where = ("--url", service.url, "--key", service.key)
    before = service.get("/v1/erasures?limit=1").json()["erasures"][:1]
    many = [word for number in range(20, 32) for word in ("--user", f"u{number:07}")]

    ran = run("erase", *many, *where)

    assert ran.status == 1
    assert "12 whole users" in ran.err
    assert "--yes" in ran.err
    assert ran.err.count("\n") == 1
    assert service.get("/v1/erasures?limit=1").json()["erasures"][:1] == before


def test_with_a_yes_the_reach_is_told_and_everything_erased(service: Serving, run: Run, tmp_path: Path) -> None:
    """As a script says it."""
    file = tmp_path / "pairs.csv"
    file.write_text("user_id,item_id\n" + "".join(f"nobody-{number},i0000001\n" for number in range(101)))
    where = ("--url", service.url, "--key", service.key)
    assert "101 interactions" in run("erase", "--file", file, *where).err

    ran = run("erase", "--file", file, "--yes", "--json", "-", *where)

    assert ran.status == 0, ran.err
    assert "Erasing 101 interactions" in ran.err
    document = json.loads(ran.out)
    assert document["erasures"][0]["requested"] == 101
    assert document["reach"]["matched"] == 0


@pytest.mark.parametrize(("answer", "status"), [("n\n", 130), ("", 130), ("y\n", 0)])
def test_on_a_terminal_it_asks(
    service: Serving, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    """With the reach in the question; no answer is a no."""
    file = tmp_path / "pairs.csv"
    file.write_text("user_id,item_id\n" + "".join(f"no-one-{number},i0000001\n" for number in range(101)))
    before = service.get("/v1/erasures?limit=1").json()["erasures"][:1]
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)

    ran = run("erase", "--file", file, "--url", service.url, "--key", service.key)

    assert ran.status == status, ran.err
    assert "This erases 101 interactions" in ran.err
    assert (service.get("/v1/erasures?limit=1").json()["erasures"][:1] == before) is (status != 0)
