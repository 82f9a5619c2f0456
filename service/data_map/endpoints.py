"""REST of the data map."""

import orjson
from fastapi import APIRouter, Response

from service.data_map import service
from service.data_map.schemas import DataMap
from service.platform.dependencies import Auditor
from service.platform.problem import InvalidRequest, ScopeMissing, Unauthenticated, problems
from service.platform.routing import GuardedRoute

router = APIRouter(prefix="/v1", tags=["audit"], route_class=GuardedRoute)

_BODY = orjson.dumps(service.document())


@router.get(
    "/data-map",
    response_model=DataMap,
    responses=problems(Unauthenticated, ScopeMissing, InvalidRequest),
    summary="Where a person's data can lie",
)
async def get_data_map(_auditor: Auditor) -> Response:
    """Each place that can hold a person's data, what it holds, when it goes, and what is not yet so.

    For scopes `audit`, `officer` and `admin`. It describes this release and holds nobody's data.
    """
    return Response(_BODY, media_type="application/json", headers={"Cache-Control": "private, no-cache"})
