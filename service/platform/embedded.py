"""The embedded server: a real Valkey as a child process, so that one command starts everything.

One server a home. Processes that share a home agree by a lock on a file: whoever holds it runs the server, the others
use it and stand by to take over. On Linux the kernel ends the child when its parent dies; elsewhere a leftover is ended
by whoever starts next.
"""

import atexit
import fcntl
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import BinaryIO

import structlog

from service.platform.embedded_server import Address, find_binary, spawn
from service.platform.redis import RedisUnavailable

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
STANDBY_INTERVAL_S = 0.25
RESTART_WAIT_MAX_S = 5.0
FAILED_STARTS_BEFORE_FRESH = 3
FAILED_STARTS_MAX = 5

log = structlog.get_logger(process="valkey")  # whichever process runs it


class EmbeddedValkey:
    """Supervisor of the server of one home. `start()` makes sure that one answers; `stop()` ends it if it is ours."""

    def __init__(self, home: Path, binary: Path | None = None) -> None:
        """`home` is the folder of the service; the server keeps its files in `<home>/valkey`."""
        self._folder = home / "valkey"
        self._given_binary = binary
        self._address = Address(self._folder)
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the server answers; valid after `start()`."""
        return self._address.url()

    @property
    def pid(self) -> int | None:
        """Process id of the server if this supervisor runs it, else None."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the server, or find the one that another process of this home runs; returns when it answers.

        Raises NoServerBinary, or RedisUnavailable where it does not answer within 10 seconds.
        """
        if self._thread is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        binary = find_binary(self._given_binary)
        self._stopping.clear()
        # The kernel's death signal follows the thread that made the child, so that thread lives as long as the child.
        self._thread = threading.Thread(target=self._supervise, args=(binary,), name="valkey", daemon=True)
        self._thread.start()
        atexit.register(self.stop)
        if not self._ready.wait(START_TIMEOUT_S) or self._failure is not None:
            self.stop()
            raise self._failure or _silent(self._folder)

    def stop(self) -> None:
        """End the server if it is ours, gracefully; its entries stay on the disk."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping.set()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while thread.is_alive():
            self._signal(signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
            thread.join(0.05)
        self._ready.clear()
        atexit.unregister(self.stop)

    def _signal(self, number: int) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def _supervise(self, binary: Path) -> None:
        try:
            while not self._stopping.is_set():
                lock = _take_lock(self._folder / "lock")
                if lock is not None:
                    with lock:
                        self._run(binary)
                    return
                if self._address.answers():
                    self._ready.set()
                self._stopping.wait(STANDBY_INTERVAL_S if self._ready.is_set() else 0.02)
        except BaseException as error:
            self._failure = error
            log.error("valkey.failed", error=type(error).__name__)
        finally:
            self._ready.set()

    def _run(self, binary: Path) -> None:
        self._address.end_leftover(STOP_TIMEOUT_S)
        failed, wait = 0, 0.05
        while not self._stopping.is_set():
            if self._run_once(binary):
                failed, wait = 0, 0.05
            else:
                failed += 1
            if self._stopping.is_set():
                return
            if failed == FAILED_STARTS_BEFORE_FRESH:
                _set_aside(self._folder)
            if failed >= FAILED_STARTS_MAX:
                raise _silent(self._folder)
            log.warning("valkey.restarting", failed_starts=failed)
            self._stopping.wait(wait)
            wait = min(2 * wait, RESTART_WAIT_MAX_S)

    def _run_once(self, binary: Path) -> bool:
        """Run the server until it ends; whether it ever answered."""
        self._process = spawn(binary, self._folder, self._address)
        answered = self._await_answer(self._process)
        if answered:
            self._ready.set()
            log.info("valkey.started", pid=self._process.pid)
        elif self._process.poll() is None and not self._stopping.is_set():
            self._process.kill()
        self._process.wait()
        return answered

    def _await_answer(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline and not self._stopping.is_set():
            if self._address.answers():
                return True
            self._stopping.wait(0.005)
        return False


def _take_lock(path: Path) -> BinaryIO | None:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _set_aside(folder: Path) -> None:
    """Start afresh after a log that cannot be read: nothing is lost, the database knows what waits."""
    damaged = folder / "appendonlydir"
    if damaged.is_dir():
        damaged.rename(folder / f"appendonlydir.damaged-{time.time_ns()}")
        for old in sorted(folder.glob("appendonlydir.damaged-*"))[:-1]:
            _erase(old)
        log.error("valkey.log_set_aside")


def _erase(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def _silent(folder: Path) -> RedisUnavailable:
    return RedisUnavailable(f"The embedded server does not come up; {folder}/server.log says why.")
