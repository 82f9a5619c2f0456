"""Gauges whose truth is in SQL and in the stream, read when they are scraped, in bounded time."""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version as distribution_version
from platform import python_version

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select

from service.platform.clock import Clock
from service.platform.compaction_gauges import compaction_gauges
from service.platform.database import Database
from service.platform.deadlines import SHARES, deadline_figures
from service.platform.invariants import check_invariants
from service.platform.obstacles import CODES, obstacle_to, read_forgetting_state
from service.platform.problem import Problem
from service.platform.redis import ErasureStream
from service.platform.tables import aliases, erasures, outbox, versions

SCRAPE_SECONDS = 3.0

Gauges = list[Metric]


class Scraper:
    """Answers one scrape at a time; a database or a stream that does not answer in time leaves its gauges out."""

    def __init__(self, database: Database, stream: ErasureStream | None, clock: Clock) -> None:
        self._database, self._stream, self._clock = database, stream, clock
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="scrape")
        self._running: dict[str, Future[Gauges]] = {}
        self._lock = threading.Lock()

    def render(self) -> bytes:
        """The exposition in Prometheus' text format; takes 3 seconds at most. Call it from a thread."""
        with self._lock:
            gauges = [_build_info(), *self._gather("sql"), *self._gather("stream")]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Given(gauges))
        return generate_latest(REGISTRY) + generate_latest(registry)

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _gather(self, source: str) -> Gauges:
        # A source that hangs keeps its one thread and its one future; later scrapes wait for the same one.
        future = self._running.get(source)
        if future is None:
            future = self._threads.submit(self._sql_gauges if source == "sql" else self._stream_gauges)
            self._running[source] = future
        up = GaugeMetricFamily("expunge_scrape_up", "Whether a source of gauges answered.", labels=["source"])
        try:
            gauges = future.result(SCRAPE_SECONDS / 2)
        except TookTooLong:
            up.add_metric([source], 0)
            return [up]
        except Exception:
            self._running.pop(source)
            up.add_metric([source], 0)
            return [up]
        self._running.pop(source)
        up.add_metric([source], 1)
        return [up, *gauges]

    def _sql_gauges(self) -> Gauges:
        now = self._clock.now()
        return self._database.query(lambda connection: sql_gauges(connection, now))

    def _stream_gauges(self) -> Gauges:
        return [] if self._stream is None else stream_gauges(self._stream)


@dataclass(frozen=True, eq=False)
class _Given(Collector):
    gauges: Sequence[Metric]

    def collect(self) -> Iterable[Metric]:
        """Hand out what was gathered, one family a name."""
        families: dict[str, Metric] = {}
        for gauge in self.gauges:
            if gauge.name in families:
                families[gauge.name].samples.extend(gauge.samples)
            else:
                families[gauge.name] = gauge
        return families.values()


def sql_gauges(connection: Connection, now: datetime) -> Gauges:
    """What waits in the database, how long, and which version is live; also runs the invariants."""
    check_invariants(connection)
    obstacle = _obstacle(connection, now)
    compaction = compaction_gauges(connection, now)
    return [*_backlog(connection, now), *_outbox(connection, now), obstacle, *compaction, *_model(connection, now)]


def stream_gauges(stream: ErasureStream) -> Gauges:
    """What waits in the stream."""
    try:
        depth, dead = stream.pending(), stream.dead_letters()
    except Problem:
        return [_gauge("stream_up", "Whether Redis answers.", 0)]
    return [
        _gauge("stream_up", "Whether Redis answers.", 1),
        _gauge("stream_entries", "Entries in the stream.", depth.length),
        _gauge("stream_pending_entries", "Entries delivered and not acknowledged.", depth.pending),
        _gauge("stream_oldest_pending_seconds", "Time since the stalest of these was touched.", depth.oldest_seconds),
        _gauge("dead_letters", "Entries set aside because they cannot be worked on.", dead),
    ]


