"""REST of compactions."""

from typing import Annotated, Any
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Path, Query, Response

from service.compaction import service
from service.compaction.problems import CompactionNotCancellable, CompactionNotFound
from service.compaction.repository import Compaction
from service.compaction.schemas import CompactionPage, CompactionRequest, CompactionState
from service.compaction.views import PATH, compaction_body, path_of
from service.models.problems import NoBase
from service.platform.dependencies import Admin, Auditor, Services, ServicesDep
from service.platform.ids import ERASURE_ID
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

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=GuardedRoute)

_ALWAYS = (Unauthenticated, ScopeMissing, InvalidRequest, StorageUnavailable)

Cursor = Annotated[str | None, Query(max_length=200, description="From the `next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=200, description="Most compactions of one page.")]
CompactionId = Annotated[str, Path(pattern=ERASURE_ID, examples=["0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e"])]

_LINKS = {
    "state": {"operationId": "get_compaction", "parameters": {"compaction_id": "$response.body#/id"}},
    "cancel": {"operationId": "cancel_compaction", "parameters": {"compaction_id": "$response.body#/id"}},
}
_LOCATION = {"Location": {"description": "Where the compaction is.", "schema": {"type": "string"}}}


@router.post(
    "/compactions",
    operation_id="start_compaction",
    status_code=202,
    response_model=CompactionState,
    responses=problems(*_ALWAYS, NoBase, StorageFull)
    | {
        200: {
            "description": "One waits or runs already: this one.",
            "model": CompactionState,
            "headers": _LOCATION,
            "links": _LINKS,
        },
        202: {"description": "It begins as soon as the compactor can.", "headers": _LOCATION, "links": _LINKS},
    },
    summary="Start a compaction",
)
async def start_compaction(services: ServicesDep, admin: Admin, body: CompactionRequest | None = None) -> Response:
    """Train a base from scratch on what remains, move to it, purge what was erased, and complete the erasures.

    It runs beside serving, in a process of its own (`expunge compactor`). There is never a second one.
    """
    compaction, made = await service.request(services, admin.key_id)
    headers = {"Location": path_of(compaction.id)}
    return _json(await _body_of(services, compaction), 202 if made else 200, headers)


@router.get(
    "/compactions",
    operation_id="list_compactions",
    response_model=CompactionPage,
    responses=problems(*_ALWAYS, InvalidCursor),
    summary="List the compactions",
)
async def list_compactions(
    services: ServicesDep, _auditor: Auditor, cursor: Cursor = None, limit: Limit = 50
) -> Response:
    """Every compaction that was ever asked for, the newest first."""
    found, following = await service.page(services, cursor, limit)
    following = following and f"{PATH}?{urlencode({'cursor': following, 'limit': limit})}"
    return _json({"compactions": [await _body_of(services, each) for each in found], "next": following})


@router.get(
    "/compactions/{compaction_id}",
    operation_id="get_compaction",
    response_model=CompactionState,
    responses=problems(*_ALWAYS, CompactionNotFound),
    summary="Show a compaction",
)
async def get_compaction(compaction_id: CompactionId, services: ServicesDep, _auditor: Auditor) -> Response:
    """How far a compaction is, when each step began, what its gate measured, and what it waits for."""
    return _json(await _body_of(services, await service.get(services, compaction_id)))


@router.delete(
    "/compactions/{compaction_id}",
    operation_id="cancel_compaction",
    response_model=CompactionState,
    responses=problems(*_ALWAYS, CompactionNotFound, CompactionNotCancellable),
    summary="Cancel a compaction",
)
async def cancel_compaction(compaction_id: CompactionId, services: ServicesDep, _admin: Admin) -> Response:
    """Cancel a compaction before its step `moving`: what it has made is taken away, and nothing that serves changes.

    Erasures wait for the next one, which a trigger may start after a pause.
    """
    return _json(await _body_of(services, await service.cancel(services, compaction_id)))


async def _body_of(services: Services, compaction: Compaction) -> dict[str, Any]:
    return compaction_body(compaction, await service.obstacle(services, compaction))


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")
