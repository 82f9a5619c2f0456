"""What keeps the model from forgetting, read from SQL: the same answer for an erasure's document, status, readiness,
metrics and the log, each with the command that cures it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, func, select

from service.platform.problem import known_problems
from service.platform.tables import aliases, erasures, leases, outbox, versions

WORKER_SILENT: Final = timedelta(seconds=30)
OUTBOX_LATE: Final = timedelta(seconds=5)
FORGET: Final = "forget"
WORKER_LEASE: Final = "unlearner"

# Troubles of the worker, as it puts them beside its lease: `no_encoder:<mode>`, `encoder_outdated:<mode>`, the two
# below; what else fails is `worker_failing:<class>`.
NO_ENCODER: Final = "no_encoder"
ENCODER_OUTDATED: Final = "encoder_outdated"
BACKBONE_UNAVAILABLE: Final = "backbone_unavailable"
BASE_DAMAGED: Final = "base_damaged"
WORKER_FAILING: Final = "worker_failing"
FINE_TUNING: Final = "fine_tuning"
"""What an accepted erasure needs, where the gate refused what the encoder alone gave."""
APPROVAL: Final = "approval"
"""What an erasure that needs attention needs, where it is so large that a second key must approve it."""

CODES: Final = (
    NO_ENCODER,
    ENCODER_OUTDATED,
    BACKBONE_UNAVAILABLE,
    BASE_DAMAGED,
    "no_worker",
    WORKER_FAILING,
    "stream_away",
)


@dataclass(frozen=True)
class Obstacle:
    """Why forgetting waits: a code, what is so, and what to do about it."""

    code: str
    detail: str
    next_step: str

    def body(self) -> dict[str, str]:
        """As a plain document."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.detail} {self.next_step}"


@dataclass(frozen=True)
class ForgettingState:
    """Whether the model can forget now.

    `base`: the version that the next ones come from, None while there is no model. `encoders`: the modes that it can
    forget in. `worker_seen`: when the holder of the lease was last heard of, None where nobody holds it. `waiting`: how
    many erasures are accepted. `oldest_unsent`: when the oldest outbox row was written that the stream has not got.
    """

    now: datetime
    base: int | None
    backbone: str | None
    encoders: frozenset[str]
    worker_seen: datetime | None
    trouble: str | None
    waiting: int
    oldest_unsent: datetime | None

    @property
    def worker_alive(self) -> bool:
        """Whether a worker holds the lease and was heard of lately."""
        return self.worker_seen is not None and self.now - self.worker_seen < WORKER_SILENT


def read_forgetting_state(connection: Connection, now: datetime) -> ForgettingState:
    """Read it in a handful of small statements."""
    base = _base(connection)
    manifest: Mapping[str, Any] = {} if base is None else base[1]
    worker = select(leases.c.holder, leases.c.seen_at, leases.c.trouble).where(leases.c.name == WORKER_LEASE)
    lease = connection.execute(worker).first()
    held = lease is not None and lease.holder != ""
    return ForgettingState(
        now,
        None if base is None else base[0],
        ((manifest.get("config") or {}).get("backbone") or {}).get("name"),
        frozenset(manifest.get("encoders") or {}),
        lease.seen_at if held and lease is not None else None,
        lease.trouble if held and lease is not None else None,
        connection.scalar(select(func.count()).where(erasures.c.status == "accepted")) or 0,
        connection.scalar(select(func.min(outbox.c.created_at)).where(outbox.c.published_at.is_(None))),
    )


def obstacle_to(state: ForgettingState, mode: str = FORGET) -> Obstacle | None:
    """What keeps every erasure of a mode from being forgotten; None where nothing does."""
    if state.base is not None and mode not in state.encoders:
        return _no_encoder(state.base, mode)
    if not state.worker_alive:
        since = (
            "" if state.worker_seen is None else f" It was last heard of at {state.worker_seen:%Y-%m-%d %H:%M:%S} UTC."
        )
        return Obstacle(
            "no_worker",
            f"No worker is alive.{since}",
            "Start `expunge worker` (or `expunge serve`); if one runs, look at its log.",
        )
    trouble = None if state.trouble is None else _trouble(state)
    if trouble is not None:
        return trouble
    if state.oldest_unsent is not None and state.now - state.oldest_unsent > OUTBOX_LATE:
        return Obstacle(
            "stream_away",
            "Redis takes nothing, so the worker looks into the database by itself, every few seconds.",
            "Nothing is lost. Bring Redis back for its usual speed.",
        )
    return None


