"""Compactions over HTTP: asked for, watched, cancelled."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from service.platform import tables
from service.platform.auth import Scope
from service.platform.clock import SystemClock
from service.platform.ids import uuid7
from service.settings import Settings, load_settings
from tests.api.conftest import Api
from tests.factories.worlds import World

PATH = "/v1/models/compactions"


@pytest.fixture
def settings(home: Path, database_url: str) -> Settings:
    return load_settings(home=home, database_url=database_url)


@pytest.fixture
def world(api: Api) -> World:
    """Base 1 is live."""
    world = World(api.settings, api.database, ["u1", "u2"], ["i1", "i2"])
    world.record([("u1", "i1"), ("u2", "i2")])
    world.serve(1, [[2.0, 1.0], [1.0, 2.0]])
    return world


def stored(api: Api, status: str, step: str = "training", **more: Any) -> str:
    """A compaction of this status; no compactor runs here."""
    row = {"id": uuid7(), "trigger": "share", "status": status, "step": step, "requested_at": SystemClock().now()}
    with api.database.write() as connection:
        connection.execute(insert(tables.compactions).values(**row, **more))
    return str(row["id"])


def test_one_is_started_and_there_is_never_a_second(api: Api, world: World) -> None:
    """202 with its place; 200 with the same one for whoever asks again, with a body or without."""
    first = api.client.post(PATH)
    again = api.client.post(PATH, json={})

    assert (first.status_code, again.status_code) == (202, 200)
    assert first.headers["Location"] == again.headers["Location"] == f"{PATH}/{first.json()['id']}"
    found = api.client.get(first.headers["Location"]).json()
    assert found == first.json() == again.json()
    assert (found["status"], found["trigger"], found["problem"]) == ("waiting", "operator", None)


def test_without_a_base_there_is_nothing_to_begin_from(api: Api) -> None:
    """A 409 that says what to do first."""
    refused = api.client.post(PATH)

    assert (refused.status_code, refused.json()["code"]) == (409, "no_base")


def test_the_list_shows_the_newest_first_page_by_page(api: Api, world: World) -> None:
    """Following the links gives each once."""
    made = [stored(api, "done") for _ in range(5)]
    found, path = [], f"{PATH}?limit=2"

    while path:
        page = api.client.get(path).json()
        found += [each["id"] for each in page["compactions"]]
        path = page["next"]

    assert found == made[::-1]


@pytest.mark.parametrize(
    ("status", "step", "answer"),
    [
        ("waiting", "snapshot", 200),
        ("running", "pretraining", 200),
        ("running", "moving", 409),
        ("running", "finishing", 409),
        ("done", "finishing", 409),
        ("cancelled", "training", 409),
    ],
)
def test_one_is_cancelled_before_anything_has_moved(
    api: Api, world: World, status: str, step: str, answer: int
) -> None:
    """Afterwards, and what is over, is a 409."""
    compaction = stored(api, status, step)

    cancelled = api.client.delete(f"{PATH}/{compaction}")

    assert cancelled.status_code == answer
    expected = "cancelled" if answer == 200 else status
    assert api.client.get(f"{PATH}/{compaction}").json()["status"] == expected


def test_what_it_waits_for_is_told_with_what_to_do(api: Api, world: World) -> None:
    """An obstacle of the worker's, or a problem by its code."""
    compaction = stored(api, "running", "moving", problem="residue_present", progress={"share": 0.9, "left_s": 3.0})

    found = api.client.get(f"{PATH}/{compaction}").json()

    assert found["problem"]["code"] == "residue_present"
    assert "facts.residue" in found["problem"]["next_step"]
    assert found["progress"] == {"share": 0.9, "left_s": 3.0}


def test_only_who_may_starts_and_sees_them(api: Api, world: World) -> None:
    """Scope admin starts and cancels, audit looks; unknown ones are a 404."""
    auditor, eraser = api.key(Scope.AUDIT), api.key(Scope.ERASE)

    assert api.client.post(PATH, headers=auditor).status_code == 403
    assert api.client.get(PATH, headers=auditor).status_code == 200
    assert api.client.get(PATH, headers=eraser).status_code == 403
    assert api.client.get(PATH, headers={"Authorization": ""}).status_code == 401
    assert api.client.get(f"{PATH}/{uuid7()}").json()["code"] == "compaction_not_found"
    assert api.client.post(PATH, json={"now": True}).status_code == 422
