"""REST of receipts."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from service.audit.endpoints import Publisher
from service.audit.tree import LogDamaged
from service.erasures.problems import ErasureNotFound
from service.platform.dependencies import ErasureReader, ServicesDep
from service.platform.ids import ERASURE_ID
from service.platform.problem import InvalidRequest, ScopeMissing, Unauthenticated, problems
from service.platform.routing import GuardedRoute
from service.receipts import service
from service.receipts.cose import MEDIA_TYPE as COSE
from service.receipts.cose import cose_receipt
from service.receipts.page import CSP, render

router = APIRouter(prefix="/v1/erasures/{erasure_id}", tags=["receipts"], route_class=GuardedRoute)

ErasureId = Annotated[str, Path(pattern=ERASURE_ID, examples=["0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e"])]
_PROBLEMS = problems(Unauthenticated, ScopeMissing, InvalidRequest, ErasureNotFound, LogDamaged)
_PAGE, _TEXT = "text/html; charset=utf-8", "text/plain; charset=utf-8"
_CHANGES = {"Cache-Control": "private, no-cache"}
_NO_SCRIPTS = {"Content-Security-Policy": CSP, "X-Content-Type-Options": "nosniff"}


def _answers(description: str, media_type: str, kind: str = "string") -> dict[int | str, dict[str, Any]]:
    """What a route answers, for its description: a document of this type, or a problem."""
    return _PROBLEMS | {200: {"description": description, "content": {media_type: {"schema": {"type": kind}}}}}


@router.get(
    "/receipt",
    response_class=Response,
    responses=_answers("A receipt (docs/receipt-format.md).", "application/json", "object"),
    summary="The receipt of an erasure",
)
@router.get(
    "/receipt.json",
    response_class=Response,
    responses=_answers("A receipt (docs/receipt-format.md).", "application/json", "object"),
    include_in_schema=False,
)
async def get_receipt(
    services: ServicesDep, publisher: Publisher, reader: ErasureReader, erasure_id: ErasureId
) -> Response:
    """What became of it, signed, with the entries of the log that say so and their proofs.

    There is one in every state; only that of an erasure that is erased or cancelled is final. It verifies offline:
    `expunge receipt verify FILE --key VKEY`, or by docs/receipt-format.md. A key gets the receipts of what the keys of
    its label asked for; scopes `officer` and `admin` get everybody's.
    """
    receipt = await service.issue(services, publisher, erasure_id, reader.sees_only)
    return Response(receipt.json(), media_type="application/json", headers=_CHANGES)


@router.get(
    "/receipt.html", response_class=Response, responses=_answers("A page.", _PAGE), summary="The same for people"
)
async def get_receipt_page(
    services: ServicesDep, publisher: Publisher, reader: ErasureReader, erasure_id: ErasureId
) -> Response:
    """One page in plain words, without scripts, that prints well."""
    receipt = await service.issue(services, publisher, erasure_id, reader.sees_only)
    return Response(render(receipt), media_type=_PAGE, headers=_CHANGES | _NO_SCRIPTS)


@router.get(
    "/receipt.tlog-proof",
    response_class=Response,
    responses=_answers("A C2SP tlog-proof.", _TEXT),
    summary="The log's proof alone",
)
async def get_log_proof(
    services: ServicesDep, publisher: Publisher, reader: ErasureReader, erasure_id: ErasureId
) -> Response:
    """That the log holds the latest entry about the erasure: a C2SP tlog-proof, the entry in its extra data."""
    receipt = await service.issue(services, publisher, erasure_id, reader.sees_only)
    return Response(str(service.log_proof(receipt)), media_type=_TEXT, headers=_CHANGES)


@router.get(
    "/receipt.cose",
    response_class=Response,
    responses=_answers("COSE_Sign1.", COSE),
    summary="The same as a COSE Receipt",
)
async def get_cose_receipt(
    services: ServicesDep, publisher: Publisher, reader: ErasureReader, erasure_id: ErasureId
) -> Response:
    """That the log holds the latest entry about the erasure, as RFC 9942 has it (RFC9162_SHA256, Ed25519)."""
    receipt = await service.issue(services, publisher, erasure_id, reader.sees_only)
    return Response(cose_receipt(receipt, publisher.key, erasure_id), media_type=COSE, headers=_CHANGES)
