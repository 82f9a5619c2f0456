"""The command line itself: what it imports, and that every refusal is one plain sentence."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli.failures import DEFECT, Refusal, explain
from service.cli.program import home_first
from tests.cli.conftest import Run

HEAVY = {"torch", "sqlalchemy", "fastapi", "uvicorn", "pyarrow", "redis", "httpx", "numpy"}


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    """`expunge --help` need not wait for torch."""
    done = python("import sys, service.cli; print(*sys.modules)")

    assert not HEAVY & set(done.stdout.split())


def test_an_api_replica_never_imports_torch(own_home: Path) -> None:
    """The API starts, loads a model, ranks with it and ends without torch."""
    code = """
import http.client, os, signal, sys, threading, time
from service.cli import main

def ask():
    while True:
        time.sleep(0.05)
        try:
            connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[2]), timeout=30)
            connection.request("GET", "/readyz")
            print("ready", connection.getresponse().status)
            break
        except OSError:
            pass
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=ask, daemon=True).start()
print("status", main(["--home", sys.argv[1], "api", "--port", sys.argv[2]]))
print("torch" in sys.modules)
"""
    done = python(code, str(own_home), str(_free_port()))

    assert done.stdout.split("\n")[-4:-1] == ["ready 200", "status 0", "False"], done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["frobnicate"], "No such command 'frobnicate'. `expunge --help` shows what there is."),
        (["train", "--epochs", "0"], "Invalid value for '--epochs'"),
        (["import", "--data", "/no/such/folder"], "The data folder /no/such/folder is not there; name a folder"),
        (["import"], "Which data? Name the folder or the file with --data PATH."),
        (["pretrain", "--batch-size", "1"], "Invalid value for '--batch-size'"),
        (["pretrain"], "There is no trained base yet. Run `expunge train` first."),
        (["train"], "There is too little to learn from."),
        (["keys", "list"], "The database has no schema yet. Run `expunge db upgrade`."),
        (
            ["keys", "create", "--scope", "everything"],
            "A scope is one of recommend, read, write, erase, audit, officer, admin.",
        ),
        (["erase"], "Nothing is named to erase."),
        (["erase", "u1"], "An interaction needs a user and an item"),
        (["erase", "u1", "i1", "--url", "http://127.0.0.1:1"], "Nothing listens at 127.0.0.1:1."),
        (["erase", "u1", "i1", "--url", "nonsense"], "That is no URL of a service."),
        (["erase", "--file", "/no/such/file.csv"], "/no/such/file.csv: There is no such file or folder."),
        (["db", "upgrade", "nowhere"], "There is no such revision."),
        (["serve", "--host", "no.such.host.invalid"], "The host no.such.host.invalid is not known here."),
    ],
)
def test_a_refusal_is_one_sentence_on_standard_error(
    run: Run, arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes a mistake reads what it was and what to do, and no traceback."""
    monkeypatch.delenv("EXPUNGE_DATA_DIR", raising=False)

    ran = run(*arguments)

    assert ran.status != 0
    assert sentence in ran.err
    assert "Traceback" not in ran.err
    assert ran.err.count("\n") == 1


def test_a_setting_that_makes_no_sense_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named, its value is not: it may be a secret."""
    monkeypatch.setenv("EXPUNGE_SECRET_KEY", "hunter2")

    ran = run("status")

    assert ran.status != 0
    assert "EXPUNGE_SECRET_KEY" in ran.err
    assert "hunter2" not in ran.err


def test_a_port_in_use_is_named(run: Run) -> None:
    """Another program on the port: say which port, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        ran = run("serve", "--port", str(port))

    assert ran.status != 0
    assert f"Port {port} of 127.0.0.1 is in use" in ran.err


def test_a_home_that_cannot_be_is_named(run: Run, tmp_path: Path) -> None:
    """A file where the home should be."""
    blocked = tmp_path / "file"
    blocked.touch()

    ran = run("status", "--home", blocked / "home")

    assert ran.status != 0
    assert ran.err.startswith(f"{blocked}")


def test_a_defect_is_told_without_its_text() -> None:
    """The text of an unforeseen error may quote an id, so it is not printed."""
    failure = explain(ValueError("user 4711"))

    assert failure.exit_code == DEFECT
    assert "4711" not in failure.text
    assert "EXPUNGE_DEBUG=1" in failure.text


def test_debugging_shows_the_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """EXPUNGE_DEBUG=1 is for whoever wants to see where."""
    monkeypatch.setenv("EXPUNGE_DEBUG", "1")

    assert "Traceback" in run("import").err


def test_a_refusal_carries_its_own_exit_status() -> None:
    """What would not be mended by starting again says so to the supervisor."""
    assert explain(Refusal("No.", 78)).exit_code == 78


def test_a_reader_that_went_away_is_no_failure_to_report() -> None:
    """`expunge audit list | head` ends quietly."""
    code = f"{sys.executable} -m service.cli --help | head -1"

    done = subprocess.run(["/bin/sh", "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert "Traceback" not in done.stderr


WORDS = st.lists(st.sampled_from(["erase", "--home", "a", "--home=b", "--user", "c"]), max_size=8)


@given(WORDS, WORDS)
def test_home_may_stand_anywhere_before_the_double_dash(before: list[str], after: list[str]) -> None:
    """No word is lost or made up, and what follows `--` is left alone."""
    moved = home_first([*before, "--", *after])

    assert sorted(moved) == sorted([*before, "--", *after])
    assert moved[len(moved) - len(after) :] == after
    assert home_first(["erase", "--home", "x", "u"]) == ["--home", "x", "erase", "u"]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("command", ["demo", "serve", "pretrain", "adopt"])
def test_help_leaves_out_no_default_in_brackets(run: Run, command: str) -> None:
    """`[ml-100k of EXPUNGE_DATA_DIR]` is no markup, and no sentence ends with a stray dot."""
    told = run(command, "--help").out

    assert "[" in told
    assert not re.search(r"\s\.(\s|$)", told)


def test_help_lists_commands_with_whole_sentences(run: Run) -> None:
    """None is cut short."""
    assert "..." not in run("--help").out.replace("[ARGS]...", "")
