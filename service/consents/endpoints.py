"""REST of consents."""

import orjson
from fastapi import APIRouter, Response

from service.consents import service
from service.consents.problems import ErasureOpen, NoConsent
from service.consents.schemas import ConsentGiven, NewConsent
from service.erasures.targets import Subjects
from service.platform.dependencies import ServicesDep, Writer
from service.platform.key_limits import RateLimited
from service.platform.problem import (
    InvalidRequest,
    ScopeMissing,
    StorageFull,
    StorageUnavailable,
    Unauthenticated,
    problems,
)
from service.platform.routing import GuardedRoute

router = APIRouter(prefix="/v1", tags=["interactions"], route_class=GuardedRoute)


@router.post(
    "/consents",
    operation_id="give_consent",
    response_model=ConsentGiven,
    responses=problems(
        *(Unauthenticated, ScopeMissing, InvalidRequest, RateLimited, StorageUnavailable),
        *(NoConsent, ErasureOpen, StorageFull),
    ),
)
async def give_consent(services: ServicesDep, _writer: Writer, body: NewConsent) -> Response:
    """Have what was erased recorded again from now on, since the person wants it: late writes of it were refused.

    It lifts just what it names: a consent to an interaction does not lift the erasure of the whole user, and the answer
    says so. Nothing that was erased comes back: it is gone. 409 while an erasure that covers some of it is not erased.
    """
    pairs = {(pair.user_id, pair.item_id): f"#/interactions/{n}" for n, pair in enumerate(body.interactions)}
    users = {user: f"#/users/{n}" for n, user in enumerate(body.users)}
    items = {item: f"#/items/{n}" for n, item in enumerate(body.items)}
    subjects = Subjects.of(pairs, users, items)
    pointers = [
        *(pairs[pair] for pair in subjects.interactions),
        *(users[user] for user in subjects.users),
        *(items[item] for item in subjects.items),
    ]
    consent = await service.give(services, subjects, pointers)
    still = consent.still_refused
    answer = {
        "lifted": consent.lifted,
        "still_refused": {
            "count": still.count,
            "user_erased": still.user,
            "item_erased": still.item,
            "interactions_erased": still.interactions,
        },
        "commitment": consent.commitment,
        "salt": consent.salt,
    }
    return Response(orjson.dumps(answer), media_type="application/json")
