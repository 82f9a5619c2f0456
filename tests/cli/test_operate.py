"""`expunge db`, `keys`, `status`, and the commands that make a model."""

import json
from pathlib import Path

import pytest

import migrations
from service.cli import main
from service.recommender.dataset import Dataset
from tests.cli.conftest import Run


def test_the_schema_goes_up_and_down(run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On both databases each command says where the schema was and where it is."""
    monkeypatch.setenv("EXPUNGE_DATABASE_URL", database_url)
    assert "no schema yet" in run("db", "current").out

    up = run("db", "upgrade")
    again = run("db", "upgrade")
    at = run("db", "current", "--json", "-")
    down = run("db", "downgrade", "base", "--yes")

    assert up.out == f"The schema is at {migrations.head()}, it was at nothing.\n"
    assert again.out == f"The schema is at {migrations.head()}.\n"
    assert json.loads(at.out) == {"current": migrations.head(), "newest": migrations.head()}
    assert down.out == f"The schema is at nothing, it was at {migrations.head()}.\n"


def test_a_shared_database_is_migrated_by_its_owner_only(
    run: Run, postgres_url: str, small_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is convenient on one machine would surprise a team: PostgreSQL is never migrated on the way."""
    monkeypatch.setenv("EXPUNGE_DATABASE_URL", postgres_url)

    refused = run("import", "--data", small_folder)
    run("db", "upgrade")
    done = run("import", "--data", small_folder)

    assert "Run `expunge db upgrade`." in refused.err
    assert done.status == 0, done.err


def test_keys_are_made_listed_and_revoked(run: Run) -> None:
    """The key is shown when it is made and never again."""
    made = json.loads(run("keys", "create", "--scope", "erase,audit", "--label", "privacy desk", "--json", "-").out)
    listed = run("keys", "list")
    revoked = run("keys", "revoke", made["id"])

    assert made["key"].startswith("exp_")
    assert made["scopes"] == ["audit", "erase"]
    assert made["key"] not in listed.out
    assert "privacy desk" in listed.out
    assert revoked.status == 0
    assert "revoked" in run("keys", "list").out
    assert run("keys", "revoke", made["id"]).status == 1


def test_a_key_is_rotated_beside_the_old_one(run: Run) -> None:
    """Two of a label and no third; the list tells lifetimes and last use, in words and as JSON."""
    old = json.loads(run("keys", "create", "--scope", "erase", "--label", "desk", "--expires", "30", "--json", "-").out)
    told = run("keys", "rotate", "desk")
    third = run("keys", "create", "--label", "desk")
    rotated = run("keys", "rotate", "desk")
    listed = json.loads(run("keys", "list", "--json", "-").out)["keys"]

    assert told.out.startswith("exp_")
    assert f"expunge keys revoke {old['id']}" in told.out
    for refused in (third, rotated):
        assert refused.status == 1
        assert "2 keys that work" in refused.err
    mine = [key for key in listed if key["label"] == "desk"]
    assert [(key["scopes"], key["works"], key["last_used_at"]) for key in mine] == [(["erase"], True, None)] * 2
    assert all(key["expires_at"] for key in mine)
    assert "never used, expires 20" in run("keys", "list").out
    assert run("keys", "revoke", old["id"]).status == 0
    assert json.loads(run("keys", "rotate", "desk", "--expires", "0.5", "--json", "-").out)["old_id"] == mine[1]["id"]


@pytest.mark.parametrize("days", ["0", "-1", "nan", "1e9"])
def test_a_lifetime_that_makes_no_sense_is_refused(run: Run, days: str) -> None:
    """One sentence; no key is made."""
    refused = run("keys", "create", "--label", "desk", "--expires", days)

    assert refused.status == 1
    assert "--expires is a number of days above 0" in refused.err
    assert run("keys", "rotate", "desk").status == 1


def test_a_key_may_recommend_and_no_more_by_default(run: Run) -> None:
    """The least that is of use."""
    made = json.loads(run("keys", "create", "--json", "-").out)

    assert made["scopes"] == ["recommend"]


def test_import_says_what_became_of_every_row(run: Run, small_folder: Path, small: Dataset, tmp_path: Path) -> None:
    """The first time all is new, the second time nothing is."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"

    assert run("import", "--data", small_folder, "--json", first).status == 0
    assert run("import", "--data", small_folder, "--json", second).status == 0

    n_train = len(small.train)
    assert json.loads(first.read_text())["import"] == {"recorded": n_train, "duplicates": 0, "refused": 0}
    assert json.loads(second.read_text())["import"] == {"recorded": 0, "duplicates": n_train, "refused": 0}
    assert json.loads(first.read_text())["dataset"]["n_test"] == len(small.test)


def test_train_and_pretrain_tell_what_they_made(own_home: Path, tmp_path: Path) -> None:
    """A second base does not serve unless that is asked for; an encoder names its base."""
    base, encoder = tmp_path / "base.json", tmp_path / "encoder.json"
    small = ["--dimension", "8", "--batch-size", "256", "--epochs", "2", "--seed", "3", "--accept-worse"]

    assert main(["--home", str(own_home), "train", *small, "--json", str(base)]) == 0
    assert main(["--home", str(own_home), "pretrain", "--steps", "2", "--base", "2", "--json", str(encoder)]) == 0

    assert json.loads(base.read_text())["version"] == 2
    assert json.loads(base.read_text())["live"] is False
    assert json.loads(base.read_text())["epochs"] == 2
    assert json.loads(encoder.read_text())["base"] == 2
    assert json.loads(encoder.read_text())["mode"] == "forget"


def test_status_names_the_live_version(own_home: Path, run: Run) -> None:
    """One look at a home: what serves, what waits."""
    document = json.loads(run("status", "--json", "-").out)

    assert document["live_version"] == 1
    assert document["versions"] == [1]
    assert document["encoders"] == [1]
    assert document["erasures"] == {"waiting": 0, "needing_attention": 0, "overdue": 0}
    assert document["store_bytes"] > 0
    assert "version 1" in run("status").out
