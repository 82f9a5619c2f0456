"""Where the demonstration runs: a home of its own, and the real service as processes of their own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from service.cli.failures import Refusal
from service.cli.parent_watch import PARENT_PIPE_VARIABLE
from service.interactions.options import AS_THEY_ARE, ReadingOptions

READY_WITHIN_S = 180.0
STOP_WITHIN_S = 60.0
LOG_LINES_SHOWN = 5
# What a shell may set for the demonstration too; everything else of EXPUNGE_* belongs to some other service.
_KEPT = frozenset({"EXPUNGE_DATA_DIR", "EXPUNGE_DEBUG", "EXPUNGE_HOME", "EXPUNGE_VALKEY_BINARY", PARENT_PIPE_VARIABLE})


@dataclass(frozen=True)
class DemoOptions:
    """What was asked for."""

    data: Path | None = None
    how: ReadingOptions = AS_THEY_ARE
    data_dir: Path | None = None
    cache: Path = field(default_factory=lambda: Path("~/.expunge").expanduser())
    home: Path | None = None
    keep: bool = False
    json_file: Path | None = None
    left_aside: tuple[str, ...] = ()


def left_aside() -> tuple[str, ...]:
    """Take settings meant for another service out of the environment; returns their names.

    The demonstration makes and erases data, so it must never reach a database or a server that is in use.
    """
    names = sorted(name for name in os.environ if name.startswith("EXPUNGE_") and name not in _KEPT)
    for name in names:
        del os.environ[name]
    return tuple(names)


@contextmanager
def demo_home(plan: DemoOptions) -> Iterator[Path]:
    """The home of the demonstration: the one named, which must be new, or a temporary one that is gone at the end.

    Raises:
        Refusal: the home that was named is in use.
    """
    if plan.home is None:
        folder = Path(tempfile.mkdtemp(prefix="expunge-demo-"))
    else:
        folder = plan.home.expanduser().absolute()
        if (folder / "expunge.db").exists():
            msg = f"The home {folder} is in use. Name a new folder: the demonstration makes and erases data."
            raise Refusal(msg)
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if plan.home is None and not plan.keep:
            shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that are free now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class RunningService:
    """`expunge serve` on a home, with its output in `<home>/serve.log`.

    Args:
        home: of the service.
        keep: whether it outlives this process.
    """

    def __init__(self, home: Path, *, keep: bool = False) -> None:
        self.home, self.log = home, home / "serve.log"
        self.port, self.metrics_port = free_ports(2)
        self._keep = keep
        self._process: subprocess.Popen[bytes] | None = None
        self._parent_pipe: tuple[int, int] | None = None

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the supervisor; 0 before the start."""
        return 0 if self._process is None else self._process.pid

    def start(self) -> float:
        """Start it and wait until the API serves and the worker has its model; returns how long that took, in seconds.

        Raises:
            Refusal: it ended, or was not ready in time; the end of its log is told.
        """
        started = time.monotonic()
        environment = {**os.environ, "EXPUNGE_METRICS_PORT": str(self.metrics_port)}
        descriptors: tuple[int, ...] = ()
        if not self._keep:
            # Should this process be killed, the service ends with it.
            self._parent_pipe = os.pipe()
            descriptors = (self._parent_pipe[0],)
            environment[PARENT_PIPE_VARIABLE] = str(self._parent_pipe[0])
        command = ["-m", "service.cli", "--home", str(self.home), "serve", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=descriptors,
                start_new_session=True,
            )
        self._await(f"{self.url}/readyz", '"status"', started)
        self._await(f"http://127.0.0.1:{self.metrics_port}/readyz", "base ", started)
        return time.monotonic() - started

    def _await(self, url: str, sign: str, started: float) -> None:
        import httpx

        assert self._process is not None
        with closing(httpx.Client(timeout=5.0)) as client:
            while time.monotonic() - started < READY_WITHIN_S:
                if self._process.poll() is not None:
                    raise Refusal(f"The service ended before it was ready. {self._last_lines()}")
                try:
                    answer = client.get(url)
                    if answer.is_success and sign in answer.text:
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(0.02)
        raise Refusal(f"The service was not ready in {READY_WITHIN_S:g} s. {self._last_lines()}")

    def _last_lines(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return "Its last words: " + " | ".join(line[:200] for line in lines)

    def stop(self) -> bool:
        """End it as an operator would; whether it ended by itself in time."""
        if self._process is None:
            return True
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        finally:
            for end in self._parent_pipe or ():
                os.close(end)
            self._parent_pipe = None
        return True
