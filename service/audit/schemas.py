"""What the audit log looks like over REST."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field


class AuditEntry(BaseModel):
    """One entry. Without `leaf_hash`, its canonical JSON (RFC 8785) is what `leaf_hash` covers."""

    seq: int = Field(description="Place in the log, from 1, without gaps.", examples=[17])
    at: datetime
    event: str = Field(description="What happened, noun.verb.", examples=["erasure.accepted"])
    erasure_id: str | None = Field(examples=["0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e"])
    version: int | None = Field(description="The version of the model that it concerns.", examples=[None])
    body: dict[str, Any] = Field(description="Counts, mode, commitment, the gate's figures; nothing personal.")
    leaf_hash: str = Field(description="SHA-256(0x00 || canonical JSON of the entry), hex.")


class AuditPage(BaseModel):
    """Entries in order, and where the next ones are."""

    entries: list[AuditEntry]
    next: str | None = Field(description="Path of the next page; null at the end.")
