"""REST of interactions: new feedback, and subject access."""

from typing import Annotated
from urllib.parse import quote, urlencode

import orjson
from fastapi import APIRouter, Query, Response

from service.interactions import service
from service.interactions.problems import AllSuppressed
from service.interactions.schemas import NewInteractions, RecordedInteractions, UserInteractions
from service.platform.clock import rfc3339
from service.platform.cursor import Cursor
from service.platform.dependencies import Reader, ServicesDep, Writer
from service.platform.ids import PathUserId
from service.platform.problem import (
    InvalidCursor,
    InvalidRequest,
    ScopeMissing,
    StorageFull,
    StorageUnavailable,
    Unauthenticated,
    problems,
)
from service.platform.routing import GuardedRoute

router = APIRouter(prefix="/v1", tags=["interactions"], route_class=GuardedRoute)

_ALWAYS = (Unauthenticated, ScopeMissing, InvalidRequest, StorageUnavailable)
Limit = Annotated[int, Query(ge=1, le=1000, description="Most interactions of one page.")]


@router.post(
    "/interactions",
    operation_id="record_interactions",
    response_model=RecordedInteractions,
    responses=problems(*_ALWAYS, AllSuppressed, StorageFull),
)
async def record_interactions(services: ServicesDep, _writer: Writer, body: NewInteractions) -> Response:
    """Record new feedback. Users and items that are new are registered; what an erasure covers is refused."""
    outcome = await service.record(services, [(pair.user_id, pair.item_id) for pair in body.interactions])
    refused = [{"index": place, "code": "suppressed"} for place in outcome.refused]
    return _json({"recorded": outcome.recorded, "duplicates": outcome.duplicates, "refused": refused})


@router.get(
    "/users/{user_id}/interactions",
    operation_id="list_user_interactions",
    response_model=UserInteractions,
    responses=problems(*_ALWAYS, InvalidCursor),
)
async def list_user_interactions(
    services: ServicesDep, _reader: Reader, user_id: PathUserId, cursor: Cursor = None, limit: Limit = 100
) -> Response:
    """What is recorded of a user (subject access). A user who is not known has nothing, as has one who is erased."""
    found, following = await service.of_user(services, user_id, cursor, limit)
    shown = [{"item_id": own.item_id, "title": own.title, "recorded_at": rfc3339(own.recorded_at)} for own in found]
    return _json({"user_id": user_id, "interactions": shown, "next": _next(user_id, following, limit)})


def _json(body: dict[str, object]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")


def _next(user_id: str, cursor: str | None, limit: int) -> str | None:
    if cursor is None:
        return None
    return f"/v1/users/{quote(user_id, safe='')}/interactions?{urlencode({'cursor': cursor, 'limit': limit})}"
