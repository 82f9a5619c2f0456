"""What the command line says of a database or a stream server that cannot be used: one sentence, never a defect."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run

REFUSES_TO_START, FAILED = 78, 1


@pytest.mark.parametrize("command", [("db", "upgrade"), ("db", "current"), ("keys", "list"), ("status",)])
@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("sqlite:///:memory:", REFUSES_TO_START),
        ("sqlite://", REFUSES_TO_START),
        ("sqlite:///{folder}", REFUSES_TO_START),
        ("sqlite:///{folder}/letter.txt", REFUSES_TO_START),
        ("sqlite:///{folder}/letter.txt/x.db", FAILED),
        ("postgres://u:p@127.0.0.1:1/d", FAILED),
        ("postgresql://u:p@127.0.0.1:1/d?nonsense=1", REFUSES_TO_START),
        ("mysql://u:p@h/d", REFUSES_TO_START),
    ],
)
def test_an_unusable_database_is_one_sentence(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], url: str, status: int
) -> None:
    """Nothing is printed but what is wrong and what to do."""
    (tmp_path / "letter.txt").write_text("Dear database, " * 100)
    monkeypatch.setenv("EXPUNGE_DATABASE_URL", url.format(folder=tmp_path))

    done = run(*command)

    assert done.status == status
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert "should not have happened" not in done.err
    assert ":p@" not in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_database_that_cannot_be_written_is_one_sentence(run: Run, home: Path) -> None:
    """Read-only, as after a restore by another user."""
    assert run("db", "upgrade").status == 0
    (home / "expunge.db").chmod(0o400)

    done = run("keys", "create")

    assert (done.status, done.out) == (REFUSES_TO_START, "")
    assert "not written" in done.err


@pytest.mark.parametrize("command", ["api", "worker"])
def test_an_unusable_stream_server_is_refused_for_good(home: Path, command: str) -> None:
    """Starting it again would not mend it."""
    environment = {
        "EXPUNGE_DATABASE_URL": f"sqlite:///{home}/x.db",
        "EXPUNGE_PORT": "0",
        "EXPUNGE_METRICS_PORT": "0",
        "EXPUNGE_REDIS_URL": "redis://127.0.0.1:1/0?nonsense=1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "--home", str(home), command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == REFUSES_TO_START
    assert "EXPUNGE_REDIS_URL" in done.stderr.splitlines()[-1]
