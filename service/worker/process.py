"""The worker as a process: opens what it needs, works until SIGTERM or SIGINT, drains the batch at hand, exits 0."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import structlog

import migrations
from model_store import ModelStore
from service.erasures.ledger_keeping import LedgerKeeper
from service.erasures.replay import LedgerReplay
from service.platform import faults
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.platform.embedded import EmbeddedValkey
from service.platform.integrity import Integrity
from service.platform.logging import configure_logging
from service.platform.problem import Problem
from service.platform.redis import ErasureStream, RedisUnavailable
from service.platform.secret_check import SecretCheck
from service.settings import Settings, load_settings
from service.worker.monitor import Monitor
from service.worker.worker import Worker, WorkerDependencies

SCHEMA_LOOK_S = 1.0
# One name for every worker: only the holder of the lease reads, and names of dead processes would pile up.
CONSUMER = "unlearner"

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
    stop = stop or _told_by_signals()
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


@contextmanager
def opened(settings: Settings, stop: threading.Event) -> Iterator[WorkerDependencies | None]:
    """The parts of a worker with these settings, once the database is there; closed in the reverse order at the end.

    None where the worker is told to stop before. Raises SecretRefused where the key is another one than theirs.
    """
    with ExitStack() as stack:
        database = Database(settings.sql_url, pool_size=settings.pool_size)
        stack.callback(database.close)
        stream = _stream(settings, stack)
        if not _schema_is_there(database, stop):
            yield None
            return
        secret = SecretCheck(settings, database)
        store = ModelStore(settings.store_root, key=secret.unlock_or_defer().derive("manifest"))
        clock = SystemClock()
        ledger = LedgerKeeper(database, store, verify_every_s=settings.integrity_seconds)
        integrity = Integrity(
            database,
            store,
            secret,
            pages_every_s=settings.integrity_seconds,
            ledger=ledger,
            replay=LedgerReplay(database, store, clock),
        )
        integrity.start()
        stack.callback(integrity.stop)
        ledger.start()
        stack.callback(ledger.stop)
        yield WorkerDependencies(settings, database, store, stream, clock, integrity)


def main() -> int:
    """Run a worker with the settings of the environment."""
    return run_worker(load_settings())


def _stream(settings: Settings, stack: ExitStack) -> ErasureStream:
    url = settings.redis_url
    if url is None:
        server = EmbeddedValkey(settings.home, settings.valkey_binary)
        server.start()
        stack.callback(server.stop)
        url = server.url
    stream = ErasureStream(
        url, stream=settings.stream, group=settings.group, consumer=CONSUMER, timeout_s=settings.redis_timeout_s
    )
    stack.callback(stream.close)
    try:
        stream.check()
    except RedisUnavailable as problem:
        log.warning("redis.unavailable", detail=problem.detail)
    return stream


def _schema_is_there(database: Database, stop: threading.Event) -> bool:
    """Wait for somebody to migrate the database; False where the worker is told to stop before."""
    told = False
    while not stop.is_set():
        try:
            revision = database.query(migrations.revision_of)
            if revision is not None and revision >= migrations.head():
                return True
            detail = "run `expunge db upgrade`"
        except Problem as problem:
            detail = problem.code
        if not told:
            log.warning("worker.waits_for_schema", detail=detail)
            told = True
        stop.wait(SCHEMA_LOOK_S)
    return False


def _told_by_signals() -> threading.Event:
    stop = threading.Event()

    def tell(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    return stop
