"""The holder of the version that answers: follows what SQL says is live, never leaves a good version for a bad one."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import structlog
from threadpoolctl import ThreadpoolController

from model_store import ModelStore, StoreError
from service.models import service as models
from service.platform import metrics
from service.platform.clock import Clock, SystemClock
from service.platform.database import Database
from service.platform.dependencies import LiveStatus
from service.platform.faults import fault_point
from service.platform.logging import error_facts
from service.platform.problem import ModelUnavailable
from service.recommendations.micro_batching import MicroBatcher
from service.recommendations.model import LoadedModel, UnusableVersion, load_model
from service.recommendations.popularity import ItemPopularity

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
WATCH_SECONDS = 1.0

Loader = Callable[[int], LoadedModel]

log = structlog.get_logger()


class LiveRanker:
    """Holds one loaded version and swaps it whole.

    A request that reads another live version than the loaded one waits for that version: one load serves all who wait.
    A version that is refused leaves the old one answering, is told by /readyz and the metrics, and is tried again after
    a growing pause, or at once when SQL names another one. Where it is damaged the audit log says so, once, and the
    worker, which reads that, makes it again. A process that has just started has no old one: it answers from the newest
    other version that is whole and has forgotten all that is forgotten, where there is one.
    """

    def __init__(
        self, database: Database, store: ModelStore, clock: Clock | None = None, *, load: Loader | None = None
    ) -> None:
        """`load` turns a number into a loaded version; tests give their own.

        `micro_batcher` gathers the questions that this version answers in one turn of the event loop.
        """
        self._database, self._clock = database, clock or SystemClock()
        self._load = load or (lambda version: load_model(store, database, version))
        self._loaded: LoadedModel | None = None
        self._flight: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._refused: int | None = None
        self._problem: str | None = None
        self._pause_s = BACKOFF_FIRST_S
        self._retry_at = 0.0
        self.micro_batcher: MicroBatcher[Any, Any] = MicroBatcher()
        self.popularity = ItemPopularity(database, store)

    async def start(self) -> None:
        """Load the live version, if there is one, and keep following it; never raises for a bad or missing one."""
        one_blas_thread()
        await self._catch_up()
        self._watch = asyncio.create_task(self._keep_watching(), name="live-version")

    async def stop(self) -> None:
        """Let go of the version."""
        for task in (self._watch, self._flight):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._watch = self._flight = self._loaded = None

    def status(self) -> LiveStatus:
        """Which version answers, and the code of the problem with the one that should."""
        return LiveStatus(self._loaded.version if self._loaded else None, self._problem)

    async def follow(self, version: int | None) -> LoadedModel:
        """Return the version to answer with, given the one that SQL was just read to name as live.

        Raises:
            ModelUnavailable: no version could be loaded yet.
        """
        loaded = self._loaded
        if loaded is not None and loaded.version == version:
            return loaded
        await self._catch_up(version)
        if self._loaded is None:
            raise ModelUnavailable(retry_after_s=1)
        return self._loaded

    async def _catch_up(self, version: int | None = None) -> None:
        if version is not None and version == self._refused and self._clock.monotonic() < self._retry_at:
            return
        # A load under way may have asked SQL before the caller did; the one after it has not.
        for _ in range(2):
            joined = self._flight is not None and not self._flight.done()
            if not joined or self._flight is None:
                self._flight = asyncio.create_task(self._follow_truth(), name="load-version")
            await asyncio.shield(self._flight)  # a caller that goes away does not take the others' load with it
            if not joined or (self._loaded is not None and self._loaded.version == version):
                return

    async def _follow_truth(self) -> None:
        """Load the version that SQL names now: what the caller read may be behind, and loads must not go backwards."""
        version: int | None = None
        try:
            version = await self._database.run_read(models.live)
            if version is None or (self._loaded is not None and self._loaded.version == version):
                self._refused = None
                self._problem = ModelUnavailable.code if self._loaded is None else None
                return
            loaded = await asyncio.to_thread(self._load, version)
            fault_point("api.during_load")
        except Exception as error:  # whatever is wrong with a version, the one before goes on answering
            first = version != self._refused
            self._refuse(version, error)
            if version is not None and isinstance(error, StoreError | UnusableVersion):
                await self._make_do_without(version, report=first)
            return
        log.info("version.loaded", version=version, previous=self._loaded and self._loaded.version)
        self._loaded, self._refused, self._problem, self._pause_s = loaded, None, None, BACKOFF_FIRST_S

    async def _make_do_without(self, damaged: int, *, report: bool) -> None:
        """Say that the live version is damaged, and answer from another one where none is loaded."""
        try:
            if report:
                at = self._clock.now()
                await self._database.run_write(lambda connection: models.report_damage(connection, damaged, at))
            if self._loaded is not None:
                return
            for version in await self._database.run_read(models.substitutes):
                with contextlib.suppress(StoreError, UnusableVersion):
                    self._loaded = await asyncio.to_thread(self._load, version)
                    log.warning("version.substituted", version=version, live=damaged)
                    return
        except Exception as error:  # without a database there is nothing to report to and nothing to answer
            log.warning("version.not_substituted", live=damaged, **error_facts(error))

    def _refuse(self, version: int | None, error: Exception) -> None:
        if version != self._refused:
            self._pause_s = BACKOFF_FIRST_S
        self._refused, self._retry_at = version, self._clock.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, BACKOFF_MAX_S)
        self._problem = "version_damaged" if isinstance(error, StoreError | UnusableVersion) else "version_unreadable"
        metrics.model_load_failures_total.labels(type(error).__name__).inc()
        log.error(
            "version.refused", version=version, retry_s=self._retry_at - self._clock.monotonic(), **error_facts(error)
        )

    async def _keep_watching(self) -> None:
        # Without traffic nobody would notice: a moved alias leaves memory, a repaired version comes back.
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            with contextlib.suppress(Exception):
                live = await self._database.run_read(models.live)
                if live != self._refused or self._clock.monotonic() >= self._retry_at:
                    await self._catch_up()


def one_blas_thread() -> None:
    """Keep NumPy's products on the calling thread: waking helpers costs more than one user's scores."""
    ThreadpoolController().select(internal_api="openblas").limit(limits=1)
