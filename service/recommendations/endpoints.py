"""REST of recommendations: the hot path, so answers are written as bytes and no model is built on the way."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from service.platform.dependencies import Recommender, ServicesDep
from service.platform.ids import ItemId, PathItemId, PathUserId
from service.platform.problem import InvalidRequest, ModelUnavailable, ScopeMissing, Unauthenticated, problems
from service.recommendations import service
from service.recommendations.schemas import (
    EXCLUDE_MAX,
    N_MAX,
    ManyRecommendations,
    Recommendations,
    RecommendMany,
    SimilarItems,
)
from service.recommendations.service import Answer, Ask, ItemUnknown

router = APIRouter(prefix="/v1", tags=["recommendations"])

_PROBLEMS = (Unauthenticated, ScopeMissing, InvalidRequest, ModelUnavailable)
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The answer is the one that If-None-Match names."}
}

N = Annotated[int, Query(ge=1, le=N_MAX, description="Most items of the answer.")]
ExcludeSeen = Annotated[bool, Query(description="Leave out what the user interacted with.")]
Exclude = Annotated[
    list[ItemId], Query(max_length=EXCLUDE_MAX, description="Item ids to leave out; repeat the parameter for each.")
]
IfNoneMatch = Annotated[str | None, Header(description="ETags that the caller holds.")]


@router.get(
    "/users/{user_id}/recommendations",
    response_model=Recommendations,
    responses=problems(*_PROBLEMS) | _NOT_MODIFIED,
    summary="Top items of a user",
)
async def recommend(
    user_id: PathUserId,
    services: ServicesDep,
    _recommender: Recommender,
    n: N = 20,
    exclude_seen: ExcludeSeen = True,
    exclude: Exclude = [],  # noqa: B006  # FastAPI copies it
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The user's top items in the live version, ranked exactly over the whole catalogue.

    Every erasure accepted before the question is honoured, whatever version answers. An unknown user gets popular
    items, with `personalised: false`; a user recorded since the last training is folded in from their interactions.
    """
    answer = await service.recommend(services, user_id, Ask(n, exclude_seen, exclude))
    return _response(answer, if_none_match)


@router.post(
    "/recommendations",
    response_model=ManyRecommendations,
    responses=problems(*_PROBLEMS),
    summary="Top items of many users",
)
async def recommend_many(body: RecommendMany, services: ServicesDep, _recommender: Recommender) -> Response:
    """The top items of up to 1,000 users; each answer names the version that gave it."""
    ask = Ask(body.n, body.exclude_seen, body.exclude)
    content = await service.recommend_many(services, body.users, ask)
    return Response(content, media_type="application/json", headers={"Cache-Control": "private"})


@router.get(
    "/items/{item_id}/similar",
    response_model=SimilarItems,
    responses=problems(*_PROBLEMS, ItemUnknown) | _NOT_MODIFIED,
    summary="Items like an item",
)
async def similar(
    item_id: PathItemId,
    services: ServicesDep,
    _recommender: Recommender,
    n: N = 20,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The items whose vectors point most nearly the same way as this one's, in the live version."""
    return _response(await service.similar(services, item_id, n), if_none_match)


def _response(answer: Answer, if_none_match: str | None) -> Response:
    etag = answer.etag
    headers = {"ETag": etag, "Cache-Control": "private"}
    if if_none_match is not None and (if_none_match.strip() == "*" or etag in if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(answer.body, media_type="application/json", headers=headers)
