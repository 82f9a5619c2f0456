"""Searches for what is left, over real HTTP."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, update

from service.platform import tables
from service.platform.auth import Scope
from service.residue import service
from service.residue.schemas import ErasureResidue
from tests.api.conftest import Api

pytestmark = pytest.mark.P8

USER, ITEM = "somebody-4711", "film-000012"
AT = datetime(2026, 11, 21, tzinfo=UTC)


def erased(api: Api) -> tuple[str, dict[str, object]]:
    """An erasure, and what its caller keeps."""
    pair = {"user_id": USER, "item_id": ITEM}
    accepted = api.client.post("/v1/erasures", json={"interactions": [pair], "users": [USER]}).json()
    return accepted["id"], {"salt": accepted["salt"], "interactions": [pair], "users": [USER]}


def test_before_a_search_it_says_by_when(api: Api) -> None:
    """The purge is still to come."""
    erasure, _ = erased(api)
    body = api.client.get(f"/v1/erasures/{erasure}/residue").json()

    ErasureResidue.model_validate(body)
    assert (body["status"], body["report"]) == ("not_searched_yet", None)
    assert body["due_at"] == api.client.get(f"/v1/erasures/{erasure}").json()["due_at"]


def test_the_search_of_its_compaction_is_told_of_it_alone(api: Api) -> None:
    """What is left of another erasure is another's."""
    (mine, kept), (other, _) = erased(api), erased(api)
    report = api.client.post(f"/v1/erasures/{mine}/residue", json=kept).json()["report"]
    for place in (place for store in report["stores"] for place in store["places"]):
        place["erasures"] = [other]
    compaction = {"id": "c-1", "trigger": "operator", "status": "running", "step": "scanning", "requested_at": AT}
    with api.database.write() as write:
        write.execute(insert(tables.compactions).values({**compaction, "facts": {"residue": report | {"left_of": 1}}}))
        write.execute(update(tables.erasures).values(compaction_id="c-1"))

    told, others = (api.client.get(f"/v1/erasures/{each}/residue").json() for each in (mine, other))
    assert (told["status"], told["report"]["present"]) == ("searched", False)
    assert other not in str(told)
    assert "left_of" not in told["report"]
    assert others["report"]["present"]
    ErasureResidue.model_validate(others)


def test_a_search_now_finds_what_is_there(both: Api) -> None:
    """On both databases; before the purge it is all there, and no id is told."""
    erasure, kept = erased(both)
    answer = both.client.post(f"/v1/erasures/{erasure}/residue", json=kept)
    report = answer.json()["report"]

    assert answer.status_code == 200, answer.text
    ErasureResidue.model_validate(answer.json())
    columns = report["stores"][0]
    assert (columns["store"], columns["verdict"]) == ("columns", "PRESENT")
    assert {"erasures.salt", "erasure_targets"} <= {place["place"] for place in columns["places"]}
    assert report["present"]
    assert not [each for each in (USER, ITEM, str(kept["salt"])) if each in answer.text]
    assert answer.headers["Cache-Control"] == "private, no-store"


@pytest.mark.parametrize(
    "change", [{"salt": "00" * 32}, {"users": []}, {"users": [USER, "another"]}, {"interactions": []}]
)
def test_what_does_not_open_the_commitment_is_searched_for_by_nobody(api: Api, change: dict[str, object]) -> None:
    """The search is no oracle for guesses."""
    erasure, kept = erased(api)
    answer = api.client.post(f"/v1/erasures/{erasure}/residue", json=kept | change)

    assert (answer.status_code, answer.json()["code"]) == (422, "commitment_mismatch")
    assert USER not in answer.text
    assert str(kept["salt"]) not in answer.text


@pytest.mark.parametrize("salt", ["", "zz" * 32, "A1" * 32, 7, None])
def test_what_is_no_salt_is_refused(api: Api, salt: object) -> None:
    """Without being repeated."""
    erasure, kept = erased(api)
    answer = api.client.post(f"/v1/erasures/{erasure}/residue", json=kept | {"salt": salt})

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/salt")


def test_one_search_runs_at_a_time(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second caller is told when to come back; the next search runs."""
    erasure, kept = erased(api)
    path = f"/v1/erasures/{erasure}/residue"
    assert service._searching.acquire(blocking=False)
    try:
        answer = api.client.post(path, json=kept)
    finally:
        service._searching.release()

    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (429, "search_under_way", "15")
    assert api.client.post(path, json=kept).status_code == 200
    monkeypatch.setattr(service, "SEARCH_SECONDS", 0.0)
    report = api.client.post(path, json=kept).json()["report"]
    assert {store["verdict"] for store in report["stores"]} == {"NOT_CHECKED"}


def test_only_who_may_see_an_erasure_may_search(api: Api) -> None:
    """Its label, officers, admins."""
    erasure, kept = erased(api)
    path = f"/v1/erasures/{erasure}/residue"

    for scope, status in ((Scope.OFFICER, 200), (Scope.ERASE, 404), (Scope.READ, 403)):
        assert api.client.get(path, headers=api.key(scope)).status_code == status, scope
        assert api.client.post(path, json=kept, headers=api.key(scope)).status_code == status, scope
    assert api.client.get("/v1/erasures/none/residue").json()["code"] == "erasure_not_found"
