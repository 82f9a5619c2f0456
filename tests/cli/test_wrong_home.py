"""The wrong key, and a database that went back in time, at every door of the command line."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Run

REFUSES_TO_START = 78
OTHER_KEY = {"EXPUNGE_SECRET_KEY": "another key " * 4}
COMMANDS = (
    ("serve", "--port", "0"),
    ("api", "--port", "0"),
    ("worker",),
    ("train",),
    ("pretrain",),
    ("keys", "list"),
    ("status",),
    ("db", "upgrade"),
)


def start(home: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "service.cli", "--home", str(home), *command],
        env={**os.environ, "EXPUNGE_METRICS_PORT": "0", **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.mark.parametrize("command", ["serve", "api", "worker"])
def test_a_process_refuses_another_key_for_good(own_home: Path, command: str) -> None:
    """Status 78: starting it again would not mend it; one sentence names the cause and where the key came from."""
    arguments = next(line for line in COMMANDS if line[0] == command)

    done = start(own_home, *arguments, **OTHER_KEY)

    assert done.returncode == REFUSES_TO_START
    last = done.stderr.splitlines()[-1]
    assert "made with another key than the one in EXPUNGE_SECRET_KEY" in last
    assert "another key another" not in done.stderr + done.stdout


@pytest.mark.parametrize("command", COMMANDS[3:], ids=lambda line: line[0])
def test_a_command_refuses_another_key(
    own_home: Path, run: Run, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is recorded, trained or made with digests that nobody else would find; nor where the key is lost."""
    monkeypatch.setenv("EXPUNGE_SECRET_KEY", OTHER_KEY["EXPUNGE_SECRET_KEY"])
    other = run(*command)
    monkeypatch.delenv("EXPUNGE_SECRET_KEY")
    (own_home / "secret.key").unlink()
    lost = run(*command)

    assert (other.status, lost.status) == (REFUSES_TO_START, REFUSES_TO_START)
    assert "another key" in other.err
    assert "There is no" in lost.err
    assert not (own_home / "secret.key").exists()


@pytest.mark.P4
def test_a_restored_database_is_refused_until_somebody_trusts_it(own_home: Path, run: Run) -> None:
    """Commands that would work on it say so; `status` tells; `db trust` says what it costs and goes on."""
    database = own_home / "expunge.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(database, own_home / "backup.db")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO audit_entries (seq, at, event, body, leaf_hash) SELECT size + 1, '2026-11-25 00:00:00', 'x', "
            "'{}', zeroblob(32) FROM audit_head"
        )
        connection.execute("UPDATE audit_head SET size = size + 1")
    assert run("keys", "list").status == 0  # marks what is settled
    for leftover in ("expunge.db-wal", "expunge.db-shm"):
        (own_home / leftover).unlink(missing_ok=True)
    shutil.copy(own_home / "backup.db", database)

    refused, told = run("keys", "list"), run("status")
    trusted = run("db", "trust", "--yes", "--json", "-")
    after = run("keys", "list")

    assert refused.status == REFUSES_TO_START
    assert "The model store has seen" in refused.err
    assert told.status == 0
    assert "The model store has seen" in told.out
    assert json.loads(trusted.out)["trusted"] is True
    assert after.status == 0, after.err
    assert json.loads(run("db", "trust", "--json", "-").out) == {"behind": None, "trusted": False}
