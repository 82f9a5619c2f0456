"""REST of erasures."""

import re
from typing import Annotated, Any
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Header, Path, Query, Response

from service.erasures import service
from service.erasures.problems import (
    BacklogFull,
    ErasureNotFound,
    IdempotencyKeyReused,
    ModeUnavailable,
    NoTargets,
    NotCancellable,
    TooManyTargets,
)
from service.erasures.repository import Erasure
from service.erasures.schemas import (
    ErasureAccepted,
    ErasurePage,
    ErasureReached,
    ErasureRequest,
    ErasureState,
    Reason,
    Status,
)
from service.erasures.service import Request
from service.erasures.targets import Mode, Subjects
from service.erasures.views import PATH, accepted_body, path_of, reached_body, state_body
from service.platform.dependencies import Eraser, Services, ServicesDep
from service.platform.ids import PathItemId, PathUserId
from service.platform.problem import (
    InvalidCursor,
    InvalidRequest,
    ScopeMissing,
    StorageFull,
    StorageUnavailable,
    Unauthenticated,
    problems,
)

router = APIRouter(prefix="/v1", tags=["erasures"])

RETRY_AFTER_S = "1"  # a batch is under way within its window, so asking earlier is of no use
_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:,|;|$)", re.IGNORECASE)
_ALWAYS = (Unauthenticated, ScopeMissing, InvalidRequest, StorageUnavailable)

IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=255, description="The same key and request again give the same erasure."),
]
Prefer = Annotated[
    str | None, Header(max_length=200, description="`wait=N`: wait up to N (at most 30) seconds for the model.")
]
ModeQuery = Annotated[Mode, Query(description="`dislike` where the live model offers it.")]
ReasonQuery = Annotated[Reason | None, Query(description="Kept with the erasure, never in the audit log.")]
ErasureId = Annotated[str, Path(max_length=36, examples=["0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e"])]
Cursor = Annotated[str | None, Query(max_length=200, description="From the `next` of the page before.")]

_ACCEPTING: dict[str, Any] = {
    "status_code": 202,
    "response_model": ErasureAccepted,
    "responses": problems(
        *_ALWAYS, NoTargets, TooManyTargets, ModeUnavailable, IdempotencyKeyReused, BacklogFull, StorageFull
    )
    | {
        200: {"description": "The state reached while waiting (`Prefer: wait=N`).", "model": ErasureReached},
        202: {
            "description": "Stored and hidden; the model forgets within seconds.",
            "headers": {
                "Location": {"description": "Where the erasure is.", "schema": {"type": "string"}},
                "Retry-After": {"description": "Seconds to wait before looking.", "schema": {"type": "integer"}},
            },
            "links": {
                "state": {"operationId": "get_erasure", "parameters": {"erasure_id": "$response.body#/id"}},
                "cancel": {"operationId": "cancel_erasure", "parameters": {"erasure_id": "$response.body#/id"}},
            },
        },
    },
}


