"""A home with real processes around it: `expunge api` and `expunge worker`, forked from one that has them loaded.

Loading torch takes seconds. One server process does it once; each process of the service is forked from there, runs the
same command as an operator does, and can be killed, stopped, or told to die at a fault point.
"""

import http.client
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import redis

from service.platform.embedded_server import find_binary
from service.settings import Settings, load_settings
from tests.factories.workers import OPEN_GATE, QUICK, Home, opened
from tests.faults.harness.clock import SteppedClock, follow
from tests.faults.harness.disk import Disk, can_mount, small_disk
from tests.faults.harness.proxy import Proxy
from tests.faults.harness.world import Templates, World
from tests.faults.worker_processes import environment_of

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["service.cli.serve", "service.app", "service.worker.process"])

ROLES = ("api-0", "api-1", "worker-0", "worker-1")
COMPACTOR = "compactor-0"
SHORT: dict[str, Any] = {
    **QUICK,
    **OPEN_GATE,
    "lease_seconds": 1.0,
    "redis_timeout_s": 0.4,
    "checkpoint_seconds": 1.0,
    # Kills are no poison: what is killed here a hundred times in the same batch must still be forgotten.
    "max_attempts": 100,
}
DISK_MIB = 192
START_S = 60.0
RESTART_PAUSE_S = 0.2


class NotInTime(Exception):
    """Something did not come about in time."""


def wait_for(holds: Any, limit_s: float, what: str) -> None:
    """Return as soon as a condition holds; raises NotInTime where it does not within the limit."""
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            raise NotInTime(f"{what}: not within {limit_s:g} s")
        time.sleep(0.02)


class Valkey:
    """A stream server with its log on disk; killed, it comes back with what the log holds, or empty."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers; where its log is beyond reading, with an empty one, as the product's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            words = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
            words += ["--maxmemory-policy", "noeviction", "--dir", str(self.folder)]
            self._process = subprocess.Popen([find_binary(), *words], stdout=subprocess.DEVNULL)
            with suppress(NotInTime):
                wait_for(lambda: self._answers() or self._ended(), 10, "Valkey")
            if self._answers():
                return
            self.kill()
            shutil.rmtree(self.log, ignore_errors=True)
        raise NotInTime("Valkey does not start.")

    @property
    def log(self) -> Path:
        """The folder of its log on disk."""
        return self.folder / "appendonlydir"

    def kill(self, *, empty: bool = False) -> None:
        """Kill it as a crash does; `empty`: what it had on disk is gone, too."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if empty:
            shutil.rmtree(self.log, ignore_errors=True)

    @contextmanager
    def commands(self) -> Iterator[redis.Redis]:
        """A plain client of it."""
        client = redis.Redis(port=self.port, socket_timeout=2)
        try:
            yield client
        finally:
            client.close()

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _answers(self) -> bool:
        with suppress(redis.RedisError), self.commands() as client:
            return bool(client.ping())
        return False


