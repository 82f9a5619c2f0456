"""A small application of the platform's parts alone, over real HTTP."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import httpx
import pytest
import structlog
from fastapi import APIRouter, FastAPI

from model_store import ModelStore
from service.platform.application import new_application
from service.platform.auth import Authenticator
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.platform.dependencies import LiveStatus, Relay, Services
from service.platform.gauges import Scraper
from service.platform.identity import Identity
from service.platform.redis import ErasureStream
from service.settings import Settings
from tests.serving import serving


@dataclass
class FixedLive:
    """A live version that is whatever a test says."""

    given: LiveStatus

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def status(self) -> LiveStatus:
        return self.given


@pytest.fixture
def live() -> FixedLive:
    """Version 7 answers."""
    return FixedLive(LiveStatus(7))


@pytest.fixture
def services(settings: Settings, sqlite: Database, stream: ErasureStream, live: FixedLive) -> Services:
    """Services over a migrated SQLite database and a real stream."""
    return Services(
        settings=settings,
        database=sqlite,
        identity=Identity(b"k" * 32),
        store=ModelStore(settings.store_root),
        stream=stream,
        clock=SystemClock(),
        live=live,
        relay=cast(Relay, None),
    )


class Serve:
    """Serves an application of some routes with some services; closed after the test."""

    def __init__(self, services: Services, stack: ExitStack) -> None:
        self.services = services
        self._stack = stack
        self.app: FastAPI | None = None

    def __call__(self, *routers: APIRouter, **changed: Any) -> httpx.Client:
        """A client of that application; `changed` replaces services."""
        services = replace(self.services, **changed)

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            app.state.services = services
            app.state.authenticator = Authenticator(services.database)
            app.state.scraper = Scraper(services.database, services.stream, services.clock)
            yield
            app.state.scraper.close()

        self.app = new_application(services.settings, lifespan, routers)
        url = self._stack.enter_context(serving(self.app))
        return self._stack.enter_context(httpx.Client(base_url=url, timeout=20))


@pytest.fixture
def serve(services: Services) -> Iterator[Serve]:
    """Call it with routers to get a client."""
    with ExitStack() as stack:
        yield Serve(services, stack)


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Lets a test configure logging: afterwards it is as before."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()
