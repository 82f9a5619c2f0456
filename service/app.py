"""The API process: every domain's routes over one set of services."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from fastapi import FastAPI

from model_store import ModelStore
from service.audit import endpoints as audit
from service.audit.checkpoints import CheckpointPublisher
from service.audit.keys import load_signing_key
from service.audit.timestamps import Timestamps
from service.audit.witnesses import Witness, Witnesses
from service.compaction import endpoints as compaction
from service.consents import endpoints as consents
from service.data_map import endpoints as data_map
from service.erasures import endpoints as erasures
from service.erasures.ledger_keeping import LedgerKeeper
from service.erasures.relay import OutboxRelay
from service.erasures.replay import LedgerReplay
from service.interactions import endpoints as interactions
from service.models import endpoints as models
from service.platform import faults
from service.platform.application import new_application
from service.platform.auth import Authenticator
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.platform.dependencies import Services
from service.platform.embedded import EmbeddedValkey
from service.platform.gauges import Scraper
from service.platform.integrity import Integrity
from service.platform.key_limits import KeyLimits
from service.platform.logging import configure_logging
from service.platform.redis import ErasureStream, RedisUnavailable, RedisUnsuitable
from service.platform.secret_check import SecretCheck
from service.receipts import endpoints as receipts
from service.recommendations import endpoints as recommendations
from service.recommendations.live import LiveRanker
from service.residue import endpoints as residue
from service.settings import Settings, SettingsError, load_settings

# The busiest first.
ROUTERS = (
    recommendations.router,
    erasures.router,
    interactions.router,
    consents.router,
    models.router,
    compaction.router,
    audit.router,
    receipts.router,
    residue.router,
    data_map.router,
)

log = structlog.get_logger()


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application with these settings, by default those of the environment.

    Starts even without a database schema, a model or Redis, and says so at /readyz. Refuses to start with a Redis that
    would lose entries (RedisUnsuitable), without one to embed (NoServerBinary), or with a secret key that is not the
    database's or the model store's (SecretRefused).
    """
    settings = settings or load_settings()
    configure_logging(settings.log_level, settings.log_format, "api")
    if settings.fault is not None:
        faults.arm(faults.parse_fault(settings.fault, settings.fault_file))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running_services(settings) as services:
            app.state.services = services
            limits = _limits(settings)
            app.state.authenticator = Authenticator(services.database, clock=services.clock, limits=limits)
            app.state.scraper = Scraper(services.database, services.stream, services.clock)
            app.state.publisher = _publisher(services)
            await app.state.publisher.start()
            log.info("api.started", live_version=services.live.status().version)
            yield
            await app.state.publisher.stop()
            await app.state.authenticator.stop()
            if limits is not None:
                await limits.stop()
            app.state.scraper.close()
        log.info("api.stopped")

    return new_application(settings, lifespan, ROUTERS)


def stop_waiting(app: FastAPI) -> None:
    """Have every request that waits for something to happen answered with what is true now; for the server's end."""
    services: Services = app.state.services
    services.stopping.set()


@asynccontextmanager
async def running_services(settings: Settings) -> AsyncIterator[Services]:
    """The services of an API process, started; stopped in the reverse order at the end."""
    async with AsyncExitStack() as stack:
        database = Database(settings.sql_url, pool_size=settings.pool_size)
        stack.callback(database.close)
        stream = await _stream(settings, stack)
        secret, clock = SecretCheck(settings, database), SystemClock()
        identity = await asyncio.to_thread(secret.unlock_or_defer)
        store = ModelStore(settings.store_root, key=identity.derive("manifest"))
        ledger = LedgerKeeper(database, store, verify_every_s=settings.integrity_seconds)
        integrity = Integrity(
            database,
            store,
            secret,
            pages_every_s=settings.integrity_seconds,
            ledger=ledger,
            replay=LedgerReplay(database, store, clock),
        )
        await asyncio.to_thread(integrity.start)
        stack.callback(integrity.stop)
        ledger.start()
        stack.callback(ledger.stop)
        live = LiveRanker(database, store)
        relay = OutboxRelay(database, stream, clock=clock, interval_s=settings.sweep_seconds)
        services = Services(settings, database, identity, store, stream, clock, live, relay, integrity=integrity)
        for component in (live, relay):
            await component.start()
            stack.push_async_callback(component.stop)
        yield services


def _limits(settings: Settings) -> KeyLimits | None:
    if not settings.limits_keys:
        return None
    # A server embedded in the home serves this process alone: memory counts the same.
    return KeyLimits(
        requests_per_minute=settings.requests_per_minute,
        targets_per_day=settings.erasure_targets_per_day,
        redis_url=settings.redis_url,
    )


def _publisher(services: Services) -> CheckpointPublisher:
    settings = services.settings
    try:
        witnesses = Witnesses([Witness.parse(each) for each in settings.witnesses])
    except ValueError as error:
        msg = f"EXPUNGE_WITNESSES is refused: {error}."
        raise SettingsError(msg) from None
    key = load_signing_key(settings)
    interval_s = settings.checkpoint_seconds
    timestamps = Timestamps.configured(settings, services.clock)
    return CheckpointPublisher(services.database, key, services.clock, witnesses, timestamps, interval_s=interval_s)


async def _stream(settings: Settings, stack: AsyncExitStack) -> ErasureStream:
    url = settings.redis_url
    if url is None:
        server = EmbeddedValkey(settings.home, settings.valkey_binary)
        await asyncio.to_thread(server.start)
        stack.callback(server.stop)
        url = server.url
    stream = ErasureStream(
        url,
        stream=settings.stream,
        group=settings.group,
        consumer=f"api-{socket.gethostname()}-{os.getpid()}",
        timeout_s=settings.redis_timeout_s,
    )
    stack.callback(stream.close)
    await asyncio.to_thread(_check, stream)
    return stream


def _check(stream: ErasureStream) -> None:
    try:
        info = stream.check()
    except RedisUnsuitable as error:
        log.error("redis.unsuitable", detail=error.detail)
        raise
    except RedisUnavailable as error:
        # Accepting and reading go on without it; the outbox waits.
        log.warning("redis.unavailable", detail=error.detail)
    else:
        log.info("redis.found", server=info.name, version=info.version)
