"""REST of searches for what is left."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Response

from service.erasures.problems import ErasureNotFound
from service.erasures.targets import Subjects
from service.platform.dependencies import ErasureReader, ServicesDep
from service.platform.ids import ERASURE_ID
from service.platform.problem import BodyTooLarge, InvalidRequest, ScopeMissing, Unauthenticated, problems
from service.platform.routing import GuardedRoute
from service.residue import service
from service.residue.problems import CommitmentMismatch, SearchUnderWay
from service.residue.schemas import ErasureResidue, PresentedSubjects

router = APIRouter(prefix="/v1/erasures/{erasure_id}", tags=["receipts"], route_class=GuardedRoute)

ErasureId = Annotated[str, Path(pattern=ERASURE_ID, examples=["0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e"])]
_ALWAYS = (Unauthenticated, ScopeMissing, InvalidRequest, ErasureNotFound)
_CHANGES = {"Cache-Control": "private, no-store"}


@router.get("/residue", operation_id="get_residue", response_model=ErasureResidue, responses=problems(*_ALWAYS))
async def get_residue(services: ServicesDep, reader: ErasureReader, erasure_id: ErasureId) -> Response:
    """What the search found that followed its purge: per store GONE, PRESENT with the places, or NOT_CHECKED and why.

    Before its first search the status is `not_searched_yet`. A key is shown what the keys of its label asked for;
    scopes `officer` and `admin` are shown everybody's.
    """
    return _answer(await service.stored(services, erasure_id, reader.sees_only))


@router.post(
    "/residue",
    operation_id="search_residue",
    response_model=ErasureResidue,
    responses=problems(*_ALWAYS, BodyTooLarge, CommitmentMismatch, SearchUnderWay),
)
async def search_residue(
    services: ServicesDep, reader: ErasureReader, erasure_id: ErasureId, body: PresentedSubjects
) -> Response:
    """Search every store again, now, for whoever kept the salt and knows what the erasure named.

    What is presented is compared with the commitment first; it is neither stored nor logged. One search at a time, a
    minute long at most: what there was no time for is NOT_CHECKED. Before the erasure is erased, it is all PRESENT.
    """
    pairs = [(pair.user_id, pair.item_id) for pair in body.interactions]
    subjects = Subjects.of(pairs, body.users, body.items)
    salt = bytes.fromhex(body.salt)
    return _answer(await service.search(services, erasure_id, reader.sees_only, subjects, salt))


def _answer(body: dict[str, object]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json", headers=_CHANGES)
