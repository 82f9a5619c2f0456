"""Recommendations over HTTP, on both databases; every score in these worlds is known."""

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from sqlalchemy import delete

from service.app import create_app
from service.platform.auth import Scope
from service.platform.database import Database
from service.platform.tables import interactions, items, users
from service.settings import Settings, load_settings
from tests.api.conftest import Api
from tests.factories.worlds import World, tensors_of, title
from tests.serving import serving

ODD = "u/ü 😀?#"
USERS = ["u1", "u2", ODD]
ITEMS = ["i1", "i2", "i3", "i4", "i5", "i6x"]
FALLING = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
SCORES = [FALLING, FALLING[::-1], [1.0, 1.0, 2.0, 1.0, 1.0, 1.0]]
POPULARITY = [1, 2, 3, 4, 5, 6]


@pytest.fixture
def settings(home: Path, database_url: str) -> Settings:
    return load_settings(home=home, database_url=database_url)


@pytest.fixture
def world(api: Api) -> World:
    """Version 1 is live: u1 likes i1 best, u2 i6x; u1 has seen i2."""
    world = World(api.settings, api.database, USERS, ITEMS)
    world.record([("u1", "i2")])
    world.serve(1, SCORES, item_degrees=POPULARITY)
    return world


def ask(api: Api, user: str = "u1", **query: Any) -> dict[str, Any]:
    answer = api.client.get(f"/v1/users/{quote(user, safe='')}/recommendations", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def erase(api: Api, path: str) -> None:
    assert api.client.delete(f"/v1/{path}").status_code == 202


def test_the_answer_is_the_ranking_of_the_live_version(api: Api, world: World):
    """Best first, with rank, score and title, without what was seen, and naming its version."""
    answer = ask(api, n=3)

    assert answer == {
        "user_id": "u1",
        "model_version": 1,
        "personalised": True,
        "items": [
            {"item_id": "i1", "score": 6.0, "rank": 1, "title": "Film i1"},
            {"item_id": "i3", "score": 4.0, "rank": 2, "title": "Film i3"},
            {"item_id": "i4", "score": 3.0, "rank": 3, "title": "Film i4"},
        ],
    }


def test_a_title_that_is_not_recorded_is_left_out(api: Api, world: World):
    """An item without a title has no such field."""
    assert "title" not in ask(api, "u2", n=1)["items"][0]
    assert title("i6x") is None


def test_equal_scores_come_in_a_fixed_order(api: Api, world: World):
    """The same question has the same answer, ties and all."""
    assert ids(ask(api, ODD)) == ["i3", "i1", "i2", "i4", "i5", "i6x"]


def test_what_was_seen_shows_when_it_is_asked_for(api: Api, world: World):
    """`exclude_seen=false` ranks everything."""
    assert ids(ask(api, exclude_seen=False)) == ITEMS


def test_named_items_are_left_out(api: Api, world: World):
    """`exclude` takes any number of ids, unknown ones too."""
    assert ids(ask(api, exclude=["i1", "i4", "no such item"])) == ["i3", "i5", "i6x"]


def test_fewer_items_than_asked_for_are_no_error(api: Api, world: World):
    """Whoever excludes everything gets an empty list."""
    assert len(ask(api, n=500)["items"]) == 5
    assert ids(ask(api, exclude=ITEMS)) == []


@pytest.mark.parametrize("query", ["n=0", "n=501", "n=x", "n=", "exclude_seen=perhaps", "exclude=", "exclude=a%0Ab"])
def test_a_parameter_that_makes_no_sense_is_named(api: Api, world: World, query: str):
    """422 with the name of the parameter, without repeating its value."""
    answer = api.client.get(f"/v1/users/u1/recommendations?{query}")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith(f"query/{query.split('=')[0]}")


def test_an_id_that_cannot_be_one_is_refused(api: Api, world: World):
    """Too long, or with control characters: 422, and the id is not repeated."""
    for bad in ("x" * 513, "secret%0Aname"):
        answer = api.client.get(f"/v1/users/{bad}/recommendations")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "path/user_id"
        assert "secret" not in answer.text


def test_only_keys_with_the_scope_may_ask(api: Api, world: World):
    """401 without a key, 403 with another scope, 200 with the right one."""
    path = "/v1/users/u1/recommendations"

    assert httpx.get(api.url + path).status_code == 401
    assert httpx.get(api.url + path, headers=api.key(Scope.ERASE)).status_code == 403
    assert httpx.get(api.url + path, headers=api.key(Scope.RECOMMEND)).status_code == 200


def test_an_unknown_user_gets_what_is_popular(api: Api, world: World):
    """No error, and a flag that says so."""
    answer = ask(api, "nobody", n=3)

    assert (answer["personalised"], ids(answer)) == (False, ["i6x", "i5", "i4"])
    assert answer["items"][0]["score"] == 6


def test_a_user_recorded_after_training_is_folded_in(api: Api, world: World):
    """New feedback counts at once, without training."""
    world.remember(new_users=["new"])
    world.record([("new", "i1"), ("new", "i2")])

    answer = ask(api, "new", exclude_seen=False)

    vectors = np.array(SCORES, np.float32).T  # (n_items, d)
    user = vectors[0] / np.sqrt(2 * POPULARITY[0]) + vectors[1] / np.sqrt(2 * POPULARITY[1])
    expected = sorted(range(6), key=lambda row: -(vectors @ user)[row])
    assert (answer["personalised"], ids(answer)) == (True, [ITEMS[row] for row in expected])
    assert answer["items"][0]["score"] == pytest.approx(max(vectors @ user), rel=1e-5)
    assert "i1" not in ids(ask(api, "new"))


def test_a_user_that_the_version_has_reset_starts_anew(api: Api, world: World):
    """Degree 0: popular items, until something new is recorded."""
    world.serve(2, SCORES, user_degrees=[1, 0, 1], item_degrees=POPULARITY)

    assert ask(api, "u2")["personalised"] is False
    world.record([("u2", "i1")])
    assert ask(api, "u2")["personalised"] is True


def test_a_row_that_holds_nothing_answers_as_an_unknown_user(api: Api, world: World):
    """Not in the order of ids, with a score of 0 each."""
    vectors = dict(tensors_of(np.array(SCORES, np.float32), None, POPULARITY))
    vectors["users"][1] = 0
    world.register(world.publish_tensors(2, vectors))
    world.make_live(2)

    answer = ask(api, "u2", n=3)

    assert (answer["personalised"], ids(answer)) == (False, ["i6x", "i5", "i4"])


def test_an_item_of_which_nothing_is_known_is_like_nothing_and_ranked_for_nobody(api: Api, world: World):
    """A score of 0 would place it above whatever the model thinks ill of."""
    world.serve(2, [[-1.0, -2.0, 0.0, -3.0, -4.0, -5.0]] * 3, item_degrees=POPULARITY)

    assert ids(ask(api, exclude_seen=False)) == ["i1", "i2", "i4", "i5", "i6x"]
    assert api.client.get("/v1/items/i3/similar").status_code == 404
    assert "i3" not in ids(api.client.get("/v1/items/i1/similar").json())
    assert "i3" in ids(ask(api, "nobody"))
    world.remember(new_users=["new"])
    world.record([("new", "i3")])
    assert ask(api, "new")["personalised"] is False


@pytest.mark.P3
def test_who_erased_all_of_it_pair_by_pair_is_unknown_at_once(api: Api, world: World):
    """The vector still knows them, by nothing but what was erased."""
    erase(api, "users/u1/interactions/i2")

    answer = ask(api)

    assert answer["personalised"] is False
    assert ids(answer) == ["i6x", "i5", "i4", "i3", "i1"]


@pytest.mark.P3
def test_popularity_forgets_at_once_and_remembers_a_cancelled_erasure(api: Api, world: World):
    """Nobody unlearns here: the version that answers stays as it is."""
    world.record([(user, "i6x") for user in USERS] + [("u1", "i5")])
    assert ids(ask(api, "nobody", n=3)) == ["i6x", "i5", "i4"]

    first = api.client.delete("/v1/users/u1/interactions/i6x").json()
    erase(api, "users/u2")
    assert [(item["item_id"], item["score"]) for item in ask(api, "nobody", n=3)["items"]] == [
        ("i5", 5),
        ("i4", 4),
        ("i6x", 4),
    ]
    erase(api, f"users/{quote(ODD, safe='')}/interactions/i6x")
    assert ids(ask(api, "nobody", n=4)) == ["i5", "i4", "i3", "i6x"]

    assert api.client.delete(f"/v1/erasures/{first['id']}").status_code == 200
    assert ids(ask(api, "nobody", n=3)) == ["i5", "i4", "i6x"]


def test_items_without_interactions_are_out_of_the_catalogue(api: Api, world: World):
    """Degree 0 in the live version: in no ranking, no likeness, no popularity."""
    world.serve(2, SCORES, item_degrees=[0, 2, 3, 4, 5, 6])

    assert "i1" not in ids(ask(api, exclude_seen=False)) + ids(ask(api, "nobody"))
    assert api.client.get("/v1/items/i1/similar").status_code == 404


def test_an_item_recorded_after_training_is_not_ranked_and_harms_nothing(api: Api, world: World):
    """It has no vector yet; who has seen it is answered as before."""
    world.remember(new_items=["i7"])
    world.record([("u1", "i7")])

    assert ids(ask(api)) == ["i1", "i3", "i4", "i5", "i6x"]


@pytest.mark.P3
def test_an_erased_pair_is_gone_from_the_next_answer(api: Api, world: World):
    """From the 202 on it shows nowhere, not even among what was seen."""
    assert ids(ask(api))[0] == "i1"

    erase(api, "users/u1/interactions/i1")
    erase(api, "users/u1/interactions/i2")

    for query in ({}, {"exclude_seen": False}, {"n": 500, "exclude_seen": False}):
        assert not {"i1", "i2"} & set(ids(ask(api, **query)))
    assert ids(ask(api, "u2", exclude_seen=False))[-1] == "i1"


@pytest.mark.P3
def test_an_erased_user_is_answered_as_an_unknown_one_at_once(api: Api, world: World):
    """Nothing that is known of the user is used from the 202 on."""
    erase(api, "users/u1")

    answer = ask(api)
    assert answer["personalised"] is False
    assert ids(answer) == ids(ask(api, "nobody"))


@pytest.mark.P4
def test_a_user_whose_row_was_purged_stays_an_unknown_one(api: Api, world: World):
    """The tombstone and nothing else knows them: no history, no vector, no error, even of a version that has a row."""
    erase(api, "users/u1")
    with api.database.write() as connection:
        connection.execute(delete(interactions))
        connection.execute(delete(users).where(users.c.id == "u1"))

    answer = ask(api)

    assert answer["personalised"] is False
    assert ids(answer) == ids(ask(api, "nobody"))
    assert api.client.get("/v1/users/u1/interactions").json()["interactions"] == []


@pytest.mark.P3
def test_an_erased_item_is_shown_to_nobody(api: Api, world: World):
    """Not in rankings, popularity or likeness, nor under its own address."""
    erase(api, "items/i5")

    shown = [ids(ask(api, user, exclude_seen=False)) for user in (*USERS, "nobody")]
    shown.append(ids(api.client.get("/v1/items/i1/similar").json()))
    assert not any("i5" in each for each in shown)
    assert api.client.get("/v1/items/i5/similar").status_code == 404


@pytest.mark.P3
def test_a_new_user_is_not_folded_in_from_what_was_erased(api: Api, world: World):
    """The history that makes the vector is what remains."""
    world.remember(new_users=["new"])
    world.record([("new", "i1"), ("new", "i2")])

    erase(api, "users/new/interactions/i1")
    partly = ask(api, "new")
    erase(api, "users/new/interactions/i2")
    wholly = ask(api, "new")

    vectors = np.array(SCORES, np.float32).T
    user = vectors[1] / np.sqrt(POPULARITY[1])
    assert partly["items"][0]["score"] == pytest.approx(max((vectors @ user)[2:]), rel=1e-5)
    assert (partly["personalised"], wholly["personalised"]) == (True, False)
    assert not {"i1", "i2"} & {*ids(wholly), *ids(partly)}


@pytest.mark.P3
def test_an_erased_pair_stays_hidden_through_swap_rollback_and_restart(
    settings: Settings, redis_url: str, api: Api, world: World
):
    """Whatever version answers, from whatever process."""
    erase(api, "users/u1/interactions/i1")
    answers = [ask(api, exclude_seen=False)]

    world.serve(2, SCORES, item_degrees=POPULARITY, seed=8)
    answers.append(ask(api, exclude_seen=False))
    world.make_live(1)
    answers.append(ask(api, exclude_seen=False))
    with serving(create_app(api.settings)) as url:
        found = httpx.get(f"{url}/v1/users/u1/recommendations?exclude_seen=false", headers=dict(api.client.headers))
        answers.append(found.json())

    assert [answer["model_version"] for answer in answers] == [1, 2, 1, 1]
    assert not any("i1" in ids(answer) for answer in answers)


@pytest.mark.P3
def test_an_item_whose_id_was_erased_is_not_named_from_memory(api: Api, world: World):
    """The ids of the loaded version are remembered; a withdrawn one is never said, even when SQL has let go of it."""
    assert "i5" in ids(ask(api))

    erase(api, "items/i5")
    with api.database.write() as connection:
        connection.execute(delete(interactions))
        connection.execute(delete(items).where(items.c.id == "i5"))

    assert "i5" not in ids(ask(api)) + ids(ask(api, "nobody"))


def test_how_many_were_kept_back_is_counted(api: Api, world: World):
    """The metric counts items that an answer would have shown."""
    erase(api, "users/u1/interactions/i1")
    before = metric(api, "expunge_recommend_suppressed_filtered_total")

    ask(api, n=2)

    assert metric(api, "expunge_recommend_suppressed_filtered_total") == before + 1


def metric(api: Api, name: str) -> float:
    found = re.search(rf"^{name} ([0-9.e+]+)$", api.client.get("/metrics").text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def test_an_answer_that_the_caller_holds_is_not_sent_again(api: Api, world: World):
    """304 while nothing changed; the tag changes with the version and with what is suppressed."""
    path = "/v1/users/u1/recommendations"
    first = api.client.get(path)
    tag = first.headers["etag"]

    again = api.client.get(path, headers={"If-None-Match": f'"other", {tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert re.fullmatch(r'W/"v1-[0-9a-f]{16}"', tag)
    assert first.headers["cache-control"] == "private"
    erase(api, "users/u1/interactions/i1")
    changed = api.client.get(path, headers={"If-None-Match": tag})
    world.serve(2, SCORES, item_degrees=POPULARITY, seed=8)
    swapped = api.client.get(path, headers={"If-None-Match": changed.headers["etag"]})
    assert (changed.status_code, swapped.status_code) == (200, 200)
    assert swapped.headers["etag"].startswith('W/"v2-')


def test_many_users_are_answered_as_each_alone(api: Api, world: World):
    """In the order asked, unknown ones and repeated ones too."""
    wanted = [*USERS, "nobody", "u1"] * 10
    body = {"users": wanted, "n": 4, "exclude": ["i3"]}

    found = api.client.post("/v1/recommendations", json=body)

    assert found.status_code == 200
    assert found.json()["results"] == [ask(api, user, n=4, exclude=["i3"]) for user in wanted]


@pytest.mark.P10
@pytest.mark.parametrize(
    "body",
    [
        {"users": []},
        {"users": ["u"] * 1001},
        {"users": ["u1"], "n": 101},
        {"users": ["u1"], "exclude": ["i"] * 501},
        {"users": [""]},
        {"users": ["u1"], "model_version": 1},
        {},
    ],
)
def test_a_question_for_many_is_bounded(api: Api, world: World, body: dict[str, Any]):
    """At most 1,000 users and 100 items each; fields that do not exist are told."""
    assert api.client.post("/v1/recommendations", json=body).status_code == 422


def test_similar_items_are_those_that_point_the_same_way(api: Api, world: World):
    """The cosine of the vectors, without the item itself."""
    answer = api.client.get("/v1/items/i1/similar?n=3").json()

    vectors = np.array(SCORES, np.float32).T
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = units @ units[0]
    expected = [row for row in np.argsort(-cosines) if row != 0][:3]
    assert (answer["item_id"], answer["model_version"]) == ("i1", 1)
    assert ids(answer) == [ITEMS[row] for row in expected]
    assert answer["items"][0]["score"] == pytest.approx(cosines[expected[0]], rel=1e-5)


def test_an_unknown_item_is_a_404_that_does_not_repeat_the_id(api: Api, world: World):
    """What was asked for may be personal."""
    answer = api.client.get("/v1/items/secret-name/similar")

    assert (answer.status_code, answer.json()["code"]) == (404, "item_unknown")
    assert "secret-name" not in answer.text
    assert api.client.get("/problems/item_unknown").status_code == 200


def test_without_a_model_the_answer_is_503_and_not_ready(api: Api):
    """No version yet: problem+json with what to do, for users and items."""
    World(api.settings, api.database, USERS, ITEMS)

    for path in ("/v1/users/u1/recommendations", "/v1/items/i1/similar"):
        answer = api.client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
        assert "Retry-After" in answer.headers
    assert api.client.get("/readyz").status_code == 503


@pytest.mark.P5
def test_a_damaged_version_is_refused_and_the_old_one_goes_on(api: Api, world: World):
    """It is told by /readyz and a metric, and the mended file is taken up when the pause is over."""
    assert ask(api)["model_version"] == 1
    world.register(world.publish(2, SCORES, item_degrees=POPULARITY, seed=8))
    file = world.store.root / "versions" / "000002" / "embeddings.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    world.make_live(2)

    assert ask(api)["model_version"] == 1
    ready = api.client.get("/readyz?verbose")
    assert (ready.status_code, ready.json()["checks"]["model"]["status"]) == (200, "degraded")
    assert "version_damaged" in ready.text
    assert metric(api, 'expunge_model_load_failures_total{error="ChecksumMismatch"}') >= 1
    file.write_bytes(good)
    assert eventually(lambda: ask(api)["model_version"] == 2)
    assert api.client.get("/readyz?verbose").json()["checks"]["model"]["status"] == "ok"


@pytest.mark.P5
def test_a_version_that_is_gone_from_the_disk_is_refused(api: Api, world: World):
    """SQL names it, the store lost it: the old one answers."""
    assert ask(api)["model_version"] == 1
    world.serve(2, SCORES, item_degrees=POPULARITY, seed=8)
    (world.store.root / "versions" / "000002").rename(world.store.root / "lost")

    assert ask(api)["model_version"] == 1


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    waiting = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return True
        waiting.wait(0.02)
    return False


@pytest.mark.P5
def test_every_answer_during_swaps_comes_from_one_whole_version(api: Api, world: World):
    """While versions come and go, each answer's scores are those of the version it names."""
    factor = {1: 1.0}
    for number in range(2, 8):
        factor[number] = float(number)
        scores = [[number * score for score in row] for row in SCORES]
        world.register(world.publish(number, scores, item_degrees=POPULARITY))
    answers: list[dict[str, Any]] = []
    done = threading.Event()

    def keep_asking() -> None:
        while not done.is_set():
            answers.append(ask(api))

    askers = [threading.Thread(target=keep_asking) for _ in range(4)]
    for asker in askers:
        asker.start()
    for number in (2, 3, 4, 5, 6, 7, 2, 7):
        world.make_live(number)
        assert eventually(lambda number=number: bool(answers) and answers[-1]["model_version"] == number)
    done.set()
    for asker in askers:
        asker.join(20)

    assert {answer["model_version"] for answer in answers} >= {2, 3, 4, 5, 6, 7}
    for answer in answers:
        expected = [factor[answer["model_version"]] * score for score in (6, 4, 3, 2, 1)]
        assert [item["score"] for item in answer["items"]] == expected


@pytest.fixture
def plain_api(api: Api, database_url: str) -> Api:
    if not database_url.startswith("sqlite"):
        pytest.skip("the description does not depend on the database")
    return api


def test_the_description_names_every_parameter(plain_api: Api):
    """What is read by hand is described as what the framework reads."""
    paths = plain_api.client.get("/openapi.json").json()["paths"]

    recommend = paths["/v1/users/{user_id}/recommendations"]["get"]
    similar = paths["/v1/items/{item_id}/similar"]["get"]
    named = {(each["name"], each["in"], each["required"]) for each in recommend["parameters"]}
    assert named == {
        ("user_id", "path", True),
        ("n", "query", False),
        ("exclude_seen", "query", False),
        ("exclude", "query", False),
        ("if-none-match", "header", False),
    }
    assert [each["name"] for each in similar["parameters"]] == ["item_id", "n", "if-none-match"]
    assert recommend["security"] == similar["security"] == [{"API key": ["recommend"]}]
    assert recommend["responses"].keys() >= {"200", "304", "401", "403", "422", "503"}


def test_the_database_of_these_tests_is_the_one_asked_for(database: Database, database_url: str):
    """Both databases are really used."""
    assert database.is_sqlite == database_url.startswith("sqlite")
