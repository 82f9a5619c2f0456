"""The compactor as a process: works until SIGTERM or SIGINT, leaves what is under way to the next one, exits 0."""

import os
import threading

import structlog

from service.compactor.compactor import Compactor
from service.compactor.jobs import Trainer
from service.compactor.training_process import TrainingProcess
from service.platform import faults
from service.platform.logging import configure_logging
from service.settings import Settings, load_settings
from service.worker.opening import opened, told_by_signals

log = structlog.get_logger()


def run_compactor(settings: Settings, stop: threading.Event | None = None, trainer: Trainer | None = None) -> int:
    """Work until told to stop; returns the exit status.

    Args:
        settings: of this process.
        stop: ends the work when set; without one, SIGTERM and SIGINT do.
        trainer: does the trainings; without one, a child process.

    Raises:
        RedisUnsuitable: the server would lose or evict entries.
        SecretRefused: the key is not the one that the database or the store was made with.
    """
    configure_logging(settings.log_level, settings.log_format, "compactor")
    if settings.fault is not None:
        faults.arm(faults.parse_fault(settings.fault, settings.fault_file))
    os.nice(settings.compaction_nice)
    stop = stop or told_by_signals()
    with opened(settings, stop) as dependencies:
        if dependencies is None:
            return 0
        log.info("compactor.started", pid=os.getpid())
        Compactor(dependencies, stop, trainer or TrainingProcess(settings)).run()
        log.info("compactor.stopped")
    return 0


def main() -> int:
    """Run a compactor with the settings of the environment."""
    return run_compactor(load_settings())