class Stage:
    """One home with everything around it; `running` keeps its processes alive until the end."""

    def __init__(self, database: str, home: Path, settings: Settings, token: str, valkey: Valkey, proxy: Proxy) -> None:
        self.database, self.home, self.settings, self.token = database, home, settings, token
        self.valkey, self.proxy = valkey, proxy
        self.clock = SteppedClock(home / "clock")
        self.disk: Disk | None = None
        self.templates: Templates | None = None
        self.ports = {role: free_port() for role in ROLES if role.startswith("api")}
        self.processes: dict[str, BaseProcess] = {}
        self.started = 0
        self._doomed: dict[str, str] = {}
        self._lock = threading.RLock()

    # -- processes

    def start(self, role: str, fault: str = "", fault_file: Path | None = None) -> BaseProcess:
        """Start a process of the service in a role; `fault` is armed in it."""
        environment = {**environment_of(self.settings), "EXPUNGE_METRICS_PORT": "0", "OMP_NUM_THREADS": "1"}
        if fault:
            environment["EXPUNGE_FAULT"] = fault
        if fault_file is not None:
            environment["EXPUNGE_FAULT_FILE"] = str(fault_file)
        kind = role.partition("-")[0]
        words = [kind, "--port", str(self.ports[role])] if kind == "api" else [kind]
        process = _context.Process(target=_play, args=(environment, str(self.log), words, str(self.clock.path)))
        with self._lock:
            process.start()
            self.processes[role], self.started = process, self.started + 1
        return process

    @property
    def log(self) -> Path:
        """Where all processes write to; beside the home, so that a full disk does not silence them."""
        return self.home.parent / f"{self.home.name}.log"

    def doom(self, role: str, fault: str) -> None:
        """Have the next process of a role start with a fault armed, at once."""
        with self._lock:
            self._doomed[role] = fault
            self.kill(role)

    def kill(self, role: str) -> None:
        """kill -9 of a role's process."""
        process = self.processes.get(role)
        if process is not None and process.is_alive():
            process.kill()
            process.join(10)

    def signal(self, role: str, number: int) -> None:
        """Send a signal to a role's process."""
        process = self.processes.get(role)
        if process is not None and process.is_alive() and process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)

    @contextmanager
    def running(self, roles: tuple[str, ...] = ROLES) -> Iterator[None]:
        """Keep a process in each role, as a supervisor does, until the end; those that are left are killed."""
        over = threading.Event()

        def look_after() -> None:
            while not over.wait(0.05):
                for role in roles:
                    process = self.processes.get(role)
                    if process is None or not process.is_alive():
                        if over.wait(RESTART_PAUSE_S):
                            return
                        with self._lock:
                            self.start(role, self._doomed.pop(role, ""))

        keeper = threading.Thread(target=look_after, name="keeper")
        keeper.start()
        try:
            yield
        finally:
            over.set()
            keeper.join()
            self.kill_all()

    def kill_all(self) -> None:
        """Kill every process of the service."""
        for process in self.processes.values():
            if process.is_alive():
                process.kill()
            process.join(10)

    def ask(self, role: str, path: str, timeout_s: float = 2.0) -> int:
        """The status with which a role's API answers a GET; 0 where it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[role], timeout=timeout_s)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def wait_until_ready(self) -> None:
        """Wait until both APIs say that they are."""
        for role in self.ports:
            wait_for(lambda role=role: self.ask(role, "/readyz") == 200, START_S, f"{role} ready")

    @contextmanager
    def place(self) -> Iterator[Home]:
        """The home, looked at from outside."""
        with opened(self.settings) as place:
            yield place


@contextmanager
def staged(
    templates: Templates, database: str, world: World, *, own_disk: bool = False, **changes: Any
) -> Iterator[Stage]:
    """A stage with its stream server running and no process of the service yet; nothing of it is left at the end.

    Args:
        templates: homes to copy from.
        database: sqlite or postgresql.
        world: what the home has learnt.
        own_disk: whether the home is on a small disk of its own, where that can be.
        changes: settings other than `SHORT`.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="expunge-f-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        home = folder / "h"
        disk = stack.enter_context(small_disk(home, DISK_MIB)) if own_disk and can_mount() else None
        name = f"f{os.urandom(6).hex()}"
        url, token = templates.copy(world, database, home, name)
        if url is not None and templates.server is not None:
            stack.callback(templates.server.drop, name)
        valkey = Valkey(home / "valkey", free_port())
        valkey.start()
        stack.callback(valkey.kill)
        proxy = stack.enter_context(Proxy(valkey.port))
        given = {**SHORT, "database_url": url, "redis_url": f"redis://127.0.0.1:{proxy.port}/0", "torch_threads": 1}
        stage = Stage(database, home, load_settings(home=home, **{**given, **changes}), token, valkey, proxy)
        stage.disk, stage.templates = disk, templates
        stack.callback(stage.kill_all)
        yield stage


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _play(environment: dict[str, str], log: str, words: list[str], clock: str) -> None:
    """What a process does: become the command, with its own environment, log and clock."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for name in list(os.environ):
        if name.startswith("EXPUNGE_"):
            del os.environ[name]
    os.environ.update(environment)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    follow(Path(clock))
    sys.argv = ["expunge", *words]
    from service.cli.program import main

    sys.exit(main())
