"""`expunge serve`: real processes, killed and ended in every way an operator or a kernel would."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import SERVING, WAIT_S, Run, Serving, start_serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes")


def children(service: Serving) -> dict[str, psutil.Process]:
    """The supervisor's children by what they run."""
    found = {}
    for child in psutil.Process(service.process.pid).children():
        words = child.cmdline()
        found[next((name for name in ("api", "worker", "compactor") if name in words), "server")] = child
    return found


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them end in time."""
    return not psutil.wait_procs(processes, timeout=WAIT_S)[1]


def test_one_command_answers_recommendations(service: Serving) -> None:
    """API, worker and stream server run; a person gets recommendations."""
    answer = service.get("/v1/users/u0000001/recommendations?n=3")

    assert answer.status_code == 200
    assert len(answer.json()["items"]) == 3
    assert set(children(service)) == {"api", "worker", "compactor", "server"}


@pytest.mark.parametrize("program", ["api", "compactor"])
def test_only_the_worker_holds_torch(service: Serving, program: str) -> None:
    """What keeps a replica small, and a compactor that waits: torch's libraries are not even mapped."""
    service.get("/v1/users/u0000001/recommendations?n=3")

    maps = Path(f"/proc/{children(service)[program].pid}/maps").read_text()

    assert "libtorch" not in maps


def test_a_killed_api_is_started_again_behind_the_same_port(serving: Serving) -> None:
    """The supervisor holds the listening socket, so callers wait a moment and are answered."""
    before = children(serving)["api"]

    before.kill()
    serving.until("The API was killed by signal 9")

    assert serving.get("/readyz").status_code == 200
    assert children(serving)["api"].pid != before.pid


@pytest.mark.P1
def test_a_killed_worker_is_started_again_and_forgets_what_was_accepted(serving: Serving, run: Run) -> None:
    """What is accepted while no worker runs waits for the next one."""
    children(serving)["worker"].kill()
    serving.until("The worker was killed by signal 9")

    ran = run("erase", "u0000001", _seen(serving), "--wait", WAIT_S, "--url", serving.url, "--key", serving.key)

    assert ran.status == 0, ran.err
    assert "forgotten" in ran.out


def test_sigterm_ends_all_in_order(serving: Serving) -> None:
    """Nothing is left, and the exit status says that all is well."""
    processes = list(children(serving).values())

    status = serving.end(signal.SIGTERM)

    assert status == 0
    assert gone(processes)
    assert not _listens(serving.url)
    serving.until("Stopping")
    serving.until("Stopped.")


def test_ctrl_c_ends_all_in_order(serving: Serving) -> None:
    """SIGINT is what a terminal sends."""
    processes = list(children(serving).values())

    assert serving.end(signal.SIGINT) == 0
    assert gone(processes)


def test_children_end_when_the_supervisor_is_killed(serving: Serving) -> None:
    """No orphan goes on serving after a kill -9 of the supervisor."""
    processes = list(children(serving).values())

    serving.end(signal.SIGKILL)

    assert gone(processes)


def test_the_first_admin_key_is_shown_once(serving: Serving, own_home: Path) -> None:
    """A second start does not show it again, and the key goes on working."""
    serving.end()

    with start_serving(own_home) as again:
        again.url = again.until("API       ").split()[1]
        again.key = serving.key

        assert not any("Admin key" in line for line in again.said)
        assert again.get("/v1/users/u0000001/recommendations").status_code == 200


def test_an_empty_home_says_what_to_do_first(home: Path) -> None:
    """Without a model the service runs, and names the commands that make one."""
    with start_serving(home) as empty:
        line = empty.until("No model serves yet")

    assert "expunge import" in line
    assert "expunge train" in line


def test_a_setting_that_makes_no_sense_ends_the_service(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sentence is the last that is said, and the status tells a supervisor not to try again."""
    monkeypatch.setitem(SERVING, "EXPUNGE_REDIS_URL", "nonsense")

    with start_serving(home) as refused:
        refused.until("EXPUNGE_REDIS_URL must begin with redis://")

        assert refused.process.wait(WAIT_S) == 78


def test_a_metrics_port_in_use_is_named_and_tried_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder may be about to end: the API goes on, and the worker is started until the port is free."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setitem(SERVING, "EXPUNGE_METRICS_PORT", str(port))

        with start_serving(home) as service:
            service.until(f"Port {port} of 127.0.0.1 is in use")
            service.until("The worker ended with status 75; it is started again")
            assert service.end() == 0


def test_a_port_in_use_ends_the_service_with_a_sentence_that_is_not_final(home: Path) -> None:
    """A supervisor such as systemd tries again; a person reads which port it is and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with start_serving(home, "--port", str(port)) as refused:
            refused.until(f"Port {port} of 127.0.0.1 is in use by another program. Stop that one")

            assert refused.process.wait(WAIT_S) == 75


@pytest.mark.parametrize("no_color", ["", "1"])
def test_the_log_on_a_terminal_is_text_that_names_its_process(home: Path, no_color: str) -> None:
    """All three processes, the server's own lines too; colours unless nobody wants them."""
    said = _on_a_terminal(home, NO_COLOR=no_color)

    plain = re.sub(r"\x1b\[\d*m", "", said)
    for line in (
        r"api    info    api\.started",
        r"api    info    \S.*logger=uvicorn\.error",
        r"worker info    worker\.started",
        r"valkey info    valkey\.started",
    ):
        assert re.search(rf"^\d\d:\d\d:\d\d {line}", plain, re.MULTILINE), line
    assert "{" not in plain
    assert ("\x1b[" in said) is (not no_color)


def test_the_log_can_be_json_on_a_terminal(home: Path) -> None:
    """What was asked of `serve` holds for all that it starts."""
    said = _on_a_terminal(home, "--log-format", "json")

    logged = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert {line["process"] for line in logged} == {"api", "worker", "compactor", "valkey"}


def _on_a_terminal(home: Path, *arguments: str, **environment: str) -> str:
    """What `expunge serve` says on a terminal until API and worker have started, and while it is ended."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "--home", str(home), "serve", "--port", "0", *arguments],
        env={**os.environ, **SERVING, "EXPUNGE_LOG_LEVEL": "info", "TERM": "xterm", **environment},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    try:
        while not all(sign in said for sign in (b"api.started", b"worker.started", b"No model serves yet")):
            said += os.read(ours, 65536)
        process.terminate()
        while chunk := _read(ours):
            said += chunk
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return said.decode().replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""


def _seen(serving: Serving) -> str:
    answer = serving.get("/v1/users/u0000001/interactions").json()
    return str(answer["interactions"][0]["item_id"])


def _listens(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
