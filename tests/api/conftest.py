"""A whole API over real HTTP, with an admin's key in hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from service.app import create_app
from service.platform.auth import Scope, create_key
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.settings import Settings
from tests.serving import serving


@dataclass(frozen=True)
class Api:
    """A running API: `client` carries the admin's key, `database` is the one that the API uses."""

    url: str
    client: httpx.Client
    database: Database
    settings: Settings

    def key(self, *scopes: Scope, label: str = "") -> dict[str, str]:
        """Headers with a new key of these scopes, of one owner with those of the same label."""
        made = self.database.transact(lambda write: create_key(write, label, frozenset(scopes), SystemClock().now()))
        return {"Authorization": f"Bearer {made.token}"}


@contextmanager
def running(settings: Settings, database: Database) -> Iterator[Api]:
    """The API with these settings, over a database that is migrated."""
    with serving(create_app(settings)) as url, httpx.Client(base_url=url, timeout=20) as client:
        api = Api(url, client, database, settings)
        client.headers.update(api.key(Scope.ADMIN))
        yield api


@pytest.fixture
def api(settings: Settings, redis_url: str, open_database: Callable[[str], Database]) -> Iterator[Api]:
    """The API of a fresh home, on SQLite and a real server."""
    given = settings.model_copy(update={"redis_url": redis_url, "stream": f"api:{settings.home.name}"})
    with running(given, open_database(given.sql_url)) as api:
        yield api


@pytest.fixture
def both(
    settings: Settings, redis_url: str, database_url: str, open_database: Callable[[str], Database]
) -> Iterator[Api]:
    """The API on SQLite and on PostgreSQL."""
    update = {"redis_url": redis_url, "stream": f"api:{settings.home.name}", "database_url": database_url}
    with running(settings.model_copy(update=update), open_database(database_url)) as api:
        yield api
