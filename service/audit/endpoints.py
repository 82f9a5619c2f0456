"""REST of the audit log."""

from typing import Annotated
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Query, Response

from service.audit import service
from service.audit.repository import AuditRow
from service.audit.schemas import AuditPage
from service.platform.dependencies import Auditor, ServicesDep
from service.platform.ids import ERASURE_ID
from service.platform.problem import InvalidCursor, InvalidRequest, ScopeMissing, Unauthenticated, problems
from service.platform.routing import GuardedRoute

router = APIRouter(prefix="/v1/audit", tags=["audit"], route_class=GuardedRoute)

PATH = "/v1/audit/entries"
Cursor = Annotated[str | None, Query(max_length=200, description="From the `next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most entries of one page.")]
ErasureId = Annotated[str | None, Query(pattern=ERASURE_ID, description="Only the entries of this erasure.")]


@router.get(
    "/entries",
    response_model=AuditPage,
    responses=problems(Unauthenticated, ScopeMissing, InvalidRequest, InvalidCursor),
    summary="Read the log",
)
async def list_entries(
    services: ServicesDep,
    _auditor: Auditor,
    cursor: Cursor = None,
    limit: Limit = 100,
    erasure_id: ErasureId = None,
) -> Response:
    """Every transition in order, the oldest first; append-only, and without the id of any person."""
    rows, following = await service.page(services, cursor, limit, erasure_id)
    body = {"entries": [_entry(row) for row in rows], "next": _link(following, limit, erasure_id)}
    return Response(orjson.dumps(body), media_type="application/json")


def _entry(row: AuditRow) -> dict[str, object]:
    document: dict[str, object] = orjson.loads(row.canonical)
    return document | {"leaf_hash": row.leaf_hash.hex()}


def _link(cursor: str | None, limit: int, erasure_id: str | None) -> str | None:
    if cursor is None:
        return None
    query = {"cursor": cursor, "limit": limit} | ({} if erasure_id is None else {"erasure_id": erasure_id})
    return f"{PATH}?{urlencode(query)}"
