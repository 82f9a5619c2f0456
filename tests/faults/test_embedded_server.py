"""What may happen to the embedded server and to the processes that share it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from service.platform.embedded import EmbeddedValkey
from service.platform.embedded_server import NoServerBinary, find_binary
from service.platform.problem import Problem
from service.platform.redis import ErasureStream

HOLD = """
import sys
from pathlib import Path
from service.platform.embedded import EmbeddedValkey
from service.platform.logging import configure_logging
configure_logging()
server = EmbeddedValkey(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def server(valkey_binary: Path, home: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(home)
    server.start()
    yield server
    server.stop()


@contextmanager
def stream_of(server: EmbeddedValkey) -> Iterator[ErasureStream]:
    stream = ErasureStream(server.url, stream="s", group="g", consumer="c", timeout_s=5)
    yield stream
    stream.close()


@contextmanager
def another_process(home: Path) -> Iterator[tuple[subprocess.Popen[str], int | None]]:
    """A process of the same home; with it the pid of its server, None if it uses somebody else's."""
    command = [sys.executable, "-c", HOLD, str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = process.stdout.readline().strip()
        yield process, None if told == "None" else int(told)
        process.kill()


def until(condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.01)


def answers(stream: ErasureStream) -> bool:
    try:
        stream.ping()
    except Problem:
        return False
    return True


def servers_of(home: Path) -> list[int]:
    """Pids of the servers that work in a home."""
    folder = str(home / "valkey")
    running = psutil.process_iter(["pid", "name", "cwd"])
    return [one.pid for one in running if "valkey" in (one.info["name"] or "") and one.info["cwd"] == folder]


def test_a_server_answers_when_start_returns(server: EmbeddedValkey):
    """And it is suitable: new enough, evicting nothing, on a socket that only its owner reaches."""
    with stream_of(server) as stream:
        assert stream.check().policy == "noeviction"
    assert server.url.startswith("unix://")


def test_a_home_with_a_long_path_gets_a_port_and_a_password(valkey_binary: Path, home: Path):
    """The kernel bounds the length of a socket's path."""
    deep = home / ("d" * 100)
    server = EmbeddedValkey(deep)
    server.start()

    with stream_of(server) as stream:
        stream.ping()
    assert server.url.startswith("redis://:")
    assert oct((deep / "valkey" / "address").stat().st_mode)[-3:] == "600"
    server.stop()


def test_a_home_with_odd_characters_works(valkey_binary: Path, home: Path):
    """Spaces, quotes, percent signs, emoji."""
    server = EmbeddedValkey(home / 'a "b" %20 🦆')
    server.start()

    with stream_of(server) as stream:
        stream.publish(["a"])
    server.stop()


@pytest.mark.P1
def test_entries_survive_a_restart(server: EmbeddedValkey):
    """What is in the stream is on the disk."""
    with stream_of(server) as stream:
        stream.publish(["a"])
        server.stop()
        server.start()

        assert [message.erasure_id for message in stream.read(count=1, block_ms=10)] == ["a"]


@pytest.mark.P1
def test_a_server_that_dies_is_started_again(server: EmbeddedValkey):
    """Killed twice, answering twice, with its entries."""
    with stream_of(server) as stream:
        stream.publish(["a"])
        for _ in range(2):
            killed = server.pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            until(lambda killed=killed: server.pid not in (None, killed) and answers(stream), "the next server")

        assert stream.pending().length == 1


def test_stop_leaves_no_process(server: EmbeddedValkey, home: Path):
    """Nor a second stop any error."""
    assert len(servers_of(home)) == 1

    server.stop()
    server.stop()

    assert servers_of(home) == []


def test_processes_of_one_home_share_one_server(server: EmbeddedValkey, home: Path):
    """The second one finds the first one's."""
    with another_process(home) as (_process, pid):
        assert pid is None
        assert servers_of(home) == [server.pid]


def test_whoever_stands_by_takes_over(server: EmbeddedValkey, home: Path):
    """When the process that ran the server ends, another one of the home runs it."""
    with another_process(home), stream_of(server) as stream:
        stream.publish(["a"])
        server.stop()
        until(lambda: len(servers_of(home)) == 1 and answers(stream), "the other process's server")

        assert stream.pending().length == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next start ends the leftover")
def test_a_parent_that_is_killed_leaves_no_orphan(valkey_binary: Path, home: Path):
    """kill -9 of the service ends its server too."""
    with another_process(home) as (process, pid):
        assert pid is not None
        process.kill()
        process.wait()

        until(lambda: not psutil.pid_exists(pid), "the orphan's end")


def test_a_leftover_is_ended_by_whoever_starts_next(server: EmbeddedValkey, valkey_binary: Path, home: Path):
    """Where the kernel does not do it: a server without supervisor is replaced, its entries stay."""
    server.stop()
    config = f'port 0\nunixsocket "{home}/valkey/server.sock"\ndir "{home}/valkey"\nappendonly yes\n'
    with subprocess.Popen([valkey_binary, "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as leftover:
        assert leftover.stdin is not None
        leftover.stdin.write(config.encode())
        leftover.stdin.close()
        with stream_of(server) as stream:
            until(lambda: answers(stream), "the leftover")
            stream.publish(["a"])

            server.start()

            assert leftover.wait(10) == 0
            assert stream.pending().length == 1


@pytest.mark.P1
@pytest.mark.parametrize("damage", ["torn", "flipped", "erased"])
def test_a_damaged_log_does_not_keep_the_service_down(server: EmbeddedValkey, home: Path, damage: str):
    """A torn tail is cut, an unreadable log is set aside: the database knows what waits."""
    with stream_of(server) as stream:
        stream.publish([f"id-{number}" for number in range(50)])
        server.stop()
        [log] = (home / "valkey" / "appendonlydir").glob("*.incr.aof")
        content = bytearray(log.read_bytes())
        if damage == "torn":
            content = content[:-7]
        elif damage == "flipped":
            content[len(content) // 2 : len(content) // 2 + 20] = b"\xff" * 20
        else:
            content.clear()
        log.write_bytes(content)

        server.start()

        stream.publish(["new"])
        assert stream.pending().length >= 1


def test_a_machine_without_a_server_names_the_way_out(monkeypatch: pytest.MonkeyPatch, home: Path):
    """EXPUNGE_REDIS_URL, the package, or the PATH."""
    monkeypatch.setattr("service.platform.embedded_server._packaged_binary", lambda: None)
    monkeypatch.setenv("PATH", str(home))

    with pytest.raises(NoServerBinary, match="EXPUNGE_REDIS_URL"):
        EmbeddedValkey(home).start()


def test_a_server_of_the_path_is_the_second_choice(monkeypatch: pytest.MonkeyPatch, home: Path):
    """valkey-server before redis-server."""
    monkeypatch.setattr("service.platform.embedded_server._packaged_binary", lambda: None)
    monkeypatch.setenv("PATH", str(home))
    for name in ("redis-server", "valkey-server"):
        program = home / name
        program.touch(mode=0o755)
        assert find_binary() == program


def test_a_binary_that_is_given_must_be_one(home: Path):
    """The text names the setting."""
    with pytest.raises(NoServerBinary, match="EXPUNGE_VALKEY_BINARY"):
        find_binary(home / "none")


def test_a_binary_that_is_no_server_fails_with_a_reason(home: Path):
    """Within bounded time and tries."""
    fake = home / "fake"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)

    with pytest.raises(Problem, match=r"server\.log"):
        EmbeddedValkey(home, fake).start()
