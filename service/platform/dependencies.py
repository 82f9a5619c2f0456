"""What endpoints are given: the services of the process, and the principal of the request."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Protocol, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from model_store.store import ModelStore
from service.platform.auth import Principal, Scope, needs
from service.platform.clock import Clock
from service.platform.database import Database
from service.platform.identity import Identity
from service.platform.integrity import Integrity
from service.platform.redis import ErasureStream
from service.settings import Settings


@dataclass(frozen=True)
class LiveStatus:
    """Which version answers, and what is wrong with the one that should, if anything (the code of a problem)."""

    version: int | None
    problem: str | None = None


class LiveModel(Protocol):
    """The holder of the version that answers; recommendations make it, the application starts and stops it."""

    async def start(self) -> None:
        """Load the live version, if there is one; never raises for a bad or missing version."""
        ...

    async def stop(self) -> None:
        """Let go of it."""
        ...

    def status(self) -> LiveStatus:
        """What is loaded."""
        ...


class Relay(Protocol):
    """What moves outbox rows to the stream; erasures make it, the application starts and stops it."""

    async def start(self) -> None:
        """Begin to publish and to sweep, in the background."""
        ...

    async def stop(self) -> None:
        """Finish the round that runs, then end."""
        ...

    def wake(self) -> None:
        """Say that an outbox row was committed; returns at once."""
        ...


@dataclass(frozen=True)
class Services:
    """Everything that one process shares between requests."""

    settings: Settings
    database: Database
    identity: Identity
    store: ModelStore
    stream: ErasureStream | None
    clock: Clock
    live: LiveModel
    relay: Relay
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is told to stop: who waits for something to happen answers with what is true now."""
    integrity: Integrity | None = None
    """What is found against working with the database; None where nobody looks, as in some tests."""


def services_of(connection: HTTPConnection) -> Services:
    """The services of the application that a request came to."""
    return cast(Services, connection.app.state.services)


async def _services(connection: HTTPConnection) -> Services:
    # Not a plain function: those are run in a thread, and a hop there costs more than the rest of a dependency.
    return services_of(connection)


ServicesDep = Annotated[Services, Depends(_services)]
Recommender = Annotated[Principal, needs(Scope.RECOMMEND)]
Reader = Annotated[Principal, needs(Scope.READ)]
Writer = Annotated[Principal, needs(Scope.WRITE)]
Eraser = Annotated[Principal, needs(Scope.ERASE)]
ErasureReader = Annotated[Principal, needs(Scope.ERASE, Scope.OFFICER)]
Officer = Annotated[Principal, needs(Scope.OFFICER)]
Auditor = Annotated[Principal, needs(Scope.AUDIT)]
Admin = Annotated[Principal, needs(Scope.ADMIN)]
