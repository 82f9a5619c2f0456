"""REST of models: versions, and the alias that says which one is live."""

import re
from typing import Annotated, Any
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Header, Path, Query, Response
from starlette.requests import Request

from service.models import service
from service.models.problems import (
    AliasMoved,
    AliasUnset,
    VersionDamaged,
    VersionFenced,
    VersionNotReady,
    VersionUnknown,
)
from service.models.repository import AliasRow
from service.models.schemas import Alias, Promotion, VersionDetail, VersionPage
from service.models.service import VersionFacts
from service.platform.clock import rfc3339
from service.platform.conditional import ANY, NOT_MODIFIED, none_match, strong_tags
from service.platform.cursor import Cursor
from service.platform.dependencies import Admin, Auditor, ServicesDep
from service.platform.problem import FieldError, InvalidCursor, InvalidRequest, ScopeMissing, Unauthenticated, problems
from service.platform.routing import GuardedRoute

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=GuardedRoute)

PATH = "/v1/models/versions"
_ALWAYS = (Unauthenticated, ScopeMissing, InvalidRequest)
_ETAG = re.compile(r'"v([1-9][0-9]{0,17})"')

Limit = Annotated[int, Query(ge=1, le=200, description="Most versions of one page.")]
Number = Annotated[int, Path(ge=1, le=2**63 - 1)]
IfMatch = Annotated[str | None, Header(description='The version that must be live now, as its ETag: `"v41"`.')]


@router.get(
    "/versions",
    operation_id="list_versions",
    response_model=VersionPage,
    responses=problems(*_ALWAYS, InvalidCursor),
    summary="List the versions",
)
async def list_versions(services: ServicesDep, _auditor: Auditor, cursor: Cursor = None, limit: Limit = 50) -> Response:
    """Every version ever published, the newest first; purged ones keep their manifest."""
    found, following = await service.page(services, cursor, limit)
    following = following and f"{PATH}?{urlencode({'cursor': following, 'limit': limit})}"
    return _json({"versions": [_summary(facts) for facts in found], "next": following})


@router.get(
    "/versions/{version}",
    operation_id="get_version",
    response_model=VersionDetail,
    responses=problems(*_ALWAYS, VersionUnknown),
    summary="Show a version",
)
async def get_version(version: Number, services: ServicesDep, _auditor: Auditor) -> Response:
    """A version's lineage, its manifest and the figures by which the gate judged it."""
    facts = await service.get(services, version)
    lineage = [
        {"version": row.version, "kind": row.kind, "status": row.status, "created_at": rfc3339(row.created_at)}
        for row in facts.lineage
    ]
    return _json(_summary(facts) | {"lineage": lineage, "gate": facts.row.gate, "manifest": facts.row.manifest})


@router.get(
    "/aliases/live",
    operation_id="get_live",
    response_model=Alias,
    responses=problems(*_ALWAYS, AliasUnset) | NOT_MODIFIED,
    summary="Show the live version",
)
async def get_live(request: Request, services: ServicesDep, _auditor: Auditor) -> Response:
    """Which version is live; its ETag is what If-Match takes, and If-None-Match."""
    answer = _alias(await service.alias(services, service.LIVE))
    etag = answer.headers["ETag"]
    if none_match(request.headers.getlist("if-none-match"), etag):
        return Response(status_code=304, headers={"ETag": etag})
    return answer


@router.put(
    "/aliases/live",
    operation_id="put_live",
    response_model=Alias,
    responses=problems(*_ALWAYS, VersionUnknown, VersionNotReady, VersionFenced, VersionDamaged, AliasMoved),
    summary="Make a version live",
)
async def put_live(body: Promotion, services: ServicesDep, _admin: Admin, if_match: IfMatch = None) -> Response:
    """Promote a version, or roll back to one: verified first, and fenced.

    A version that holds an interaction accepted for erasure and not forgotten in it is refused.
    """
    return _alias(await service.promote(services, body.version, _expected(if_match)))


def _expected(if_match: str | None) -> frozenset[int] | None:
    if if_match is None or if_match.strip() == ANY:
        return None
    named = [_ETAG.fullmatch(tag) for tag in strong_tags(if_match)]
    versions = frozenset(int(tag[1]) for tag in named if tag is not None)
    if not versions:
        detail = "If-Match names no version; weak tags never match."
        raise AliasMoved(detail, errors=[FieldError("header/If-Match", detail)])
    return versions


def _alias(row: AliasRow) -> Response:
    body = {"alias": row.name, "version": row.version, "moved_at": rfc3339(row.moved_at)}
    return _json(body, {"ETag": f'"v{row.version}"'})


def _summary(facts: VersionFacts) -> dict[str, Any]:
    row = facts.row
    return {
        "version": row.version,
        "kind": row.kind,
        "status": row.status,
        "base": row.base,
        "parent": row.parent,
        "aliases": facts.aliases,
        "erasures": row.manifest["requests"]["count"],
        "erasure_seq": row.erasure_seq,
        "created_at": rfc3339(row.created_at),
        "links": {"self": f"{PATH}/{row.version}", "base": f"{PATH}/{row.base}"},
    }


def _json(body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), media_type="application/json", headers=headers)
