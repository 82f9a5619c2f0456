"""`expunge residue` on a home, with no service."""

import json
from pathlib import Path

import pytest

from service.platform.database import Database
from service.settings import load_settings
from tests.cli.conftest import Run
from tests.factories.domains import Domains
from tests.factories.worlds import World

pytestmark = pytest.mark.P8

USER, ITEM = "somebody-4711", "film-000012"


@pytest.fixture
def erased(home: Path, run: Run) -> tuple[str, str]:
    """A home with an erasure of a pair; its id and salt."""
    assert run("db", "upgrade").status == 0
    settings = load_settings(home=home)
    database = Database(settings.sql_url)
    world = World(settings, database, [USER], [ITEM])
    world.record([(USER, ITEM)])
    erasure = Domains(database, settings, identity=world.identity).accept((USER, ITEM))
    database.close()
    return erasure.id, erasure.salt or ""


def test_what_is_left_is_told_by_place_and_fails(erased: tuple[str, str], run: Run) -> None:
    """Verdict by verdict, in words and as JSON; no id is among them."""
    told = run("residue", USER, ITEM, "--erasure", erased[0], "--salt", erased[1])

    assert told.status == 1
    assert "PRESENT: something is left at" in told.err
    assert "columns          PRESENT" in told.out
    assert "erasures.salt: salt, 1 times" in told.out
    assert "model_store      GONE" in told.out
    assert "process_logs     NOT_CHECKED" in told.out
    assert "MB/s" in told.out
    assert not [each for each in (USER, ITEM, erased[1]) if each in told.out + told.err]

    document = json.loads(run("residue", "--user", USER, "--json", "-").out)
    assert document["present"]
    assert "users.id" in {place["place"] for place in document["stores"][0]["places"]}


def test_who_was_never_here_is_gone(erased: tuple[str, str], run: Run, tmp_path: Path) -> None:
    """Named in a file, which no list of processes shows."""
    (tmp_path / "targets.csv").write_text("user_id,item_id\nnobody-at-all,\n,nothing-at-all\n")
    told = run("residue", "--file", tmp_path / "targets.csv")

    assert told.status == 0, told.err
    assert "PRESENT" not in told.out


def test_what_was_planted_in_the_home_is_found(erased: tuple[str, str], run: Run, home: Path) -> None:
    """Where it is."""
    (home / "serve.log").write_text("hello nobody-at-all")
    told = run("residue", "--user", "nobody-at-all")

    assert told.status == 1
    assert "serve.log: id, 1 times, first at byte 6." in told.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "Nothing is named to search for."),
        (("--user", USER, "--salt", "abc"), "--salt takes 64 hexadecimal digits"),
        (("--user", USER, "--erasure", "none"), "no erasure of the id"),
        ((USER,), "An interaction needs a user and an item"),
    ],
)
def test_what_makes_no_sense_is_refused(
    erased: tuple[str, str], run: Run, words: tuple[str, ...], sentence: str
) -> None:
    """In a sentence that repeats no id."""
    told = run("residue", *words)

    assert told.status == 1
    assert sentence in told.err
    assert USER not in told.err


def test_a_salt_of_something_else_is_refused(erased: tuple[str, str], run: Run) -> None:
    """It would say nothing about the erasure."""
    told = run("residue", "--user", USER, "--erasure", erased[0], "--salt", erased[1])

    assert told.status == 1
    assert "do not open the erasure's commitment" in told.err
