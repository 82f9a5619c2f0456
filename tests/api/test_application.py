"""The whole application: what holds for every route of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.platform.auth import Scope
from service.platform.database import Database
from service.platform.embedded import EmbeddedValkey
from service.settings import Settings
from tests.api.conftest import Api
from tests.serving import serving

ID = "0190b3c6-7c5e-7c1f-9d0a-000000000000"
OPEN = ("/livez", "/readyz", "/metrics", "/problems/{code}", "/v1/audit/keys", "/v1/audit/jwks.json")


def calls(api: Api) -> list[tuple[str, str, dict[str, Any]]]:
    """Every route of the description, as (method, template, operation)."""
    schema = api.client.get("/openapi.json").json()
    return [
        (method.upper(), path, operation)
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]


def concrete(path: str, person: str = "x") -> str:
    return path.format_map(_Anything(user_id=person, item_id=person))


class _Anything(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "1" if "version" in name else ID


def test_every_route_is_described(api: Api):
    """With a summary or a description, an answer that is well, and problems as they are sent."""
    for method, path, operation in calls(api):
        assert operation.get("description") or operation.get("summary"), (method, path)
        assert any(status.startswith("2") for status in operation["responses"]), (method, path)
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")):
                assert list(response["content"]) == ["application/problem+json"], (method, path, status)


def test_every_route_of_the_api_needs_a_key(api: Api):
    """Only health, metrics, the problem texts and the public keys of the log are open."""
    for method, path, operation in calls(api):
        if path in OPEN:
            continue
        assert operation["security"], (method, path)
        answer = httpx.request(method, api.url + concrete(path), timeout=20)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), (method, path)


def test_no_scope_but_admin_opens_everything(api: Api):
    """Each route refuses at least one of the narrow scopes, with 403."""
    narrow = {scope: api.key(scope) for scope in (Scope.RECOMMEND, Scope.ERASE, Scope.AUDIT)}

    for method, path, _operation in calls(api):
        if path in OPEN:
            continue
        codes = {
            scope: httpx.request(method, api.url + concrete(path), headers=headers, timeout=20).status_code
            for scope, headers in narrow.items()
        }
        assert 403 in codes.values(), (method, path, codes)
        assert 401 not in codes.values(), (method, path, codes)


def test_a_service_without_a_model_is_alive_and_not_ready(api: Api):
    """It starts, and says what is missing."""
    assert api.client.get("/livez").status_code == 200
    ready = api.client.get("/readyz?verbose")

    assert ready.status_code == 503
    assert ready.json()["checks"]["database"]["status"] == "ok"
    assert ready.json()["checks"]["model"]["status"] == "failed"


def test_the_application_starts_before_its_schema(settings: Settings, redis_url: str):
    """And refuses with a way out."""
    with serving(create_app(settings.model_copy(update={"redis_url": redis_url}))) as url:
        answer = httpx.get(f"{url}/v1/users/ana/recommendations", headers={"Authorization": "Bearer exp_x"}, timeout=20)

    assert answer.status_code == 503
    assert "expunge db upgrade" in answer.json()["detail"]


def test_without_a_redis_url_a_server_is_embedded(settings: Settings, valkey_binary: Path):
    """And ends with the application."""
    with serving(create_app(settings)) as url:
        checks = httpx.get(f"{url}/readyz?verbose", timeout=20).json()["checks"]
        assert checks["redis"]["status"] == "ok"

    probe = EmbeddedValkey(settings.home)
    assert not probe._address.answers()


def test_a_redis_that_evicts_is_refused_at_the_start(settings: Settings, valkey_binary: Path, home: Path):
    """The application does not come up."""
    import redis

    server = EmbeddedValkey(home / "other", valkey_binary)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")

    with (
        pytest.raises(AssertionError, match="refused to start"),
        serving(create_app(settings.model_copy(update={"redis_url": server.url}))),
    ):
        pass
    server.stop()


@pytest.mark.P8
def test_no_canary_reaches_logs_or_metrics(api: Api, capfd: pytest.CaptureFixture[str]):
    """Ids and tokens that callers send stay out of both, whatever the answer was."""
    canary = "canary-user-7f3a"
    headers = {"Authorization": f"Bearer exp_{canary}"}
    for method, path, _operation in calls(api):
        target = api.url + concrete(path, canary)
        httpx.request(method, target, headers=headers, timeout=20)
        api.client.request(method, target, json={"users": [canary], "nonsense": canary})

    assert canary not in api.client.get("/metrics").text
    assert canary not in "".join(capfd.readouterr())


def test_the_database_fixture_and_the_api_share_a_file(api: Api, open_database: Callable[[str], Database]):
    """Several processes may use one SQLite home."""
    other = open_database(api.settings.sql_url)

    assert other.query(lambda read: read.exec_driver_sql("SELECT count(*) FROM api_keys").scalar()) == 1
