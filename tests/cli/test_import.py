"""`expunge import`: other people's files, what is said of them, and what is not."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run
from tests.factories.files import folder

RATED = "User_ID;Movie Id;Stars;When\nu1;a;5;1\nu1;b;2;2\nu2;a;4;3\nu2;b;;4\n"


def test_what_was_understood_and_left_out_is_told_in_text_and_json(run: Run, tmp_path: Path) -> None:
    """One file, with a threshold: both say the same."""
    path = folder(tmp_path / "d", {"shop.csv": RATED}) / "shop.csv"
    document = tmp_path / "out.json"

    done = run("import", "--data", path, "--min-rating", "4", "--time-column", "When", "--json", document)

    assert done.status == 0, done.err
    assert done.out.splitlines() == [
        "shop: 2 users, 1 items, 2 interactions, 0 more for evaluation.",
        "Recorded 2; 0 were recorded before; 0 are covered by an erasure.",
        "Left out 2 rows with a rating below 4, or none.",
        "shop.csv: read 'User_ID' as user_id, 'Movie Id' as item_id, 'Stars' as rating, 'When' as timestamp.",
    ]
    told = json.loads(document.read_text())["reading"]
    assert told["below_min_rating"] == {"train": 2, "test": 0}
    assert (told["format"], told["n_rated"], told["n_timed"], told["min_rating"]) == ("csv", 3, 4, 4)
    assert told["columns"]["shop.csv"]["item_id"] == "Movie Id"
    assert told["remarks"] == done.out.splitlines()[3:]


def test_every_option_reaches_the_reader(run: Run, tmp_path: Path) -> None:
    """Names of separators included."""
    path = folder(tmp_path / "d", {"train.txt": " x \tu1\t9\n y \tu1\t8\nz\tu2\t1\n"})
    ways = ("--format", "pairs", "--separator", "tab", "--user-column", "2", "--item-column", "1")

    done = run("import", "--data", path, *ways, "--rating-column", "3", "--min-rating", "2", "--strip", "--json", "-")

    assert done.status == 0, done.err
    document = json.loads(done.out)
    assert document["dataset"] == {"name": "d", "n_users": 1, "n_items": 2, "n_train": 2, "n_test": 0}
    assert document["reading"]["below_min_rating"]["train"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--strip takes them off all ids, --no-strip takes every id as it stands."),
        (("--separator", "\n"), "A separator is one or more characters"),
        (("--min-rating", "nan"), "NaN is above and below nothing"),
        (("--format", "excel"), "'excel' is not one of"),
        (("--strip", "--item-column", "who"), "train.csv has no column 'who'; found: 'user_id', 'item_id'."),
    ],
)
def test_what_cannot_be_read_leaves_nothing_behind(
    run: Run, tmp_path: Path, home: Path, arguments: tuple[str, ...], said: str
) -> None:
    """One sentence, a status, and no database."""
    path = folder(tmp_path / "d", {"train.csv": "user_id,item_id\nu, 1\n"})

    refused = run("import", "--data", path, *arguments)

    assert refused.status in (1, 2)
    assert said in refused.err.replace("\n", " ")
    assert not (home / "expunge.db").exists()


def test_held_out_pairs_and_ids_of_a_model_are_read_with_the_same_options(run: Run, tmp_path: Path) -> None:
    """`adopt` refuses by the same rules."""
    np.savez(tmp_path / "m.npz", users=np.eye(2), items=np.eye(2), user_ids=np.array(["a", "b"]), item_ids=[1, 2])
    held_out = folder(tmp_path, {"held.txt": "a 1 5\na 2 3\n"}) / "held.txt"

    refused = run("adopt", "--embeddings", tmp_path / "m.npz", "--held-out", held_out)
    read = run("adopt", "--embeddings", tmp_path / "m.npz", "--held-out", held_out, "--format", "pairs")

    assert "--format pairs" in refused.err
    assert "too little to learn from" in read.err
