"""What erasures look like over REST."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from service.erasures.grounds import DecisionOutcome, ExtensionGround, RefusalGround
from service.erasures.modes import Mode
from service.platform.ids import ItemId, UserId
from service.platform.json_types import GivenInstant

Status = Literal["accepted", "forgotten", "erased", "cancelled", "needs_attention", "refused"]
Reason = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")]

_REPLAYED: Any = Field(
    default=False, description="Whether the Idempotency-Key had asked for it before; this is its present state then."
)

_ID = "0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e"
_AT = "2026-11-21T04:15:56.000000Z"


class Pair(BaseModel):
    """One interaction."""

    model_config = ConfigDict(extra="forbid")

    user_id: UserId = Field(examples=["471"])
    item_id: ItemId = Field(examples=["50"])


class ErasureRequest(BaseModel):
    """What is to be erased: interactions, whole users, whole items. What is named twice counts once."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"interactions": [{"user_id": "471", "item_id": "50"}], "users": [], "items": []}],
            "anyOf": [
                {"required": [name], "properties": {name: {"minItems": 1}}}
                for name in ("interactions", "users", "items")
            ],
        },
    )

    interactions: list[Pair] = []
    users: list[UserId] = []
    items: list[ItemId] = []
    mode: Mode = Field(
        default=Mode.FORGET,
        description="`forget`: as if it had never happened. `dislike`: the person also wants less of this.",
    )
    reason: Reason | None = Field(default=None, description="Kept until it is forgotten or cancelled; never in a log.")


class Links(BaseModel):
    """Where to go from here."""

    self: str = Field(examples=[f"/v1/erasures/{_ID}"])
    receipt: str = Field(examples=[f"/v1/erasures/{_ID}/receipt"], description="What proves it, final or not.")
    residue: str = Field(examples=[f"/v1/erasures/{_ID}/residue"], description="What a search found to be left of it.")
    audit: str = Field(examples=[f"/v1/audit/entries?erasure_id={_ID}"])


class ErasureSummary(BaseModel):
    """What is fixed when an erasure is accepted, and its status."""

    id: str = Field(examples=[_ID])
    status: Status = Field(examples=["accepted"])
    mode: Mode
    received_at: datetime = Field(examples=[_AT])
    due_at: datetime = Field(description="Nothing is left in any store by then.", examples=["2026-11-28T04:15:56Z"])
    requested: int = Field(description="Distinct targets named.", examples=[1])
    matched: int = Field(description="Distinct recorded interactions that they covered.", examples=[1])
    commitment: str = Field(description="SHA-256(salt || canonical JSON of the subjects), hex.", examples=["9f" * 32])
    links: Links


class ErasureAccepted(ErasureSummary):
    """The answer to an erasure that was accepted: its targets are hidden from every read."""

    salt: str | None = Field(
        description="32 random bytes, hex: shown here only. With it you can show what a log entry was about.",
        examples=["a1" * 32],
    )
    replayed: bool = _REPLAYED


class Stage(BaseModel):
    """When a stage was reached, and how long it took."""

    at: datetime | None = Field(default=None, examples=[_AT])
    seconds: float | None = Field(default=None, ge=0, examples=[0.0021])


class WaitingFor(BaseModel):
    """What keeps an erasure from the next state, and what to do about it."""

    code: str = Field(
        description="queued, no_encoder, encoder_outdated, backbone_unavailable, base_damaged, no_worker, "
        "worker_failing, stream_away, or the code of the problem that needs attention.",
        examples=["no_encoder"],
    )
    detail: str = Field(examples=["Base 1 has no influence encoder for mode forget."])
    next_step: str = Field(examples=["Run `expunge pretrain`; no restart is needed."])


class Extension(BaseModel):
    """More time, as GDPR Art. 12(3) allows it once."""

    until: datetime = Field(description="What `due_at` is since.", examples=["2026-12-30T00:00:00Z"])
    ground: ExtensionGround | None = Field(examples=["complexity"])
    reason: str | None = Field(description="As it was given; null once the erasure is over. Never in a log.")
    extended_at: datetime = Field(examples=[_AT])


class Decision(BaseModel):
    """Why not all of it is erased."""

    outcome: DecisionOutcome = Field(
        description="`refused`: nothing was forgotten. `partial`: the model forgot it; what is left may be kept. "
        "What it hides stays hidden either way."
    )
    ground: RefusalGround = Field(description="GDPR Art. 17(3), (a) to (e).", examples=["17(3)(e)"])
    decided_at: datetime = Field(examples=[_AT])


