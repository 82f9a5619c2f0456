"""What keys share by their label, and how much they may ask for."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from service.app import create_app
from service.platform.auth import Scope
from service.platform.tables import erasures, suppressions
from tests.api.conftest import Api
from tests.serving import serving

Limited = Callable[..., AbstractContextManager[Api]]


@pytest.fixture
def limited(api: Api) -> Limited:
    """Call it with settings to get a second API on the same database, with the admin's key."""

    @contextmanager
    def start(**changed: Any) -> Iterator[Api]:
        settings = api.settings.model_copy(update=changed)
        with serving(create_app(settings)) as url, httpx.Client(base_url=url, timeout=20) as client:
            client.headers.update(api.client.headers)
            yield Api(url, client, api.database, settings)

    return start


def test_after_a_rotation_the_new_key_has_all_that_the_old_one_asked_for(api: Api) -> None:
    """It reads, lists and cancels; a retry with it finds what is stored; a key of another label sees nothing."""
    old = api.key(Scope.ERASE, label="shop")
    given = api.client.delete("/v1/users/u/interactions/a", headers={**old, "Idempotency-Key": "k"}).json()
    path, listing = f"/v1/erasures/{given['id']}", "/v1/erasures"
    new, other = api.key(Scope.ERASE, label="shop"), api.key(Scope.ERASE, label="stranger")

    again = api.client.delete("/v1/users/u/interactions/a", headers={**new, "Idempotency-Key": "k"})

    assert again.json()["id"] == given["id"]
    assert again.json()["replayed"] is True
    assert api.client.get(path, headers=new).status_code == 200
    assert api.client.get(f"{path}/receipt", headers=new).status_code == 200
    assert [each["id"] for each in api.client.get(listing, headers=new).json()["erasures"]] == [given["id"]]
    assert api.client.get(path, headers=other).status_code == 404
    assert api.client.delete(path, headers=other).status_code == 404
    assert api.client.get(f"{path}/receipt", headers=other).status_code == 404
    assert api.client.get(listing, headers=other).json()["erasures"] == []
    assert api.client.delete(path, headers=new).json()["status"] == "cancelled"


def test_a_page_goes_on_with_the_labels_other_key(api: Api) -> None:
    """Its cursor is the owner's."""
    old, new = (api.key(Scope.ERASE, label="shop") for _ in range(2))
    for item in "ab":
        api.client.delete(f"/v1/users/u/interactions/{item}", headers=old)

    following = api.client.get("/v1/erasures?limit=1", headers=old).json()["next"]

    assert len(api.client.get(following, headers=new).json()["erasures"]) == 1


def test_nothing_is_limited_unless_it_is_asked_for(api: Api) -> None:
    """And no header says that it were."""
    answer = api.client.get("/v1/erasures")

    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("ratelimit")]


def test_requests_of_a_label_are_limited_together(limited: Limited) -> None:
    """Whatever they ask for; each answer says what is left, the refusal when to come back."""
    with limited(requests_per_minute=3) as api:
        one, other = (api.key(Scope.ERASE, Scope.RECOMMEND, label="shop") for _ in range(2))
        first = api.client.delete("/v1/users/u/interactions/a", headers=one)
        second = api.client.get("/v1/erasures", headers=other)
        forbidden = api.client.get("/v1/audit/entries", headers=other)
        refused = api.client.get("/v1/users/u/recommendations", headers=one)

        assert first.headers["RateLimit-Policy"] == '"default";q=3;w=60'
        assert first.headers["RateLimit"].startswith('"default";r=2;t=')
        assert second.headers["RateLimit"].startswith('"default";r=1;t=')
        assert forbidden.status_code == 403
        assert refused.status_code == 429
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "rate_limited"
        assert refused.headers["RateLimit"].startswith('"default";r=0;t=')
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert api.client.get("/v1/erasures").status_code == 200  # another key
        assert api.client.get("/readyz").status_code in (200, 503)  # needs none


def test_the_targets_of_a_label_are_limited_and_what_is_refused_stores_nothing(limited: Limited) -> None:
    """A retry of what is stored costs nothing, a preview neither; a mistake neither."""
    body = {"users": ["u1", "u2"]}
    with limited(erasure_targets_per_day=3) as api:
        key = {**api.key(Scope.ERASE, label="shop"), "Idempotency-Key": "k"}
        other = api.key(Scope.ERASE, label="shop")
        api.client.post("/v1/erasures/preview", json=body, headers=other)
        assert api.client.post("/v1/erasures", json={}, headers=other).status_code == 422
        first = api.client.post("/v1/erasures", json=body, headers=key)
        again = api.client.post("/v1/erasures", json=body, headers=key)
        refused = api.client.post("/v1/erasures", json={"users": ["u3", "u4"]}, headers=other)
        last = api.client.delete("/v1/users/u3", headers=other)
        still = api.client.post("/v1/erasures", json=body, headers=key)

        assert first.headers["RateLimit"].startswith('"erasure-targets";r=1;t=')
        assert again.json()["replayed"] is True
        assert refused.status_code == 429
        assert refused.json()["code"] == "target_quota_exceeded"
        assert "u3" not in refused.text
        assert last.status_code == 202
        assert still.json()["id"] == first.json()["id"]
        count = api.database.query(
            lambda read: [read.scalar(select(func.count()).select_from(table)) for table in (erasures, suppressions)]
        )
        assert count == [2, 3]
