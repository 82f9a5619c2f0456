"""What compactions look like over REST."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.compaction.steps import CompactionStatus, CompactionStep, CompactionTrigger

_ID = "0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e"
_AT = "2026-11-25T04:15:56Z"


class CompactionRequest(BaseModel):
    """There is nothing to choose: how the base is trained stands in the manifest of the one in use."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{}]})


class CompactionLinks(BaseModel):
    """Where to read on."""

    self: str = Field(examples=[f"/v1/models/compactions/{_ID}"])
    base_before: str | None = Field(examples=["/v1/models/versions/40"])
    base_after: str | None = Field(examples=["/v1/models/versions/43"])


class CompactionProblem(BaseModel):
    """What stopped a compaction, or keeps it waiting, and what to do about it."""

    code: str = Field(examples=["no_worker"])
    detail: str = Field(examples=["No worker is alive."])
    next_step: str = Field(examples=["Start `expunge worker` (or `expunge serve`); if one runs, look at its log."])


class ProgressShown(BaseModel):
    """How far a compaction is."""

    share: float = Field(ge=0, le=1, description="Of the whole.", examples=[0.42])
    left_s: float | None = Field(description="Seconds to its end, learnt from those before; null: not known yet.")


class StepShown(BaseModel):
    """When a step began, and how long it took."""

    at: datetime = Field(examples=[_AT])
    seconds: float | None = Field(description="null while it is under way.", examples=[125.0])


class CompactionState(BaseModel):
    """One compaction: a base trained from scratch on what remains, after which what was erased is purged."""

    id: str = Field(examples=[_ID])
    status: CompactionStatus = Field(
        description="`refused`: no new base was good enough; the old one serves on, and nothing was erased."
    )
    step: CompactionStep = Field(description="Under way, or where it ended. Cancelled until `moving` begins.")
    attempt: int = Field(
        description="From 1; another one begins with another seed where the gate refused.", examples=[1]
    )
    trigger: CompactionTrigger
    requested_at: datetime = Field(examples=[_AT])
    started_at: datetime | None
    finished_at: datetime | None
    progress: ProgressShown | None = Field(description="null where it is not under way.")
    steps: dict[str, StepShown] = Field(description="The steps that have begun.")
    base_before: int | None = Field(description="In use when it began.", examples=[40])
    base_after: int | None = Field(
        description="Trained by it; null where there is none, or it is purged.", examples=[43]
    )
    erasures: int = Field(description="How many erasures it is to complete, or has completed.", examples=[17])
    problem: CompactionProblem | None = Field(description="null where nothing is wrong.")
    facts: dict[str, Any] = Field(description="Figures: the data's hash, the gate of each attempt, purge, search.")
    links: CompactionLinks


class CompactionPage(BaseModel):
    """Compactions, the newest first, and where the next ones are."""

    compactions: list[CompactionState]
    next: str | None = Field(description="Path of the next page; null at the end.")
