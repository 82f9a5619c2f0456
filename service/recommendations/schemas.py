"""What recommendations look like over REST."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from service.platform.ids import ItemId, UserId
from service.platform.json_types import WholeNumber

N_MAX = 500
N_MANY_MAX = 100
USERS_MAX = 1000
EXCLUDE_MAX = 500

VersionNumber = Annotated[int, Field(description="The version of the model that answered.", examples=[42])]


class RankedItem(BaseModel):
    """One item of an answer."""

    item_id: str = Field(examples=["1193"])
    score: float = Field(description="Comparable within one answer only.", examples=[1.8421])
    rank: int = Field(ge=1, description="From 1, without gaps.", examples=[1])
    title: str | None = Field(None, description="Left out where none is recorded.", examples=["Vertigo (1958)"])


class Recommendations(BaseModel):
    """The top items of one user, the best first."""

    user_id: str = Field(examples=["42"])
    model_version: VersionNumber
    personalised: bool = Field(
        description="False where nothing is known of the user, or nothing any more: the items are the popular ones.",
    )
    items: list[RankedItem]


class SimilarItems(BaseModel):
    """The items most like one item, the most alike first; the score is the cosine of their vectors."""

    item_id: str = Field(examples=["1193"])
    model_version: VersionNumber
    items: list[RankedItem]


class ManyRecommendations(BaseModel):
    """The answers of many users, in the order asked."""

    results: list[Recommendations]


class RecommendMany(BaseModel):
    """A question for many users at once."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"users": ["42", "7"], "n": 10, "exclude_seen": True}]}
    )

    users: list[UserId] = Field(min_length=1, max_length=USERS_MAX)
    n: WholeNumber = Field(20, ge=1, le=N_MANY_MAX, description="Most items for each user.")
    exclude_seen: StrictBool = Field(True, description="Leave out what the user interacted with.")
    exclude: list[ItemId] = Field([], max_length=EXCLUDE_MAX, description="Further items to leave out, for all users.")
