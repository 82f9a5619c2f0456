"""What models look like over REST."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.platform.json_types import WholeNumber

Status = Literal["ready", "held", "retired", "purged"]


class VersionLinks(BaseModel):
    """Where to read on."""

    self: str = Field(examples=["/v1/models/versions/42"])
    base: str = Field(examples=["/v1/models/versions/40"])


class VersionSummary(BaseModel):
    """One version: an immutable set of embeddings."""

    version: int = Field(examples=[42])
    kind: Literal["base", "forgotten"] = Field(
        description="Trained from scratch, or derived from a base by forgetting."
    )
    status: Status = Field(description="`ready` may serve; `held` did not pass the gate; `purged` has no bytes left.")
    base: int = Field(description="The base it comes from; its own number for a base.", examples=[40])
    parent: int | None = Field(examples=[40])
    aliases: list[str] = Field(examples=[["live"]])
    erasures: int = Field(description="How many erasures are forgotten in it since its base.", examples=[3])
    erasure_seq: int = Field(description="Place in the audit log up to which erasures are forgotten in it.")
    created_at: datetime
    links: VersionLinks


class Ancestor(BaseModel):
    """One version that another comes from."""

    version: int
    kind: Literal["base", "forgotten"]
    status: Status
    created_at: datetime


class VersionDetail(VersionSummary):
    """A version with everything that it takes to make it again, and how it was judged."""

    lineage: list[Ancestor] = Field(description="The versions it comes from, the nearest first.")
    gate: dict[str, Any] | None = Field(description="The figures of the gate; null for a base.")
    manifest: dict[str, Any] = Field(
        description="The manifest on record; for a base, `encoders` names those chosen since it was published."
    )


class VersionPage(BaseModel):
    """Versions, the newest first, and where the next ones are."""

    versions: list[VersionSummary]
    next: str | None = Field(description="Path of the next page; null at the end.")


class Alias(BaseModel):
    """Where an alias points."""

    alias: str = Field(examples=["live"])
    version: int = Field(examples=[42])
    moved_at: datetime


class Promotion(BaseModel):
    """Which version is to be live."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 42}]})

    version: WholeNumber = Field(ge=1, le=2**63 - 1)
