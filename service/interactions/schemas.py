"""What interactions look like over REST."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.platform.ids import ItemId, UserId

PAIRS_MAX = 10_000


class NewInteraction(BaseModel):
    """One user, one item."""

    model_config = ConfigDict(extra="forbid")

    user_id: UserId = Field(examples=["471"])
    item_id: ItemId = Field(examples=["50"])


class NewInteractions(BaseModel):
    """New feedback."""

    model_config = ConfigDict(extra="forbid")

    interactions: Annotated[list[NewInteraction], Field(min_length=1, max_length=PAIRS_MAX)]


class RefusedInteraction(BaseModel):
    """One interaction that was not recorded."""

    index: int = Field(ge=0, description="Its place in what was sent.", examples=[0])
    code: Literal["suppressed"] = Field(description="An erasure covers it.")


class RecordedInteractions(BaseModel):
    """What became of them; the three add up to what was sent."""

    recorded: int = Field(ge=0, description="New ones, part of the next base.", examples=[2])
    duplicates: int = Field(ge=0, description="Recorded before, or sent twice.", examples=[0])
    refused: list[RefusedInteraction] = Field(description="Suppressed ones.")


class UserInteraction(BaseModel):
    """One interaction of a user."""

    item_id: str = Field(examples=["50"])
    title: str | None = Field(examples=["Star Wars (1977)"])
    recorded_at: datetime


class UserInteractions(BaseModel):
    """What is recorded of a user, without what is being erased, and where more of it is."""

    user_id: str = Field(examples=["471"])
    interactions: list[UserInteraction]
    next: str | None = Field(description="Path of the next page; null at the end.")
