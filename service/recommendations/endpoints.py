"""REST of recommendations: the hot path, so parameters and answers pass without models being built on the way."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.platform.auth import Scope, needs
from service.platform.conditional import NOT_MODIFIED, none_match
from service.platform.dependencies import Recommender, ServicesDep, services_of
from service.platform.problem import InvalidRequest, ModelUnavailable, ScopeMissing, Unauthenticated, problems
from service.platform.routing import GuardedRoute, LeanRoute
from service.recommendations import service
from service.recommendations.query import (
    RecommendQuery,
    SimilarQuery,
    ask_of,
    described,
    item_id_of,
    number_of,
    user_id_of,
)
from service.recommendations.schemas import ManyRecommendations, Recommendations, RecommendMany, SimilarItems
from service.recommendations.service import ItemUnknown, RecommendationOptions, SerializedAnswer

lean = APIRouter(prefix="/v1", tags=["recommendations"], route_class=LeanRoute)
router = APIRouter(prefix="/v1", tags=["recommendations"], route_class=GuardedRoute)

_GUARDS = [needs(Scope.RECOMMEND)]

_PROBLEMS = (Unauthenticated, ScopeMissing, InvalidRequest, ModelUnavailable)


@lean.get(
    "/users/{user_id}/recommendations",
    dependencies=_GUARDS,
    operation_id="recommend",
    response_model=Recommendations,
    responses=problems(*_PROBLEMS) | NOT_MODIFIED,
    openapi_extra=described("user_id", RecommendQuery),
    summary="Top items of a user",
)
async def recommend(request: Request) -> Response:
    """The user's top items in the live version, ranked exactly over the whole catalogue.

    Every erasure accepted before the question is honoured, whatever version answers. An unknown user gets popular
    items, with `personalised: false`; a user recorded since the last training is folded in from their interactions.
    """
    answer = await service.recommend(services_of(request), user_id_of(request), ask_of(request))
    return _response(request, answer)


@router.post(
    "/recommendations",
    operation_id="recommend_many",
    response_model=ManyRecommendations,
    responses=problems(*_PROBLEMS),
    summary="Top items of many users",
)
async def recommend_many(body: RecommendMany, services: ServicesDep, _recommender: Recommender) -> Response:
    """The top items of up to 1,000 users; each answer names the version that gave it."""
    ask = RecommendationOptions(body.n, body.exclude_seen, tuple(body.exclude))
    content = await service.recommend_many(services, body.users, ask)
    return Response(content, media_type="application/json", headers={"Cache-Control": "private"})


@lean.get(
    "/items/{item_id}/similar",
    dependencies=_GUARDS,
    operation_id="similar_items",
    response_model=SimilarItems,
    responses=problems(*_PROBLEMS, ItemUnknown) | NOT_MODIFIED,
    openapi_extra=described("item_id", SimilarQuery),
    summary="Items like an item",
)
async def similar(request: Request) -> Response:
    """The items whose vectors point most nearly the same way as this one's, in the live version."""
    answer = await service.similar(services_of(request), item_id_of(request), number_of(request))
    return _response(request, answer)


router.routes[:0] = lean.routes


def _response(request: Request, answer: SerializedAnswer) -> Response:
    etag = answer.etag
    headers = {"ETag": etag, "Cache-Control": "private"}
    held = request.headers.getlist("if-none-match")
    if held and none_match(held, etag):
        return Response(status_code=304, headers=headers)
    return Response(answer.body, media_type="application/json", headers=headers)
