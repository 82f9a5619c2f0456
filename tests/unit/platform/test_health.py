import time
from pathlib import Path

import httpx
import pytest

import migrations
from service.platform.database import Database
from service.platform.dependencies import LiveStatus
from service.platform.redis import ErasureStream
from tests.unit.platform.conftest import FixedLive, Serve


def test_a_process_that_answers_is_alive(serve: Serve, tmp_path: Path):
    """Whatever else is broken."""
    broken = Database(f"sqlite:///{tmp_path}/empty.db")
    client = serve(database=broken, live=FixedLive(LiveStatus(None)))

    assert client.get("/livez").json() == {"status": "ok", "checks": None} or client.get("/livez").status_code == 200
    broken.close()


def test_a_service_with_everything_is_ready(serve: Serve):
    """Each check says what it saw, when asked."""
    client = serve()

    assert client.get("/readyz").json() == {"status": "ok"}
    checks = client.get("/readyz?verbose").json()["checks"]
    assert {name: check["status"] for name, check in checks.items()} == dict.fromkeys(
        ("database", "redis", "model", "forgetting"), "ok"
    )
    assert "version 7" in checks["model"]["detail"]


def test_without_redis_the_service_is_degraded_and_ready(serve: Serve, tmp_path: Path):
    """Reads and erasures go on."""
    away = ErasureStream(f"unix://{tmp_path}/none.sock", stream="s", group="g", consumer="c")
    response = serve(stream=away).get("/readyz?verbose")

    assert response.status_code == 200
    assert response.json()["status"] == "degraded"
    assert "go on" in response.json()["checks"]["redis"]["detail"]


def test_a_schema_that_is_not_there_is_not_ready(serve: Serve, tmp_path: Path):
    """503, with the command to run."""
    empty = Database(f"sqlite:///{tmp_path}/empty.db")

    response = serve(database=empty).get("/readyz?verbose")

    assert response.status_code == 503
    assert response.json()["code"] == "not_ready"
    assert "expunge db upgrade" in response.json()["checks"]["database"]["detail"]
    empty.close()


def test_an_old_schema_is_not_ready(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    """The code needs a newer one."""
    monkeypatch.setattr(migrations, "head", lambda: "9999")

    assert serve().get("/readyz").status_code == 503


def test_a_newer_schema_is_ready(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    """During a rolling upgrade old processes go on."""
    monkeypatch.setattr(migrations, "head", lambda: "0000")

    assert serve().get("/readyz").status_code == 200


def test_without_a_model_the_service_is_not_ready(serve: Serve):
    """Nothing could be recommended."""
    response = serve(live=FixedLive(LiveStatus(None))).get("/readyz")

    assert response.status_code == 503
    assert "model" in response.json()["detail"]


@pytest.mark.P5
def test_a_refused_version_degrades_while_the_old_one_answers(serve: Serve):
    """The named error is told."""
    response = serve(live=FixedLive(LiveStatus(6, "checksum_mismatch"))).get("/readyz?verbose")

    assert response.json()["status"] == "degraded"
    assert "checksum_mismatch" in response.json()["checks"]["model"]["detail"]


@pytest.mark.P10
def test_readiness_answers_in_bounded_time(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    """A Redis that hangs costs three seconds at most."""
    stream = serve.services.stream
    assert stream is not None
    monkeypatch.setattr(stream, "ping", lambda: time.sleep(4))
    begun = time.monotonic()

    response = serve().get("/readyz?verbose")

    assert time.monotonic() - begun < 3.8
    assert response.json()["checks"]["redis"]["status"] == "degraded"


def test_health_needs_no_key(serve: Serve):
    """Orchestrators have none."""
    client: httpx.Client = serve()

    assert [client.get(path).status_code for path in ("/livez", "/readyz", "/metrics")] == [200, 200, 200]