def waiting_for(
    state: ForgettingState, status: str, mode: str, needs: str | None, ahead: int | None
) -> Obstacle | None:
    """What one erasure waits for; None where it waits no more.

    Args:
        state: of the model.
        status, mode, needs: of the erasure.
        ahead: erasures that were accepted before it and wait, too; None where nobody counted.
    """
    if status == "needs_attention":
        kind = known_problems().get(needs or "")
        if kind is None:
            return Obstacle(needs or "needs_attention", "An operator must look at it.", "See the audit log.")
        return Obstacle(kind.code, f"{kind.title}.", kind.next_step)
    if status != "accepted":
        return None
    found = obstacle_to(state, mode)
    if found is not None:
        return found
    if needs == FINE_TUNING:
        return Obstacle(
            FINE_TUNING,
            "The gate refused what the encoder alone gave; it is fine-tuned beside the others' erasures.",
            "Nothing needs to be done: the worker is at it, in a quarter of its time at most.",
        )
    place = "It is in the queue." if ahead is None else f"{ahead:,} erasures were accepted before it."
    return Obstacle("queued", place, "Nothing needs to be done: the worker is at it.")


def _no_encoder(base: int, mode: str) -> Obstacle:
    what = f"Base {base} has no influence encoder for mode {mode}."
    return Obstacle(NO_ENCODER, what, f"Run `{_pretrain(mode)}`; no restart is needed.")


def _pretrain(mode: str) -> str:
    return "expunge pretrain" if mode == FORGET else f"expunge pretrain --mode {mode}"


def _trouble(state: ForgettingState) -> Obstacle | None:
    code, _, kind = (state.trouble or "").partition(":")
    match code:
        case "no_encoder":
            return None if state.base is None or kind in state.encoders else _no_encoder(state.base, kind)
        case "encoder_outdated":
            what = f"The influence encoder of base {state.base} was made by another version of Expunge."
            cure = f"Run `{_pretrain(kind)}`; no restart is needed."
        case "backbone_unavailable":
            whose = f"{state.backbone} of base {state.base}"
            what = f"The worker cannot load the backbone {whose}: its package is gone or broken."
            cure = "Install it again and restart the worker, or train a base with another: `expunge train --go-live`."
        case "base_damaged":
            what = f"The files of base {state.base}, or of its encoder, are damaged or gone."
            cure = "Restore them from a backup, or make a new base: `expunge train --go-live`."
        case _:
            code = WORKER_FAILING
            what = f"The worker's latest round failed ({kind or 'unknown'}); it is tried again."
            cure = "If it goes on, look at the worker's log."
    return Obstacle(code, what, cure)


def _base(connection: Connection) -> tuple[int, Mapping[str, Any]] | None:
    """The base that the next versions come from: the promoted one once it has an encoder, else that of the live one."""
    named = {
        row.name: row.version
        for row in connection.execute(
            select(aliases.c.name, aliases.c.version).where(aliases.c.name.in_(("live", "base")))
        )
    }
    if "base" in named:
        found = _manifest(connection, named["base"])
        if found is not None and (found[1].get("encoders") or "live" not in named):
            return found
    if "live" not in named:
        return None
    base = connection.scalar(select(versions.c.base).where(versions.c.version == named["live"]))
    return None if base is None else _manifest(connection, base)


def _manifest(connection: Connection, number: int) -> tuple[int, Mapping[str, Any]] | None:
    row = connection.execute(select(versions.c.manifest).where(versions.c.version == number)).first()
    return None if row is None else (number, row.manifest or {})
