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


class InclusionProof(BaseModel):
    """That an entry is in the log. Hashes are base64 of 32 bytes, the lowest first."""

    index: int = Field(description="Place of the entry in the log, from 0.", examples=[16])
    size: int = Field(description="Size of the tree that the proof is for: that of the checkpoint.", examples=[20])
    leaf_hash: str = Field(description="SHA-256(0x00 || canonical JSON of the entry).")
    hashes: list[str]
    checkpoint: str = Field(description="The signed head (C2SP tlog-checkpoint) whose root the proof leads to.")


class ConsistencyProof(BaseModel):
    """That the log of the older size is the beginning of the newer one. Hashes are base64 of 32 bytes."""

    old_size: int
    size: int
    hashes: list[str]
    checkpoint: str = Field(description="The signed head of the newer size.")


class StampedCheckpoint(BaseModel):
    """A head of the log, and who saw it when."""

    size: int
    checkpoint: str = Field(description="The signed head (C2SP tlog-checkpoint).")
    timestamp: str = Field(description="TimeStampResp (RFC 3161, DER, base64) over the head's first three lines.")


class Jwk(BaseModel):
    """An Ed25519 public key (RFC 8037)."""

    kty: str = Field(examples=["OKP"])
    crv: str = Field(examples=["Ed25519"])
    x: str
    kid: str = Field(description="The key id of signed notes, hex.")
    use: str = Field(examples=["sig"])
    alg: str = Field(examples=["EdDSA"])


class LogKey(BaseModel):
    """One key that signs, or signed, the log."""

    vkey: str = Field(
        description="Verifier key of signed notes.",
        examples=["example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"],
    )
    since: datetime
    until: datetime | None = Field(description="Null for the key that signs now.")
    jwk: Jwk


class LogKeys(BaseModel):
    """Who signs the log, the oldest first."""

    origin: str = Field(description="The log's name; it never changes.")
    keys: list[LogKey]
