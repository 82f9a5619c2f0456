"""The worker as a process: opens what it needs, works until SIGTERM or SIGINT, drains the batch at hand, exits 0."""

import os
import threading

import structlog

from service.platform import faults
from service.platform.logging import configure_logging
from service.settings import Settings, load_settings
from service.worker.monitor import Monitor
from service.worker.opening import opened, told_by_signals
from service.worker.worker import Worker

log = structlog.get_logger()


def run_worker(settings: Settings, stop: threading.Event | None = None) -> int:
    """Work until told to stop; returns the exit status.

    Args:
        settings: of this process.
        stop: ends the work when set; without one, SIGTERM and SIGINT do.

    Raises:
        RedisUnsuitable: the server would lose or evict entries.
        SecretRefused: the key is not the one that the database or the store was made with.
    """
    configure_logging(settings.log_level, settings.log_format, "worker")
    if settings.fault is not None:
        faults.arm(faults.parse_fault(settings.fault, settings.fault_file))
    stop = stop or told_by_signals()
    with opened(settings, stop) as dependencies:
        if dependencies is None:
            return 0
        worker = Worker(dependencies, stop)
        monitor = Monitor(worker, settings.host, settings.metrics_port)
        monitor.start()
        log.info("worker.started", pid=os.getpid())
        try:
            worker.run()
        finally:
            monitor.stop()
        log.info("worker.stopped")
    return 0


def main() -> int:
    """Run a worker with the settings of the environment."""
    return run_worker(load_settings())
