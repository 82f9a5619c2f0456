"""Trainings in child processes: torch and its memory go with them, and what kills one does not kill the compactor."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import structlog
from pydantic import SecretStr

from service.compactor.jobs import (
    AttemptRefused,
    HopelessTraining,
    Report,
    TrainingDied,
    TrainingJob,
    TrainingTrouble,
)
from service.settings import Settings

LOOK_S = 0.5

log = structlog.get_logger()


class TrainingProcess:
    """Does jobs in a child, `python -m service.compactor.child`, which ends with this process, or when it is closed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._child: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def run(self, job: TrainingJob, report: Report, check: Callable[[], None]) -> None:
        """Do a job to its end; see `Trainer.run`."""
        child = self._child or self._start()
        try:
            self._converse(child, job, report, check)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the child, if there is one, and get its memory back."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _start(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "service.compactor.child"]
        # A session of its own: a Ctrl-C in the terminal is the compactor's to hear, which ends it.
        child = self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(self._settings),
            text=True,
            start_new_session=True,
        )
        self._lines = queue.SimpleQueue()
        threading.Thread(target=_read, args=(child, self._lines), name="training", daemon=True).start()
        log.info("training.started", pid=child.pid)
        return child

    def _converse(
        self, child: "subprocess.Popen[str]", job: TrainingJob, report: Report, check: Callable[[], None]
    ) -> None:
        assert child.stdin is not None
        try:
            child.stdin.write(job.line())
            child.stdin.flush()
        except OSError as error:
            raise TrainingDied from error
        while True:
            check()
            try:
                line = self._lines.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if line is None:
                log.error("training.died", step=job.kind, status=child.wait())
                raise TrainingDied
            if _heard(json.loads(line), report):
                return


def _heard(message: dict[str, Any], report: Report) -> bool:
    """Whether the job is done; raises what went wrong with it."""
    match message:
        case {"share": share, "note": note}:
            report(float(share), str(note))
        case {"refused": facts}:
            raise AttemptRefused(facts)
        case {"hopeless": code}:
            raise HopelessTraining(code)
        case {"trouble": code}:
            raise TrainingTrouble(code)
        case {"done": _}:
            return True
    return False


def _read(child: "subprocess.Popen[str]", lines: "queue.SimpleQueue[str | None]") -> None:
    assert child.stdout is not None
    try:
        for line in child.stdout:
            if line.startswith("{"):
                lines.put(line)
    except (OSError, ValueError):
        pass
    lines.put(None)


def _environment(settings: Settings) -> dict[str, str]:
    """The environment, with what was given otherwise: settings from options."""
    names = {f"EXPUNGE_{name.upper()}": getattr(settings, name) for name in settings.model_fields_set}
    given = {name: _text(value) for name, value in names.items() if value is not None}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EXPUNGE_FAULT")}
    threads = str(settings.compaction_threads or (os.cpu_count() or 1))
    return {**kept, **given, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "EXPUNGE_TORCH_THREADS": threads}


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