@router.delete("/users/{user_id}/interactions/{item_id}", operation_id="erase_interaction", **_ACCEPTING)
async def erase_interaction(
    services: ServicesDep,
    eraser: Eraser,
    user_id: PathUserId,
    item_id: PathItemId,
    mode: ModeQuery = Mode.FORGET,
    reason: ReasonQuery = None,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Erase one interaction. It is hidden when this answers, whether or not it was ever recorded."""
    subjects = Subjects(interactions=((user_id, item_id),))
    return await _accept(services, Request(subjects, mode, reason, eraser.key_id, idempotency_key), prefer)


@router.delete("/users/{user_id}", operation_id="erase_user", **_ACCEPTING)
async def erase_user(
    services: ServicesDep,
    eraser: Eraser,
    user_id: PathUserId,
    mode: ModeQuery = Mode.FORGET,
    reason: ReasonQuery = None,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Erase a user: all interactions, recorded or yet to come."""
    request = Request(Subjects(users=(user_id,)), mode, reason, eraser.key_id, idempotency_key)
    return await _accept(services, request, prefer)


@router.delete("/items/{item_id}", operation_id="erase_item", **_ACCEPTING)
async def erase_item(
    services: ServicesDep,
    eraser: Eraser,
    item_id: PathItemId,
    mode: ModeQuery = Mode.FORGET,
    reason: ReasonQuery = None,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Erase an item: nobody is recommended it any more, and its influence is forgotten."""
    request = Request(Subjects(items=(item_id,)), mode, reason, eraser.key_id, idempotency_key)
    return await _accept(services, request, prefer)


@router.post("/erasures", operation_id="create_erasure", **_ACCEPTING)
async def create_erasure(
    services: ServicesDep,
    eraser: Eraser,
    body: ErasureRequest,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Erase many targets with one request: one status, one deadline, one entry in the log."""
    pairs = [(pair.user_id, pair.item_id) for pair in body.interactions]
    subjects = Subjects.of(pairs, body.users, body.items)
    return await _accept(services, Request(subjects, body.mode, body.reason, eraser.key_id, idempotency_key), prefer)


@router.get(
    "/erasures/{erasure_id}",
    operation_id="get_erasure",
    response_model=ErasureState,
    responses=problems(*_ALWAYS, ErasureNotFound),
)
async def get_erasure(services: ServicesDep, _eraser: Eraser, erasure_id: ErasureId) -> Response:
    """How far an erasure is: the time of each stage, the versions before and after, what the gate measured."""
    return _json(state_body(await service.get(services, erasure_id)))


@router.get(
    "/erasures",
    operation_id="list_erasures",
    response_model=ErasurePage,
    responses=problems(*_ALWAYS, InvalidCursor),
)
async def list_erasures(
    services: ServicesDep,
    _eraser: Eraser,
    status: Annotated[Status | None, Query(description="Only erasures of this status.")] = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Most erasures of one page.")] = 50,
) -> Response:
    """Erasures, the newest first."""
    found, following = await service.page(services, status, cursor, limit)
    return _json({"erasures": [state_body(erasure) for erasure in found], "next": _next(following, status, limit)})


@router.delete(
    "/erasures/{erasure_id}",
    operation_id="cancel_erasure",
    response_model=ErasureState,
    responses=problems(*_ALWAYS, ErasureNotFound, NotCancellable),
)
async def cancel_erasure(services: ServicesDep, _eraser: Eraser, erasure_id: ErasureId) -> Response:
    """Cancel an erasure that is only accepted: what it alone had hidden is shown again."""
    return _json(state_body(await service.cancel(services, erasure_id)))


async def _accept(services: Services, request: Request, prefer: str | None) -> Response:
    erasure = await service.accept(services, request)
    seconds = _wait_of(prefer)
    reached = None if seconds is None else await service.wait(services, erasure.id, seconds)
    applied = {} if seconds is None else {"Preference-Applied": f"wait={seconds}"}
    if reached is not None:
        return _json(reached_body(reached), {"Location": path_of(erasure.id), **applied})
    return _accepted(erasure, applied)


def _accepted(erasure: Erasure, applied: dict[str, str]) -> Response:
    headers = {"Location": path_of(erasure.id), "Retry-After": RETRY_AFTER_S, **applied}
    return Response(orjson.dumps(accepted_body(erasure)), 202, headers, "application/json")


def _wait_of(prefer: str | None) -> int | None:
    """The seconds that a Prefer header asks to wait, bounded; what it else prefers is not for us (RFC 7240)."""
    found = None if prefer is None else _WAIT.search(prefer)
    return None if found is None else min(int(found.group(1)), int(service.WAIT_MAX_S))


def _json(body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), headers=headers, media_type="application/json")


def _next(cursor: str | None, status: str | None, limit: int) -> str | None:
    if cursor is None:
        return None
    query = {"cursor": cursor, "limit": limit} | ({} if status is None else {"status": status})
    return f"{PATH}?{urlencode(query)}"
