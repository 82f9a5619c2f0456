"""Models over HTTP: the list, the page of one version, and the fenced alias."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store import RequestFacts
from service.platform.auth import Scope
from service.settings import Settings, load_settings
from tests.api.conftest import Api
from tests.factories.worlds import World

SCORES = [[2.0, 1.0], [1.0, 2.0]]
ALIAS = "/v1/models/aliases/live"


@pytest.fixture
def settings(home: Path, database_url: str) -> Settings:
    return load_settings(home=home, database_url=database_url)


@pytest.fixture
def world(api: Api) -> World:
    """Base 1 is live; version 2, forgotten from it, passed the gate."""
    world = World(api.settings, api.database, ["u1", "u2"], ["i1", "i2"])
    world.record([("u1", "i1"), ("u2", "i2")])
    world.serve(1, SCORES)
    forgotten = world.publish(
        2, SCORES, kind="forgotten", parent=1, requests=RequestFacts.of(["e1"]), gate={"auc_gap": 0.003}
    )
    world.register(forgotten, erasure_seq=5)
    return world


def promote(api: Api, number: int, **headers: str) -> httpx.Response:
    return api.client.put(ALIAS, json={"version": number}, headers={k.replace("_", "-"): v for k, v in headers.items()})


def live(api: Api) -> int:
    number: int = api.client.get(ALIAS).json()["version"]
    return number


def answering(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.client.get("/v1/users/u1/recommendations").json()
    return found


def test_the_list_shows_the_newest_first_page_by_page(api: Api, world: World):
    """Each page links to the next; following the links gives every version once."""
    for number in range(3, 8):
        world.register(world.publish(number, SCORES, seed=number))
    found, path = [], "/v1/models/versions?limit=3"

    while path:
        page = api.client.get(path).json()
        found += [version["version"] for version in page["versions"]]
        path = page["next"]

    assert found == [7, 6, 5, 4, 3, 2, 1]


def test_a_summary_says_what_a_version_is(api: Api, world: World):
    """Kind, base, aliases, how many erasures it has forgotten, and where to read on."""
    newest = api.client.get("/v1/models/versions?limit=1").json()["versions"][0]

    assert newest.pop("created_at").startswith("2026-11-21T04:00:00")
    assert newest == {
        "version": 2,
        "kind": "forgotten",
        "status": "ready",
        "base": 1,
        "parent": 1,
        "aliases": [],
        "erasures": 1,
        "erasure_seq": 5,
        "links": {"self": "/v1/models/versions/2", "base": "/v1/models/versions/1"},
    }


@pytest.mark.P6
def test_the_page_of_a_version_holds_its_lineage_manifest_and_gate(api: Api, world: World):
    """What it takes to make it again, and how it was judged; as signed in the store."""
    page = api.client.get("/v1/models/versions/2").json()

    assert [(each["version"], each["kind"]) for each in page["lineage"]] == [(1, "base")]
    assert page["gate"] == {"auc_gap": 0.003}
    assert page["manifest"] == world.store.manifest("versions", 2).as_dict()
    assert api.client.get("/v1/models/versions/1").json()["lineage"] == []


def test_a_version_that_is_not_there_is_a_404(api: Api, world: World):
    """Unknown numbers and numbers that are none."""
    assert api.client.get("/v1/models/versions/99").json()["code"] == "version_unknown"
    assert api.client.get("/v1/models/versions/0").status_code == 422
    assert promote(api, 99).status_code == 404
    assert api.client.get("/v1/models/versions?cursor=forged").json()["code"] == "invalid_cursor"


def test_a_promoted_version_answers_the_next_question(api: Api, world: World):
    """The alias moves in SQL and in the store, and the log tells it."""
    assert answering(api)["model_version"] == 1

    moved = promote(api, 2)

    assert (moved.status_code, moved.json()["version"], moved.headers["etag"]) == (200, 2, '"v2"')
    assert answering(api)["model_version"] == live(api) == world.store.alias("live") == 2
    entries = api.client.get("/v1/audit/entries?limit=1000").json()["entries"]
    assert [(e["event"], e["version"], e["body"]) for e in entries][-1] == (
        "alias.moved",
        2,
        {"alias": "live", "before": 1},
    )
    assert promote(api, 1).status_code == 200
    assert answering(api)["model_version"] == 1


@pytest.mark.P4
def test_a_version_that_holds_an_accepted_erasure_cannot_be_made_live(api: Api, world: World):
    """409 `version_fenced`, with what to do; the alias stays."""
    assert api.client.delete("/v1/users/u1/interactions/i1").status_code == 202

    refused = promote(api, 2)

    assert (refused.status_code, refused.json()["code"]) == (409, "version_fenced")
    assert "Choose a version that has forgotten it" in refused.json()["detail"]
    assert live(api) == 1


def test_an_erasure_of_something_unknown_does_not_stop_operations(api: Api, world: World):
    """It matched nothing that any version could hold."""
    api.client.delete("/v1/users/nobody/interactions/nothing")

    assert promote(api, 2).status_code == 200


@pytest.mark.P5
def test_a_damaged_version_cannot_be_made_live(api: Api, world: World):
    """It is verified before the alias moves."""
    file = world.store.root / "versions" / "000002" / "embeddings.safetensors"
    file.write_bytes(file.read_bytes()[:-1])

    refused = promote(api, 2)

    assert (refused.status_code, refused.json()["code"]) == (409, "version_damaged")
    assert "Truncated" in refused.json()["detail"]
    assert live(api) == 1


def test_a_version_that_the_gate_held_cannot_be_made_live(api: Api, world: World):
    """409 `version_not_ready`."""
    world.register(world.publish(3, SCORES), status="held")

    assert promote(api, 3).json()["code"] == "version_not_ready"


def test_a_move_that_expects_another_version_is_refused(api: Api, world: World):
    """If-Match guards against two operators who do not know of each other."""
    tag = api.client.get(ALIAS).headers["etag"]

    assert promote(api, 2, if_match='"v9"').json()["code"] == "alias_moved"
    assert promote(api, 2, if_match="nonsense").status_code == 412
    assert promote(api, 2, if_match=tag).status_code == 200
    assert promote(api, 1, if_match=tag).status_code == 412
    assert promote(api, 1, if_match="*").status_code == 200


@pytest.mark.P9
def test_a_move_stands_when_the_pointer_file_cannot_be_written(api: Api, world: World):
    """SQL is the truth: the file is mended later, and the answer does not lie."""
    blocked = world.store.root / "aliases"
    blocked.write_text("in the way")

    assert promote(api, 2).status_code == 200
    assert answering(api)["model_version"] == 2


def test_before_anything_is_published_the_alias_is_unset(api: Api):
    """404 with a code of its own, and an empty list."""
    assert api.client.get(ALIAS).json()["code"] == "alias_unset"
    assert api.client.get("/v1/models/versions").json() == {"versions": [], "next": None}


def test_reading_needs_audit_and_moving_needs_admin(api: Api, world: World):
    """A key for recommendations sees no lineage; an auditor moves nothing."""
    auditor, recommender = api.key(Scope.AUDIT), api.key(Scope.RECOMMEND)

    for path in ("/v1/models/versions", "/v1/models/versions/1", ALIAS):
        assert httpx.get(api.url + path, headers=auditor).status_code == 200
        assert httpx.get(api.url + path, headers=recommender).status_code == 403
    assert httpx.put(api.url + ALIAS, json={"version": 2}, headers=auditor).status_code == 403


@pytest.mark.parametrize("body", [{}, {"version": 0}, {"version": "x"}, {"version": 2, "fenced": False}, []])
def test_a_promotion_takes_a_version_and_nothing_else(api: Api, world: World, body: object):
    """No field opens the fence."""
    assert api.client.put(ALIAS, json=body).status_code == 422
