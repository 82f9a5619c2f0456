"""Real processes of the service, started on a home and ended whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.cells import ROOT
from benchmarks.load import Address
from service.cli.demo.environment import free_ports
from service.cli.parent_watch import PARENT_PIPE_VARIABLE

READY_WITHIN_S = 120.0
STOP_WITHIN_S = 30.0


class NotServing(Exception):
    """A process ended, or was not ready in time."""


@dataclass(frozen=True)
class Service:
    """A service that runs: where its API answers, and the processes that it consists of."""

    port: int
    process: psutil.Process

    @property
    def api(self) -> psutil.Process:
        """The process of the API."""
        return self._running("api") or self.process

    @property
    def worker(self) -> psutil.Process:
        """The process of the worker."""
        worker = self._running("worker")
        if worker is None:
            msg = "No worker runs."
            raise NotServing(msg)
        return worker

    @property
    def address(self) -> Address:
        """Where to send load."""
        return Address(self.port, self.api.pid)

    def _running(self, command: str) -> psutil.Process | None:
        children = self.process.children(recursive=True)
        return next((child for child in children if command in child.cmdline()), None)


@contextmanager
def all_in_one(home: Path) -> Iterator[Service]:
    """`expunge serve` on a home: API, worker and embedded stream server, with the settings that they come with."""
    port, metrics_port = free_ports(2)
    command = ["service.cli", "--home", str(home), "serve", "--port", str(port)]
    ready = {
        f"http://127.0.0.1:{port}/readyz": '"status"',
        f"http://127.0.0.1:{metrics_port}/readyz": "base ",
    }
    with _running(command, home, metrics_port) as process:
        _await(process, ready, home)
        yield Service(port, psutil.Process(process.pid))


@contextmanager
def api_alone(home: Path) -> Iterator[Service]:
    """`expunge api` on a home, with the reference endpoints of `benchmarks.application` beside its own."""
    port, metrics_port = free_ports(2)
    command = ["benchmarks.application", "--home", str(home), "api", "--port", str(port)]
    with _running(command, home, metrics_port) as process:
        _await(process, {f"http://127.0.0.1:{port}/readyz": '"status"'}, home)
        yield Service(port, psutil.Process(process.pid))


@contextmanager
def _running(command: Sequence[str], home: Path, metrics_port: int) -> Iterator[subprocess.Popen[bytes]]:
    # Settings of the shell belong to some other service; should this process be killed, the service ends with it.
    read_end, write_end = os.pipe()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EXPUNGE_")}
    environment |= {"EXPUNGE_METRICS_PORT": str(metrics_port), PARENT_PIPE_VARIABLE: str(read_end)}
    with (home / "service.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(read_end,),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)
        os.close(read_end)
        os.close(write_end)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        print(f"  process {process.pid} did not end in {STOP_WITHIN_S:g} s and is killed", flush=True)
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def _await(process: subprocess.Popen[bytes], signs: dict[str, str], home: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    with closing(httpx.Client(timeout=5.0, trust_env=False)) as client:
        for url, sign in signs.items():
            while not _answers(client, url, sign):
                if process.poll() is not None or time.monotonic() > deadline:
                    words = (home / "service.log").read_text(errors="replace").splitlines()[-5:]
                    raise NotServing("The service does not come up. Its last words: " + " | ".join(words))
                time.sleep(0.05)


def _answers(client: httpx.Client, url: str, sign: str) -> bool:
    try:
        answer = client.get(url)
    except httpx.HTTPError:
        return False
    return answer.is_success and sign in answer.text
