"""Worker processes that can be killed, stopped, told to end: real ones, forked from a server that has torch loaded."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

from service.settings import Settings, load_settings
from tests.unit.worker.waiting import eventually

START_S = 60.0

# Loading torch takes seconds: one server process does it once, and each worker is forked from there, then runs what
# `python -m service.worker` runs.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["service.cli.serve", "service.app", "service.worker.process"])


class WorkerProcesses:
    """Workers of one home.

    Args:
        settings: what each of them is given, as environment variables.
        log: file that they write to.
    """

    def __init__(self, settings: Settings, log: Path) -> None:
        self._settings, self._log = settings, log
        self._members: list[BaseProcess] = []

    def start(
        self, fault: str | None = None, fault_file: Path | None = None, *, program: str = "worker"
    ) -> BaseProcess:
        """Start a worker, or a compactor; `fault` is armed in it."""
        environment = {"EXPUNGE_METRICS_PORT": "0", **environment_of(self._settings)}
        if fault is not None:
            environment["EXPUNGE_FAULT"] = fault
        if fault_file is not None:
            environment["EXPUNGE_FAULT_FILE"] = str(fault_file)
        process = _context.Process(target=_work, args=(environment, str(self._log), program))
        process.start()
        self._members.append(process)
        return process

    def __enter__(self) -> "WorkerProcesses":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._members:
            if process.is_alive():
                process.kill()
            process.join()
        if kind is not None and self._log.exists():
            sys.stdout.write(self._log.read_text())


def stopped(process: BaseProcess) -> int | None:
    """Tell a worker to end, wait for it, and return its exit status."""
    process.terminate()
    process.join(30)
    return process.exitcode


def died(process: BaseProcess) -> bool:
    """Wait for a worker to be killed by its fault."""
    process.join(START_S)
    return process.exitcode == -signal.SIGKILL


@contextmanager
def frozen(process: BaseProcess) -> Iterator[None]:
    """Stop a process as a suspended machine does, and wake it at the end."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    eventually(lambda: " T " in f"{_stat(process.pid)} ")
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def environment_of(settings: Settings) -> dict[str, str]:
    """Settings as environment variables, those that differ from the defaults."""
    given: dict[str, Any] = settings.model_dump(exclude_defaults=True, mode="json")
    return {f"EXPUNGE_{name.upper()}": str(value) for name, value in given.items() if name != "secret_key"}


def _work(environment: dict[str, str], log: str, program: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for name in list(os.environ):
        if name.startswith("EXPUNGE_"):
            del os.environ[name]
    os.environ.update(environment)
    from service.worker.process import run_worker

    started = time.monotonic()
    if program == "compactor":
        from tests.factories.compactions import compact_here

        status = compact_here(load_settings())
    else:
        status = run_worker(load_settings())
    os.write(2, f"{program} ends with {status} after {time.monotonic() - started:.1f} s\n".encode())
    sys.exit(status)


def _stat(pid: int | None) -> str:
    return " " + Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
