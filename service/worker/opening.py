"""Opening what the processes behind the API are made of; imports nothing heavy."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType

import structlog

import migrations
from model_store import ModelStore
from service.erasures.ledger_keeping import LedgerKeeper
from service.erasures.replay import LedgerReplay
from service.platform.clock import Clock, SystemClock
from service.platform.database import Database
from service.platform.embedded import EmbeddedValkey
from service.platform.identity import Identity
from service.platform.integrity import Integrity
from service.platform.problem import Problem
from service.platform.redis import ErasureStream, RedisUnavailable
from service.platform.secret_check import SecretCheck
from service.settings import Settings

SCHEMA_LOOK_S = 1.0
# One name for every worker: only the holder of the lease reads, and names of dead processes would pile up.
CONSUMER = "unlearner"

log = structlog.get_logger()


@dataclass(frozen=True)
class WorkerDependencies:
    """What a worker, or the compactor, is made of; the caller opens and closes them."""

    settings: Settings
    database: Database
    store: ModelStore
    stream: ErasureStream | None
    clock: Clock
    integrity: Integrity | None = None
    identity: Identity | None = None


@contextmanager
def opened(settings: Settings, stop: threading.Event) -> Iterator[WorkerDependencies | None]:
    """The parts of a worker or a compactor, once the database is there; closed in the reverse order at the end.

    None where it is told to stop before. Raises SecretRefused where the key is another one than theirs.
    """
    with ExitStack() as stack:
        database = Database(settings.sql_url, pool_size=settings.pool_size)
        stack.callback(database.close)
        stream = _stream(settings, stack)
        if not _schema_is_there(database, stop):
            yield None
            return
        secret = SecretCheck(settings, database)
        identity = secret.unlock_or_defer()
        store = ModelStore(settings.store_root, key=identity.derive("manifest"))
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
        yield WorkerDependencies(settings, database, store, stream, clock, integrity, identity)


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
    """Wait for somebody to migrate the database; False where the process is told to stop before."""
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
            log.warning("process.waits_for_schema", detail=detail)
            told = True
        stop.wait(SCHEMA_LOOK_S)
    return False


def told_by_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def tell(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    return stop
