"""One process that starts the others, starts them again when they die, and ends them in order.

It waits for events only: a child that ended, a signal, or the moment at which a child is due to be started again.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from service.cli.failures import REFUSES_TO_START
from service.cli.parent_watch import PARENT_PIPE_VARIABLE

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
DRAIN_S = 20.0

Say = Callable[[str], None]


@dataclass
class BackOff:
    """How long to wait before a child is started again: doubled at each death, from the start after a steady run."""

    pause_s: float = 0.0

    def after(self, ran_s: float) -> float:
        """Seconds to wait, now that a run of `ran_s` seconds has ended."""
        again = 0.0 if ran_s >= STEADY_S else self.pause_s
        self.pause_s = min(max(2 * again, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        return self.pause_s


@dataclass(frozen=True)
class Program:
    """What a child runs: a command of this command line, its environment and the descriptors that it inherits."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: Sequence[int] = ()


@dataclass(frozen=True)
class _Ended:
    child: "_Child"
    status: int
    ran_s: float


@dataclass(frozen=True)
class _Signal:
    number: int


@dataclass(frozen=True)
class _Note:
    text: str


_Event = _Ended | _Signal | _Note


class _Child:
    """One program and the process that runs it now."""

    def __init__(self, program: Program, parent_pipe: int, events: "queue.SimpleQueue[_Event]") -> None:
        self.program, self._parent_pipe, self._events = program, parent_pipe, events
        self.back_off = BackOff()
        self.due: float | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.due = None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", *self.program.arguments],
            env={**os.environ, **self.program.environment, PARENT_PIPE_VARIABLE: str(self._parent_pipe)},
            pass_fds=(*self.program.descriptors, self._parent_pipe),
            # A Ctrl-C at the terminal is for the supervisor, which ends its children in order.
            start_new_session=True,
        )
        threading.Thread(target=self._watch, args=(self.process, time.monotonic()), daemon=True).start()

    def _watch(self, process: subprocess.Popen[bytes], started: float) -> None:
        status = process.wait()
        self._events.put(_Ended(self, status, time.monotonic() - started))

    def end(self, patience_s: float) -> bool:
        """Ask the process to end, and make it end after `patience_s`; whether asking was enough."""
        process = self.process
        if process is None or process.poll() is not None:
            return True
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False
        return True


class Supervisor:
    """Runs programs until a signal comes.

    Args:
        programs: in the order in which they are ended; started in the reverse order.
        say: tells a person what happens.
        drain_s: how long each may take to end.
    """

    def __init__(self, programs: Sequence[Program], say: Say, drain_s: float = DRAIN_S) -> None:
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._say, self._drain_s = say, drain_s
        self._read_end, self._write_end = os.pipe()
        self._children = [_Child(program, self._read_end, self._events) for program in programs]

    @property
    def pids(self) -> dict[str, int]:
        """Process id of each program that has been started."""
        return {child.program.name: child.process.pid for child in self._children if child.process is not None}

    def note(self, text: str) -> None:
        """Have a line said from the supervisor's thread; may be called from any thread."""
        self._events.put(_Note(text))

    def run(self) -> int:
        """Start all programs and look after them; returns the exit status once they are ended.

        0 after SIGTERM or SIGINT; 78 where a program refuses to start, which starting it again would not mend.
        """
        with self._signals():
            for child in reversed(self._children):
                child.start()
            status = self._look_after()
            self._say("Stopping: requests under way are answered, the batch at hand is finished.")
            self._end_all()
        os.close(self._write_end)
        os.close(self._read_end)
        return status

    def _look_after(self) -> int:
        while True:
            match self._next():
                case _Signal():
                    return 0
                case _Note(text):
                    self._say(text)
                case _Ended(child, status) if status == REFUSES_TO_START:
                    self._say(f"The {child.program.name} refuses to start; the line above says why.")
                    return REFUSES_TO_START
                case _Ended(child, status, ran_s):
                    self._schedule(child, status, ran_s)
                case None:
                    pass

    def _next(self) -> _Event | None:
        """The next event; None when a child was due and has been started."""
        due = min((child.due for child in self._children if child.due is not None), default=None)
        wait = None if due is None else max(due - time.monotonic(), 0.0)
        try:
            return self._events.get(timeout=wait)
        except queue.Empty:
            for child in self._children:
                if child.due is not None and child.due <= time.monotonic():
                    child.start()
            return None

    def _schedule(self, child: _Child, status: int, ran_s: float) -> None:
        pause_s = child.back_off.after(ran_s)
        child.due = time.monotonic() + pause_s
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        self._say(f"The {child.program.name} {how}; it is started again in {pause_s:g} s.")

    def _end_all(self) -> None:
        for child in self._children:
            if not child.end(self._drain_s):
                self._say(f"The {child.program.name} did not end in {self._drain_s:g} s and was killed.")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def handle(number: int, _frame: FrameType | None) -> None:
            self._events.put(_Signal(number))

        before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
