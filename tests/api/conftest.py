"""A whole API over real HTTP, with an admin's key in hand."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

import migrations
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


@pytest.fixture
def api(settings: Settings, redis_url: str, open_database: Callable[[str], Database]) -> Iterator[Api]:
    """The API of a fresh home, on SQLite and a real server."""
    given = settings.model_copy(update={"redis_url": redis_url, "stream": f"api:{settings.home.name}"})
    migrations.upgrade(given.sql_url)
    database = open_database(given.sql_url)
    with serving(create_app(given)) as url, httpx.Client(base_url=url, timeout=20) as client:
        api = Api(url, client, database, given)
        client.headers.update(api.key(Scope.ADMIN))
        yield api
