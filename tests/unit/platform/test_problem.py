from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from service.platform.ids import ItemId, UserId
from service.platform.problem import (
    ERRORS_SHOWN,
    FieldError,
    InvalidRequest,
    NotFound,
    Problem,
    TooManyRequests,
    known_problems,
    problems,
)
from tests.unit.platform.conftest import Serve

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id"}

router = APIRouter(prefix="/v1")


class Pair(BaseModel):
    model_config = ConfigDict(extra="forbid")

    user_id: UserId
    item_id: ItemId


@router.post("/pairs", responses=problems(InvalidRequest))
async def pairs(pairs: list[Pair], n: Annotated[int, Query(ge=1, le=10)] = 1) -> int:
    return len(pairs)


@router.get("/teapot")
async def teapot() -> None:
    raise HTTPException(418, "ana@example.org")


@pytest.fixture
def client(serve: Serve) -> httpx.Client:
    return serve(router)


def check(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    """The shape that every refusal has."""
    body: dict[str, object] = response.json()
    assert response.status_code == body["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert body["code"] == code
    assert body["type"] == f"/problems/{code}"
    assert set(body) >= MEMBERS
    assert body["request_id"] == response.headers["X-Request-Id"]
    return body


def test_an_unknown_path_is_a_problem(client: httpx.Client):
    """404, without the path, which may hold an id."""
    body = check(client.get("/v1/users/ana"), 404, "not_found")

    assert "ana" not in str(body)


def test_a_method_that_is_not_taken_is_a_problem(client: httpx.Client):
    """405, with all the methods that are."""
    response = client.delete("/v1/pairs")

    check(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "OPTIONS, POST"


def test_fields_that_are_not_valid_are_named_and_not_repeated(client: httpx.Client):
    """422: a JSON pointer and a reason each."""
    response = client.post("/v1/pairs?n=11", json=[{"user_id": "ana\n", "item_id": 7}, {"user_id": "ben"}])

    body = check(response, 422, "invalid_request")
    assert body["errors"] == [
        {"pointer": "query/n", "detail": "Input should be less than or equal to 10"},
        {"pointer": "#/0/user_id", "detail": "An id holds no control characters."},
        {"pointer": "#/0/item_id", "detail": "Input should be a valid string"},
        {"pointer": "#/1/item_id", "detail": "Field required"},
    ]
    assert "ana" not in response.text
    assert "ben" not in response.text


def test_a_field_that_is_not_known_is_refused_without_its_name(client: httpx.Client):
    """The name is the caller's, and may be an id."""
    response = client.post("/v1/pairs", json=[{"user_id": "u", "item_id": "i", "ana@example.org": 1}])

    body = check(response, 422, "invalid_request")
    assert body["errors"] == [{"pointer": "#/0", "detail": "It has a field that is not known."}]


@pytest.mark.P10
def test_the_list_of_errors_is_bounded(client: httpx.Client):
    """And says how many there are."""
    response = client.post("/v1/pairs", json=[{}] * 30)

    body = check(response, 422, "invalid_request")
    assert len(body["errors"]) == ERRORS_SHOWN  # type: ignore[arg-type]
    assert "60 fields" in str(body["detail"])


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'["\xff"]', b"[" * 5000])
def test_a_body_that_is_no_json_is_a_problem(client: httpx.Client, content: bytes):
    """Never a 500."""
    response = client.post("/v1/pairs", content=content, headers={"Content-Type": "application/json"})

    assert response.status_code in {400, 422}
    check(response, response.status_code, "invalid_request" if response.status_code == 422 else "bad_request")


def test_a_lone_surrogate_is_refused(client: httpx.Client):
    """It could be written to no database."""
    content = rb'[{"user_id": "\ud800", "item_id": "i"}]'

    check(
        client.post("/v1/pairs", content=content, headers={"Content-Type": "application/json"}), 422, "invalid_request"
    )


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "nonsense"])
def test_a_body_of_another_type_is_a_problem(client: httpx.Client, media_type: str):
    """415, naming the type to send."""
    response = client.post("/v1/pairs", content=b"[]", headers={"Content-Type": media_type})

    assert "application/json" in str(check(response, 415, "unsupported_media_type")["detail"])


def test_an_error_of_the_framework_loses_its_text(client: httpx.Client):
    """Only what we wrote ourselves is said."""
    response = client.get("/v1/teapot")

    assert "ana@example.org" not in response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_every_problem_explains_itself(client: httpx.Client):
    """`type` leads to what it means and what to do."""
    for code, kind in known_problems().items():
        explained = client.get(f"/problems/{code}").json()
        assert explained["status"] == kind.status
        assert all(explained[member] for member in ("title", "meaning", "next_step"))

    check(client.get("/problems/none_such"), 404, "not_found")


def test_problem_codes_are_unique():
    """Two kinds under one code could not be told apart."""
    kinds = []
    waiting = [Problem]
    while waiting:
        kind = waiting.pop()
        kinds += kind.__subclasses__()
        waiting += kind.__subclasses__()

    assert len(kinds) == len({kind.code for kind in kinds}) == len(known_problems())


def test_a_problem_says_what_happened_and_what_to_do_next():
    """Detail, then the way on."""
    problem = NotFound("There is no erasure of this id.")

    assert str(problem) == f"There is no erasure of this id. {NotFound.next_step}"
    assert NotFound().detail.startswith("There is nothing at this address.")


def test_retry_after_is_at_least_a_second():
    """Whole seconds, never 0."""
    assert TooManyRequests(retry_after_s=0).headers == {"Retry-After": "1"}


def test_a_problem_bounds_its_errors():
    """Whoever makes it need not."""
    assert len(InvalidRequest(errors=[FieldError("#", "x")] * 100).errors) == ERRORS_SHOWN


def test_the_description_of_the_api_shows_problems(client: httpx.Client):
    """As they are sent; the framework's own error shape is not in it."""
    schema = client.get("/openapi.json").json()

    post = schema["paths"]["/v1/pairs"]["post"]["responses"]
    assert list(post["422"]["content"]) == ["application/problem+json"]
    assert list(post["default"]["content"]) == ["application/problem+json"]
    assert set(schema["components"]["schemas"]["ProblemBody"]["properties"]) == MEMBERS | {"errors"}
    assert "HTTPValidationError" not in str(schema)
