"""The parameters of the hot path, read without the framework's own machinery.

Measured: the framework takes 180 us a request for the five of them, as much as the read, the scores and the ranking
together. The models below say what is valid, in requests and in the API's description alike.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast
from urllib.parse import parse_qs

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.requests import Request

from service.platform.ids import ItemId, PathItemId, PathUserId
from service.recommendations.schemas import EXCLUDE_MAX, N_MAX
from service.recommendations.service import RecommendationOptions

REMEMBERED = 512  # queries; most callers always send the same one or two
REMEMBERED_BYTES = 64


class SimilarQuery(BaseModel):
    """The query of GET /v1/items/{item_id}/similar."""

    n: int = Field(20, ge=1, le=N_MAX, description="Most items of the answer.")


class RecommendQuery(SimilarQuery):
    """The query of GET /v1/users/{user_id}/recommendations."""

    exclude_seen: bool = Field(True, description="Leave out what the user interacted with.")
    exclude: list[ItemId] = Field(
        [], max_length=EXCLUDE_MAX, description="Item ids to leave out; repeat the parameter for each."
    )


Query = TypeVar("Query", bound=SimilarQuery)

_LISTS = frozenset({"exclude"})
_USER_ID: TypeAdapter[str] = TypeAdapter(PathUserId)
_ITEM_ID: TypeAdapter[str] = TypeAdapter(PathItemId)


def user_id_of(request: Request) -> str:
    """The user id of a path; raises RequestValidationError."""
    return _id(_USER_ID, "user_id", request)


def item_id_of(request: Request) -> str:
    """The item id of a path; raises RequestValidationError."""
    return _id(_ITEM_ID, "item_id", request)


def ask_of(request: Request) -> RecommendationOptions:
    """What a query asks for; raises RequestValidationError."""
    query = cast(bytes, request.scope["query_string"])
    return _remembered(query) if len(query) <= REMEMBERED_BYTES else _ask(query)


def number_of(request: Request) -> int:
    """How many items a query asks for; raises RequestValidationError."""
    return _read(SimilarQuery, cast(bytes, request.scope["query_string"])).n


def described(path_parameter: str, query: type[SimilarQuery]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads these parameters."""
    id_schema = (_USER_ID if path_parameter == "user_id" else _ITEM_ID).json_schema()
    path = {"name": path_parameter, "in": "path", "required": True, "schema": id_schema}
    tag = {"name": "if-none-match", "in": "header", "required": False, "schema": {"type": "string"}}
    properties: Mapping[str, Any] = query.model_json_schema()["properties"]
    queries = [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": schema["description"]}
        for name, schema in properties.items()
    ]
    return {"parameters": [path, *queries, tag | {"description": "ETags of answers that the caller holds."}]}


def _ask(query: bytes) -> RecommendationOptions:
    read = _read(RecommendQuery, query)
    return RecommendationOptions(read.n, read.exclude_seen, tuple(read.exclude))


_remembered = lru_cache(REMEMBERED)(_ask)


def _read(kind: type[Query], query: bytes) -> Query:
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    values = {name: every if name in _LISTS else every[-1] for name, every in given.items()}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _refusal(error, "query") from None


def _id(adapter: TypeAdapter[str], name: str, request: Request) -> str:
    try:
        return adapter.validate_python(request.path_params[name])
    except ValidationError as error:
        raise _refusal(error, "path", name) from None


def _refusal(error: ValidationError, *where: str) -> RequestValidationError:
    errors = error.errors(include_url=False, include_input=False)
    return RequestValidationError([{**one, "loc": (*where, *one["loc"])} for one in errors])
