"""REST of erasures."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Path, Query, Response, Security
from starlette.requests import Request

from service.erasures import approval, decisions, service
from service.erasures.parameters import ErasureParameters, id_of, openapi_parameters, parameters_of
from service.erasures.problems import (
    ApprovalNotAwaited,
    ApprovedByAsker,
    BacklogFull,
    BeingErased,
    DecisionNotPossible,
    ErasureNotFound,
    ErasureOver,
    ExtensionTooLate,
    ExtensionUsed,
    IdempotencyKeyReused,
    ModeUnavailable,
    NoTargets,
    NotCancellable,
    TooManyTargets,
    UnderLegalHold,
)
from service.erasures.repository import Erasure
from service.erasures.schemas import (
    ErasureAccepted,
    ErasureChange,
    ErasurePage,
    ErasurePreview,
    ErasureReached,
    ErasureRequest,
    ErasureSearch,
    ErasureState,
    Status,
)
from service.erasures.targets import Subjects
from service.erasures.views import PATH, accepted_body, path_of, preview_body, reached_body, state_body
from service.platform.auth import Principal, Scope, require
from service.platform.clock import rfc3339
from service.platform.cursor import Cursor
from service.platform.dependencies import Eraser, ErasureReader, Officer, Services, ServicesDep, services_of
from service.platform.ids import ERASURE_ID
from service.platform.json_types import GivenInstant
from service.platform.key_limits import KeyLimits, RateLimited, TargetQuotaExceeded
from service.platform.problem import (
    FieldError,
    InvalidCursor,
    InvalidRequest,
    ScopeMissing,
    StorageFull,
    StorageUnavailable,
    Unauthenticated,
    problems,
)
from service.platform.routing import GuardedRoute, LeanRoute

lean = APIRouter(prefix="/v1", tags=["erasures"], route_class=LeanRoute)
router = APIRouter(prefix="/v1", tags=["erasures"], route_class=GuardedRoute)

_ERASER = require(Scope.ERASE)
_GUARDS = [
    Security(_ERASER, scopes=[Scope.ERASE.value])
]  # asked once more for the key's id: a key that is known takes 1 us

RETRY_AFTER_S = "1"  # a batch is under way within its window, so asking earlier is of no use
_ALWAYS = (Unauthenticated, ScopeMissing, InvalidRequest, RateLimited, StorageUnavailable)

ErasureId = Annotated[str, Path(pattern=ERASURE_ID, examples=["0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e"])]
Limit = Annotated[int, Query(ge=1, le=500, description="Most erasures of one page.")]

_ACCEPTING: dict[str, Any] = {
    "status_code": 202,
    "response_model": ErasureAccepted,
    "responses": problems(
        *(*_ALWAYS, NoTargets, TooManyTargets, ModeUnavailable, IdempotencyKeyReused),
        *(BacklogFull, TargetQuotaExceeded, StorageFull),
    )
    | {
        200: {
            "description": "The state reached while waiting (`Prefer: wait=N`), or found by an Idempotency-Key.",
            "model": ErasureReached,
        },
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


@lean.delete(
    "/users/{user_id}/interactions/{item_id}",
    dependencies=_GUARDS,
    operation_id="erase_interaction",
    openapi_extra=openapi_parameters("user_id", "item_id"),
    **_ACCEPTING,
)
async def erase_interaction(request: Request) -> Response:
    """Erase one interaction. It is hidden when this answers, whether or not it was ever recorded."""
    pair = (id_of(request, "user_id"), id_of(request, "item_id"))
    return await _accept(request, await _ERASER(request), Subjects(interactions=(pair,)), parameters_of(request))


@lean.delete(
    "/users/{user_id}",
    dependencies=_GUARDS,
    operation_id="erase_user",
    openapi_extra=openapi_parameters("user_id"),
    **_ACCEPTING,
)
async def erase_user(request: Request) -> Response:
    """Erase a user: all interactions, recorded or yet to come."""
    subjects = Subjects(users=(id_of(request, "user_id"),))
    return await _accept(request, await _ERASER(request), subjects, parameters_of(request))


@lean.delete(
    "/items/{item_id}",
    dependencies=_GUARDS,
    operation_id="erase_item",
    openapi_extra=openapi_parameters("item_id"),
    **_ACCEPTING,
)
async def erase_item(request: Request) -> Response:
    """Erase an item: nobody is recommended it any more, and its influence is forgotten."""
    subjects = Subjects(items=(id_of(request, "item_id"),))
    return await _accept(request, await _ERASER(request), subjects, parameters_of(request))


@router.post("/erasures", operation_id="create_erasure", openapi_extra=openapi_parameters(), **_ACCEPTING)
async def create_erasure(request: Request, eraser: Eraser, body: ErasureRequest) -> Response:
    """Erase many targets with one request: one status, one deadline, one entry in the log."""
    asked = replace(parameters_of(request), mode=body.mode, reason=body.reason)
    return await _accept(request, eraser, _subjects(body), asked)


@router.post(
    "/erasures/preview",
    operation_id="preview_erasure",
    response_model=ErasurePreview,
    responses=problems(*_ALWAYS, NoTargets, TooManyTargets, ModeUnavailable),
)
async def preview_erasure(services: ServicesDep, eraser: Eraser, body: ErasureRequest) -> Response:
    """How far the same body would reach if it were sent to `POST /v1/erasures` now.

    Nothing is stored: no erasure, no suppression, no entry in the log.
    """
    wanted = service.NewErasure(_subjects(body), body.mode, None, eraser.key_id)
    return _json(preview_body(body.mode, wanted.subjects, await service.preview(services, wanted)))


@router.get(
    "/erasures/{erasure_id}",
    operation_id="get_erasure",
    response_model=ErasureState,
    responses=problems(*_ALWAYS, ErasureNotFound),
)
async def get_erasure(services: ServicesDep, reader: ErasureReader, erasure_id: ErasureId) -> Response:
    """How far an erasure is: each stage's time, versions, what the gate measured, and what it waits for.

    A key is shown what the keys of its label asked for; scopes `officer` and `admin` are shown everybody's.
    """
    erasure = await service.get(services, erasure_id, reader.sees_only)
    waits = await service.waits(services, [erasure])
    return _json(state_body(erasure, waits.get(erasure.id)))


@router.get(
    "/erasures",
    operation_id="list_erasures",
    response_model=ErasurePage,
    responses=problems(*_ALWAYS, InvalidCursor),
)
async def list_erasures(
    services: ServicesDep,
    reader: ErasureReader,
    status: Annotated[Status | None, Query(description="Only erasures of this status.")] = None,
    due_before: Annotated[
        GivenInstant | None,
        Query(description="Only erasures that are still to be erased, by a `due_at` before this instant (RFC 3339)."),
    ] = None,
    legal_hold: Annotated[bool | None, Query(description="Only erasures that are, or are not, under hold.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """The erasures that the keys of this label asked for, the newest first; with scope `officer` or `admin` all."""
    found, following = await service.page(
        services, status, cursor, limit, reader.sees_only, due_before=due_before, held=legal_hold
    )
    filters = {
        "status": status,
        "due_before": None if due_before is None else rfc3339(due_before),
        "legal_hold": None if legal_hold is None else str(legal_hold).lower(),
    }
    return await _page(services, found, _next(PATH, following, limit, **filters))


@router.post(
    "/erasures/search",
    operation_id="search_erasures",
    response_model=ErasurePage,
    responses=problems(*_ALWAYS, InvalidCursor),
)
async def search_erasures(
    services: ServicesDep, reader: ErasureReader, body: ErasureSearch, cursor: Cursor = None, limit: Limit = 50
) -> Response:
    """Every erasure that names a user or an item, or that covers an interaction, the newest first.

    A key finds what the keys of its label asked for; scopes `officer` and `admin` find everybody's. The ids stand in
    the body alone. For the next page send the same body to the path in `next`. Cancelled erasures hide nothing and are
    not found.
    """
    if body.user_id is None and body.item_id is None:
        raise InvalidRequest(errors=[FieldError("#", "It names neither a user nor an item.")])
    found, following = await service.search(services, body.user_id, body.item_id, cursor, limit, reader.sees_only)
    return await _page(services, found, _next(f"{PATH}/search", following, limit))


@router.patch(
    "/erasures/{erasure_id}",
    operation_id="change_erasure",
    response_model=ErasureState,
    responses=problems(
        *(*_ALWAYS, ErasureNotFound, ErasureOver, BeingErased),
        *(ExtensionUsed, ExtensionTooLate, DecisionNotPossible, StorageFull),
    ),
)
async def change_erasure(
    services: ServicesDep, _officer: Officer, erasure_id: ErasureId, body: ErasureChange
) -> Response:
    """Extend its deadline, decide not to erase all of it, or set or lift a legal hold: one of them a call.

    None of them shows anything again: what an erasure hides stays hidden. Each stands in the log and in the receipt, by
    its ground and never in words.
    """
    if len(body.model_fields_set) != 1 or body == ErasureChange():
        raise InvalidRequest(errors=[FieldError("#", "It takes one of extension, decision and legal_hold.")])
    if body.extension is not None:
        more = body.extension
        erasure = await decisions.extend(services, erasure_id, more.until, more.ground, more.reason)
    elif body.decision is not None:
        erasure = await decisions.decide(services, erasure_id, body.decision.outcome, body.decision.ground)
    elif body.legal_hold:
        erasure = await decisions.set_hold(services, erasure_id)
    else:
        erasure = await decisions.lift_hold(services, erasure_id)
    waits = await service.waits(services, [erasure])
    return _json(state_body(erasure, waits.get(erasure.id)))


@router.delete(
    "/erasures/{erasure_id}",
    operation_id="cancel_erasure",
    response_model=ErasureState,
    responses=problems(*_ALWAYS, ErasureNotFound, NotCancellable),
)
async def cancel_erasure(services: ServicesDep, eraser: Eraser, erasure_id: ErasureId) -> Response:
    """Cancel an erasure that is only accepted, or awaits approval: what it alone had hidden is shown again.

    Only a key of the label that asked for it does so, or one with scope `admin`.
    """
    return _json(state_body(await service.cancel(services, erasure_id, eraser.cancels_only)))


@router.post(
    "/erasures/{erasure_id}/approval",
    operation_id="approve_erasure",
    response_model=ErasureState,
    responses=problems(*_ALWAYS, ApprovedByAsker, ErasureNotFound, ApprovalNotAwaited, UnderLegalHold),
)
async def approve_erasure(services: ServicesDep, officer: Officer, erasure_id: ErasureId) -> Response:
    """Approve an erasure of so many interactions that it waits for a second key (`waiting_for.code`: `approval`).

    By a key of another label than the one that asked for it. The model then forgets it as any other.
    """
    return _json(state_body(await approval.approve(services, erasure_id, officer)))


@router.delete(
    "/erasures/{erasure_id}/approval",
    operation_id="refuse_erasure",
    response_model=ErasureState,
    responses=problems(*_ALWAYS, ErasureNotFound, ApprovalNotAwaited, UnderLegalHold),
)
async def refuse_erasure(services: ServicesDep, officer: Officer, erasure_id: ErasureId) -> Response:
    """Refuse it: the erasure is cancelled, and what it alone had hidden is shown again."""
    return _json(state_body(await approval.refuse(services, erasure_id, officer)))


def _subjects(body: ErasureRequest) -> Subjects:
    return Subjects.of([(pair.user_id, pair.item_id) for pair in body.interactions], body.users, body.items)


async def _accept(request: Request, eraser: Principal, subjects: Subjects, asked: ErasureParameters) -> Response:
    services = services_of(request)
    mode_from = "#/mode" if request.method == "POST" else "query/mode"
    wanted = service.NewErasure(
        *(subjects, asked.mode, asked.reason, eraser.key_id), asked.idempotency_key, mode_from, eraser.owner
    )
    erasure, replayed = await service.accept(services, wanted, _charge(request, eraser))
    headers = {"Location": path_of(erasure.id)}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    if asked.wait_s is not None:
        headers["Preference-Applied"] = f"wait={asked.wait_s}"
        reached = await service.wait(services, erasure.id, asked.wait_s)
        erasure = reached or erasure
    if erasure.status != "accepted":
        waits = await service.waits(services, [erasure])
        status = 202 if erasure.awaits_approval and asked.wait_s is None and not replayed else 200
        return _json(reached_body(erasure, waits.get(erasure.id), replayed=replayed), headers, status)
    headers["Retry-After"] = RETRY_AFTER_S
    return Response(orjson.dumps(accepted_body(erasure, replayed)), 202, headers, "application/json")


def _charge(request: Request, eraser: Principal) -> service.Charge | None:
    limits: KeyLimits | None = request.app.state.authenticator.limits
    return None if limits is None else partial(limits.count_targets, request.scope, eraser.owner)


def _json(body: dict[str, Any], headers: dict[str, str] | None = None, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")


async def _page(services: Services, found: Sequence[Erasure], following: str | None) -> Response:
    waits = await service.waits(services, found)
    bodies = [state_body(erasure, waits.get(erasure.id)) for erasure in found]
    return _json({"erasures": bodies, "next": following})


def _next(path: str, cursor: str | None, limit: int, **filters: str | None) -> str | None:
    if cursor is None:
        return None
    query = {"cursor": cursor, "limit": limit, **{name: value for name, value in filters.items() if value is not None}}
    return f"{path}?{urlencode(query)}"


router.routes[:0] = lean.routes
