"""REST of the audit log."""

import base64
from typing import Annotated, Any, cast
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from service.audit import keys, proofs, repository, service
from service.audit.checkpoints import CheckpointPublisher
from service.audit.repository import AuditRow
from service.audit.schemas import AuditPage, ConsistencyProof, InclusionProof, LogKeys, StampedCheckpoint
from service.audit.tree import LogDamaged
from service.platform.clock import rfc3339
from service.platform.cursor import Cursor
from service.platform.dependencies import Auditor, ServicesDep
from service.platform.ids import ERASURE_ID
from service.platform.problem import (
    InvalidCursor,
    InvalidRequest,
    NotFound,
    ScopeMissing,
    Unauthenticated,
    problems,
)
from service.platform.routing import GuardedRoute

router = APIRouter(prefix="/v1/audit", tags=["audit"], route_class=GuardedRoute)

PATH = "/v1/audit/entries"
Limit = Annotated[int, Query(ge=1, le=1000, description="Most entries of one page.")]
ErasureId = Annotated[str | None, Query(pattern=ERASURE_ID, description="Only the entries of this erasure.")]


Index = Annotated[int, Query(ge=0, description="Place of the entry in the log, from 0: its `seq` less one.")]
Size = Annotated[int | None, Query(ge=1, description="Size of the tree; by default that of the latest head.")]
NOTE = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
_SIGNED = problems(Unauthenticated, ScopeMissing, InvalidRequest, LogDamaged)
_FOR_GOOD = {"Cache-Control": "private, max-age=31536000, immutable"}


async def publisher_of(request: Request) -> CheckpointPublisher:
    """What signs the log of the application that a request came to."""
    return cast(CheckpointPublisher, request.app.state.publisher)


Publisher = Annotated[CheckpointPublisher, Depends(publisher_of)]


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


@router.get(
    "/checkpoint",
    response_class=Response,
    responses=_SIGNED | {200: {"description": "A signed note.", "content": {NOTE: {"schema": {"type": "string"}}}}},
    summary="The log's head, signed",
)
async def get_checkpoint(publisher: Publisher, _auditor: Auditor) -> Response:
    """Name, size and root of the log as it is now: a checkpoint as C2SP tlog-checkpoint has it, with cosignatures."""
    _, note = await publisher.latest()
    return Response(note, media_type=NOTE, headers={"Cache-Control": "no-cache"})


@router.get(
    "/timestamp",
    response_model=StampedCheckpoint,
    responses=problems(Unauthenticated, ScopeMissing, InvalidRequest, NotFound),
    summary="The latest head that has a time stamp",
)
async def get_timestamp(services: ServicesDep, _auditor: Auditor) -> Response:
    """A head of the log and a time stamp of its text (RFC 3161), which `openssl ts -verify` checks."""
    found = await services.database.run_read(repository.latest_timestamp)
    if found is None:
        raise NotFound
    return _json({"size": found.size, "checkpoint": found.note, "timestamp": _base64(found.timestamp)})


@router.get(
    "/tile/{level}/{name:path}",
    response_class=Response,
    responses=_SIGNED
    | problems(NotFound)
    | {200: {"description": "Hashes of 32 bytes, or a bundle of entries.", "content": {BYTES: {}}}},
    summary="A tile of the log",
)
async def get_tile(
    services: ServicesDep,
    publisher: Publisher,
    _auditor: Auditor,
    level: Annotated[str, Path(pattern="^(entries|0|[1-9]|[1-5][0-9]|6[0-3])$", examples=["0"])],
    name: Annotated[str, Path(max_length=60, examples=["x001/234"])],
) -> Response:
    """The layout of C2SP tlog-tiles: hashes of 256 leaves or nodes a tile, `entries` the entries themselves."""
    found = await proofs.tile(services.database, publisher, level, name)
    return Response(found, media_type=BYTES, headers=_FOR_GOOD)


@router.get(
    "/proofs/inclusion",
    response_model=InclusionProof,
    responses=_SIGNED,
    summary="That an entry is in the log",
)
async def prove_inclusion(
    services: ServicesDep, publisher: Publisher, _auditor: Auditor, index: Index, size: Size = None
) -> Response:
    """The inclusion proof of RFC 9162 (section 2.1.3) of one entry, with the signed head that it leads to."""
    proof = await proofs.inclusion(services.database, publisher, index, size)
    return _json(
        {
            "index": proof.index,
            "size": proof.size,
            "leaf_hash": _base64(proof.leaf_hash),
            "hashes": [_base64(each) for each in proof.hashes],
            "checkpoint": proof.checkpoint,
        }
    )


@router.get(
    "/proofs/consistency",
    response_model=ConsistencyProof,
    responses=_SIGNED,
    summary="That the log only grew",
)
async def prove_consistency(
    services: ServicesDep,
    publisher: Publisher,
    _auditor: Auditor,
    old_size: Annotated[int, Query(ge=0, description="Size of the older head.")],
    size: Size = None,
) -> Response:
    """The consistency proof of RFC 9162 (section 2.1.4) between two sizes of the log."""
    proof = await proofs.consistency(services.database, publisher, old_size, size)
    hashes = [_base64(each) for each in proof.hashes]
    return _json({"old_size": old_size, "size": proof.size, "hashes": hashes, "checkpoint": proof.checkpoint})


@router.get("/keys", response_model=LogKeys, responses=problems(InvalidRequest), summary="Who signs the log")
async def get_keys(publisher: Publisher) -> Response:
    """Every key that ever signed the log, as verifier keys and as JWKs. Public: it is what others check with.

    Take it once, over a connection that you trust, and keep it: a key that comes with what it is to verify proves
    nothing.
    """
    rows = await publisher.keys()
    return _json(
        {
            "origin": publisher.origin,
            "keys": [
                {
                    "vkey": row.vkey,
                    "since": rfc3339(row.since),
                    "until": None if row.until is None else rfc3339(row.until),
                    "jwk": keys.jwk(row),
                }
                for row in rows
            ],
        }
    )


@router.get("/jwks.json", responses=problems(InvalidRequest), summary="The same as a JWK set")
async def get_jwks(publisher: Publisher) -> Response:
    """A JWK set (RFC 7517) of every key that ever signed the log."""
    return _json({"keys": [keys.jwk(row) for row in await publisher.keys()]})


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _entry(row: AuditRow) -> dict[str, object]:
    document: dict[str, object] = orjson.loads(row.canonical)
    return document | {"leaf_hash": row.leaf_hash.hex()}


def _link(cursor: str | None, limit: int, erasure_id: str | None) -> str | None:
    if cursor is None:
        return None
    query = {"cursor": cursor, "limit": limit} | ({} if erasure_id is None else {"erasure_id": erasure_id})
    return f"{PATH}?{urlencode(query)}"
