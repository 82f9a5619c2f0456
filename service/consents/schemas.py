"""What consents look like over REST."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.platform.ids import ItemId, UserId

TARGETS_MAX = 10_000


class ConsentedInteraction(BaseModel):
    """One user, one item."""

    model_config = ConfigDict(extra="forbid")

    user_id: UserId = Field(examples=["471"])
    item_id: ItemId = Field(examples=["50"])


class NewConsent(BaseModel):
    """What may be recorded again: interactions, whole users, whole items, 10,000 of each at most."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"interactions": [{"user_id": "471", "item_id": "50"}], "users": [], "items": []}]
        },
    )

    interactions: Annotated[list[ConsentedInteraction], Field(max_length=TARGETS_MAX)] = []
    users: Annotated[list[UserId], Field(max_length=TARGETS_MAX)] = []
    items: Annotated[list[ItemId], Field(max_length=TARGETS_MAX)] = []


class StillRefused(BaseModel):
    """What late writes of are refused still, though it was consented to: another erasure named it otherwise."""

    count: int = Field(ge=0, description="Of the targets that were sent, in all.", examples=[0])
    user_erased: int = Field(ge=0, description="Interactions of a user who was erased whole: consent to the user.")
    item_erased: int = Field(ge=0, description="Interactions with an item that was erased whole: consent to the item.")
    interactions_erased: int = Field(
        ge=0, description="Users and items of which single interactions were erased: consent to these."
    )


class ConsentGiven(BaseModel):
    """What became of a consent."""

    lifted: int = Field(ge=0, description="Targets that were refused and are no more.", examples=[1])
    still_refused: StillRefused
    commitment: str | None = Field(
        description="SHA-256(salt || subjects), as of an erasure: stands in the log. Null where nothing was lifted."
    )
    salt: str | None = Field(description="Opens the commitment; it is told once and kept nowhere.")
