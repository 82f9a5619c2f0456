"""What searches look like over REST."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.erasures.schemas import Pair
from service.platform.ids import ItemId, UserId
from service.residue.report import NeedleKind, ResidueStore, Verdict

_ID = "0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e"


class PresentedSubjects(BaseModel):
    """What the caller kept: the salt that the 202 gave, and what the erasure named."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"salt": "a1" * 32, "interactions": [{"user_id": "471", "item_id": "50"}]}],
        },
    )

    salt: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] = Field(description="Hex, as the 202 gave it.")
    interactions: list[Pair] = []
    users: list[UserId] = []
    items: list[ItemId] = []


class FoundPlace(BaseModel):
    """One kind of what is looked for, at one place. What was found is never told, only where."""

    place: str = Field(description="table.column, a file, or file#tensor.", examples=["users.id"])
    kind: NeedleKind = Field(examples=["id"])
    count: int = Field(ge=1, examples=[1])
    at: int | None = Field(description="First offset in bytes, where the place has one.", examples=[None])
    spelling: str | None = Field(description="How it is written there.", examples=["raw"])
    note: str | None = Field(description="What keeps it there, or why it may be there.", examples=[None])
    erasures: list[str] = Field(examples=[[_ID]])
    erasures_in_all: int = Field(ge=0, examples=[1])


class StoreFindings(BaseModel):
    """One store: GONE only where all of it was searched and nothing was found."""

    store: ResidueStore
    verdict: Verdict
    bytes: int = Field(ge=0, description="Searched.")
    places: list[FoundPlace] = Field(description="What is left; the first 25 places.")
    places_in_all: int = Field(ge=0)
    allowed: list[FoundPlace] = Field(description="What is there and may be: digests in tombstones and ledger.")
    reason: str | None = Field(description="What was not searched, and why.")


class SearchReport(BaseModel):
    """A search of every store in scope."""

    searched_at: datetime
    seconds: float = Field(ge=0)
    bytes: int = Field(ge=0)
    present: bool = Field(description="Whether anything is left.", examples=[False])
    needles: dict[str, int] = Field(description="How many were looked for, by kind; and how many could not be.")
    stores: list[StoreFindings]
    notes: list[str] = Field(description="What limits this search.")
    out_of_scope: list[str] = Field(description="What no search here reaches.")


class ErasureResidue(BaseModel):
    """What is left of an erasure, as the latest search found."""

    erasure_id: str = Field(examples=[_ID])
    status: Literal["not_searched_yet", "searched"] = Field(
        description="`not_searched_yet`: its purge is still to come, by `due_at`, and a search follows that."
    )
    due_at: datetime
    report: SearchReport | None = Field(description="null where it was not searched yet.")
