"""`expunge due`, against a real service."""

import json

import pytest

from service.platform.auth import Scope
from tests.api.conftest import Api, api  # noqa: F401 - the fixture
from tests.cli.conftest import Run


@pytest.fixture
def where(api: Api) -> tuple[str, ...]:  # noqa: F811
    """Address and key of an officer."""
    key = api.key(Scope.OFFICER)["Authorization"].removeprefix("Bearer ")
    return ("--url", api.url, "--key", key)


def test_what_is_due_is_listed_by_day(api: Api, where: tuple[str, ...], run: Run) -> None:  # noqa: F811
    """Text and JSON; what is held is counted apart, what is refused is not in it."""
    ids = [api.client.delete(f"/v1/users/u{number}").json()["id"] for number in range(4)]
    api.client.patch(f"/v1/erasures/{ids[0]}", json={"legal_hold": True}).raise_for_status()
    refusal = {"decision": {"outcome": "refused", "ground": "17(3)(b)"}}
    api.client.patch(f"/v1/erasures/{ids[1]}", json=refusal).raise_for_status()

    told, document = run("due", *where), json.loads(run("due", "--json", "-", *where).out)

    assert told.status == 0, told.err
    assert ids[2] in told.out
    assert ids[0] not in told.out
    assert "2 erasures due within 31 days; 1 under legal hold, which are not due." in told.out
    days = document["days"]
    assert [each["id"] for day in days for each in day["erasures"]] == ids[2:]
    assert all(each["due_at"].startswith(day["date"]) for day in days for each in day["erasures"])
    assert (document["due"], document["overdue"], document["held"]) == (2, 0, [ids[0]])


def test_nothing_is_due_in_a_day(api: Api, where: tuple[str, ...], run: Run) -> None:  # noqa: F811
    """The promise is seven days."""
    api.client.delete("/v1/users/u1").raise_for_status()

    assert run("due", "--days", "1", *where).out == "0 erasures due within 1 day.\n"


def test_a_wrong_key_is_one_sentence(api: Api, run: Run) -> None:  # noqa: F811
    """And a status of its own."""
    ran = run("due", "--url", api.url, "--key", "exp_wrong")

    assert ran.status == 1
    assert ran.err.count("\n") == 1
