"""GET /v1/data-map over real HTTP."""

import pytest

from service.data_map.schemas import DataMap
from service.data_map.service import document
from service.platform.auth import Scope
from tests.api.conftest import Api

PATH = "/v1/data-map"


@pytest.mark.parametrize("scope", [Scope.AUDIT, Scope.OFFICER, Scope.ADMIN])
def test_whoever_answers_for_privacy_reads_it(api: Api, scope: Scope) -> None:
    """The whole map, as its schema says."""
    answer = api.client.get(PATH, headers=api.key(scope))

    assert answer.status_code == 200
    assert answer.json() == document()
    DataMap.model_validate(answer.json())


@pytest.mark.parametrize("scope", [Scope.RECOMMEND, Scope.READ, Scope.WRITE, Scope.ERASE])
def test_others_do_not(api: Api, scope: Scope) -> None:
    """Where things lie is of no use to a product backend, and of some to a thief of its key."""
    answer = api.client.get(PATH, headers=api.key(scope))

    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


def test_it_takes_no_parameters(api: Api) -> None:
    """One that is not declared is refused."""
    answer = api.client.get(PATH, params={"user": "u1"})

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "query")


def test_without_a_key_it_is_closed(api: Api) -> None:
    """As everything that is not for everybody."""
    assert api.client.get(PATH, headers={"Authorization": ""}).status_code == 401