def erasure_counts(connection: Connection, statuses: Sequence[str] | None = None) -> dict[str, int]:
    """How many erasures have each of these statuses (without a list: each that occurs); absent means none."""
    counting = select(erasures.c.status, func.count().label("n")).group_by(erasures.c.status)
    if statuses is not None:
        counting = counting.where(erasures.c.status.in_(statuses))
    return {row.status: row.n for row in connection.execute(counting)}


def _backlog(connection: Connection, now: datetime) -> Gauges:
    counts = erasure_counts(connection, ("accepted",))
    oldest = connection.scalar(
        select(erasures.c.received_at).where(erasures.c.status == "accepted").order_by(erasures.c.seq).limit(1)
    )
    deadlines = deadline_figures(connection, now)
    at_risk = GaugeMetricFamily(
        "expunge_erasures_at_risk",
        "Erasures not erased that have used at least this share of their time to due_at.",
        labels=["used"],
    )
    for share, count in zip(SHARES, deadlines.at_risk, strict=True):
        at_risk.add_metric([str(share)], count)
    return [
        _gauge("backlog", "Erasures accepted and not yet forgotten.", counts.get("accepted", 0)),
        _gauge("erasures_needing_attention", "Erasures that an operator must look at.", _needing_attention(connection)),
        _gauge("erasure_oldest_pending_seconds", "Age of the oldest erasure not yet forgotten.", _age(oldest, now)),
        _gauge("erasure_requests_overdue", "Erasures past due_at and not erased.", deadlines.overdue),
        _gauge("erasure_due_window_used_ratio", "Largest share of its time to due_at used by any.", deadlines.used),
        _gauge("erasures_held", "Erasures under legal hold; none of them is overdue.", deadlines.held),
        at_risk,
    ]


def _obstacle(connection: Connection, now: datetime) -> Metric:
    found = obstacle_to(read_forgetting_state(connection, now))
    gauge = GaugeMetricFamily(
        "expunge_forgetting_obstacle", "1 for what keeps the model from forgetting, if anything.", labels=["code"]
    )
    for code in CODES:
        gauge.add_metric([code], float(found is not None and found.code == code))
    return gauge


def _needing_attention(connection: Connection) -> int:
    # A legal hold is somebody's will: it needs no operator.
    wanted = select(func.count()).where(erasures.c.status == "needs_attention", erasures.c.held_since.is_(None))
    return connection.scalar(wanted) or 0


def _outbox(connection: Connection, now: datetime) -> Gauges:
    unpublished = outbox.c.published_at.is_(None)
    count = connection.scalar(select(func.count()).where(unpublished))
    oldest = connection.scalar(select(outbox.c.created_at).where(unpublished).order_by(outbox.c.seq).limit(1))
    return [
        _gauge("outbox_unpublished", "Outbox rows not yet in the stream.", count or 0),
        _gauge("outbox_oldest_seconds", "Age of the oldest of these.", _age(oldest, now)),
    ]


def _model(connection: Connection, now: datetime) -> Gauges:
    live = connection.execute(
        select(versions.c.version, versions.c.kind, versions.c.manifest, versions.c.created_at)
        .join(aliases, aliases.c.version == versions.c.version)
        .where(aliases.c.name == "live")
    ).first()
    if live is None:
        return []
    info = GaugeMetricFamily(
        "expunge_model_version_info", "The live version.", labels=["version", "algorithm", "checksum"]
    )
    file = (live.manifest.get("files") or {}).get("embeddings.safetensors") or {}
    info.add_metric([str(live.version), live.kind, str(file.get("sha256", ""))[:16]], 1)
    return [info, _gauge("model_age_seconds", "Age of the live version.", _age(live.created_at, now))]


def _age(instant: datetime | None, now: datetime) -> float:
    # Ages of stored instants are wall-clock by nature; a clock that stepped back must not show a negative one.
    return 0.0 if instant is None else max(0.0, (now - instant).total_seconds())


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"expunge_{name}", text, value=value)


@cache
def package_version() -> str:
    """The version of this distribution."""
    return distribution_version("expunge")


def _build_info() -> Metric:
    info = GaugeMetricFamily("expunge_build_info", "This build.", labels=["version", "python"])
    info.add_metric([package_version(), python_version()], 1)
    return info