class ErasureState(ErasureSummary):
    """How far an erasure is."""

    extension: Extension | None = Field(description="null: `due_at` is as it was promised.", examples=[None])
    decision: Decision | None = Field(description="null: all of it is to be erased.", examples=[None])
    legal_hold: bool = Field(description="Whether nothing of it may be erased now; no deadline runs then.")
    held_since: datetime | None = Field(description="Since when it is held; null where it is not.", examples=[None])

    reason: str | None = Field(description="As it was given; null once it is forgotten or cancelled.", examples=[None])
    version_before: int | None = Field(description="Live before it; null where it matched nothing.", examples=[41])
    version_after: int | None = Field(description="First without it; null where it matched nothing.", examples=[42])
    model_changed: bool | None = Field(
        description="Whether a version was made to forget it; null until it is forgotten. False where no model had "
        "learnt any of it: no version and no gate has anything to do with it.",
        examples=[True],
    )
    batch_id: int | None = Field(description="The batch that took it.", examples=[7])
    attempts: int = Field(description="Tries of the unlearning step that did not come back.", examples=[0])
    needs: str | None = Field(
        description="Why it needs attention: the code of a problem. Of an accepted one `fine_tuning`: the gate refused "
        "what the encoder alone gave; others go first.",
        examples=[None],
    )
    waiting_for: WaitingFor | None = Field(description="What it waits for; null once it waits no more.")
    forgotten_at: datetime | None
    erased_at: datetime | None
    cancelled_at: datetime | None
    stages: dict[str, Stage] = Field(description="accepted, queued, applied, gated, published, forgotten, ...")
    gate: dict[str, Any] | None = Field(description="What the gate measured of the version that forgot it.")


class ErasureReached(ErasureState):
    """The state that an erasure reached while the caller waited, or before a replay, with the salt that was given."""

    salt: str | None
    replayed: bool = _REPLAYED


class ErasurePage(BaseModel):
    """Erasures, the newest first, and where the next ones are."""

    erasures: list[ErasureState]
    next: str | None = Field(description="Path of the next page; null at the end.")


class TargetCounts(BaseModel):
    """Distinct targets by kind."""

    interactions: int = Field(ge=0, examples=[1])
    users: int = Field(ge=0, description="Whole users.", examples=[1])
    items: int = Field(ge=0, description="Whole items.", examples=[0])


class ErasurePreview(BaseModel):
    """How far an erasure would reach, had it been asked for now. Nothing was stored, nothing is hidden."""

    mode: Mode
    requested: int = Field(description="Distinct targets named.", examples=[2])
    targets: TargetCounts
    matched: int = Field(description="Distinct recorded interactions that they cover.", examples=[208])
    hidden: int = Field(description="Those of them that are shown now, and would be shown no more.", examples=[208])
    affected_users: int = Field(description="Distinct users of the matched interactions.", examples=[2])
    affected_items: int = Field(description="Distinct items of the matched interactions.", examples=[207])
    recorded: int = Field(description="All interactions that are recorded.", examples=[100_000])
    share: float = Field(ge=0, le=1, description="`matched` over `recorded`; 0 where nothing is.", examples=[0.00208])


class NewExtension(BaseModel):
    """More time than was promised. Once, within a month of receipt; two months beyond that month at most."""

    model_config = ConfigDict(extra="forbid")

    until: GivenInstant = Field(description="The new `due_at`, later than the present one.")
    reason: Annotated[Reason, StringConstraints(min_length=1, strip_whitespace=True)] = Field(
        description="For whoever asks; kept until the erasure is over, never in a log or a receipt.",
        examples=["A restore runs that holds it."],
    )
    ground: ExtensionGround | None = Field(
        default=None, description="The ground of Art. 12(3) that it rests on; this stands in log and receipt."
    )


class NewDecision(BaseModel):
    """Not to erase all of it, on a ground of GDPR Art. 17(3)."""

    model_config = ConfigDict(extra="forbid")

    outcome: DecisionOutcome = Field(
        description="`refused` while it is accepted or needs attention; `partial` once it is forgotten."
    )
    ground: RefusalGround = Field(
        description="(a) expression and information, (b) legal obligation, (c) public health, (d) archiving and "
        "research, (e) legal claims.",
        examples=["17(3)(e)"],
    )


class ErasureChange(BaseModel):
    """What an officer changes about an erasure: one of the three."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"extension": {"until": "2026-12-30T00:00:00Z", "reason": "A restore runs.", "ground": "complexity"}},
                {"decision": {"outcome": "refused", "ground": "17(3)(e)"}},
                {"legal_hold": True},
            ],
            "maxProperties": 1,
            "oneOf": [
                {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
                for name in ("extension", "decision", "legal_hold")
            ],
        },
    )

    extension: NewExtension | None = None
    decision: NewDecision | None = None
    legal_hold: StrictBool | None = Field(default=None, description="true: set it; false: lift it.")


class ErasureSearch(BaseModel):
    """Whom or what to find the erasures of: a user, an item, or with both the interaction between them."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"user_id": "471"}],
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "string"}}} for name in ("user_id", "item_id")
            ],
        },
    )

    user_id: UserId | None = Field(default=None, examples=["471"])
    item_id: ItemId | None = Field(default=None, examples=["50"])
