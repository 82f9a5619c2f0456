"""From a stored erasure to the documents of `schemas`, as plain values for the JSON encoder."""

from datetime import datetime
from typing import Any

from service.erasures.modes import Mode
from service.erasures.reach import Reach
from service.erasures.repository import Erasure
from service.erasures.targets import Subjects
from service.platform.clock import rfc3339
from service.platform.obstacles import Obstacle

PATH = "/v1/erasures"


def path_of(erasure_id: str) -> str:
    """The path of an erasure."""
    return f"{PATH}/{erasure_id}"


def accepted_body(erasure: Erasure, replayed: bool) -> dict[str, Any]:
    """ErasureAccepted."""
    return {**_summary(erasure), "salt": erasure.salt, "replayed": replayed}


def state_body(erasure: Erasure, waits_for: Obstacle | None = None) -> dict[str, Any]:
    """ErasureState: how far it is by now, and what it waits for."""
    return {
        **_summary(erasure),
        "extension": _extension(erasure),
        "decision": _decision(erasure),
        "legal_hold": erasure.held_since is not None,
        "held_since": _instant(erasure.held_since),
        "reason": erasure.reason,
        "version_before": erasure.version_before,
        "version_after": erasure.version_after,
        "model_changed": erasure.gate is not None if erasure.status in ("forgotten", "erased") else None,
        "batch_id": erasure.batch_id,
        "attempts": erasure.attempts,
        "needs": erasure.needs,
        "waiting_for": None if waits_for is None else waits_for.body(),
        "forgotten_at": _instant(erasure.forgotten_at),
        "erased_at": _instant(erasure.erased_at),
        "cancelled_at": _instant(erasure.cancelled_at),
        "stages": erasure.stages,
        "gate": erasure.gate,
    }


def reached_body(erasure: Erasure, waits_for: Obstacle | None = None, *, replayed: bool = False) -> dict[str, Any]:
    """ErasureReached: the state, with the salt that was given at its acceptance."""
    return {**state_body(erasure, waits_for), "salt": erasure.salt, "replayed": replayed}


def preview_body(mode: Mode, subjects: Subjects, reach: Reach) -> dict[str, Any]:
    """ErasurePreview."""
    return {
        "mode": mode.value,
        "requested": len(subjects),
        "targets": {
            "interactions": len(subjects.interactions),
            "users": len(subjects.users),
            "items": len(subjects.items),
        },
        "matched": reach.matched,
        "hidden": reach.hidden,
        "affected_users": reach.users,
        "affected_items": reach.items,
        "recorded": reach.recorded,
        "share": reach.matched / reach.recorded if reach.recorded else 0.0,
    }


def _summary(erasure: Erasure) -> dict[str, Any]:
    path = path_of(erasure.id)
    return {
        "id": erasure.id,
        "status": erasure.status,
        "mode": erasure.mode,
        "received_at": rfc3339(erasure.received_at),
        "due_at": rfc3339(erasure.due_at),
        "requested": erasure.requested,
        "matched": erasure.matched,
        "commitment": erasure.commitment,
        "links": {
            "self": path,
            "receipt": f"{path}/receipt",
            "residue": f"{path}/residue",
            "audit": f"/v1/audit/entries?erasure_id={erasure.id}",
        },
    }


def _extension(erasure: Erasure) -> dict[str, Any] | None:
    if erasure.extended_at is None:
        return None
    return {
        "until": rfc3339(erasure.due_at),
        "ground": erasure.extension_ground,
        "reason": erasure.extension_reason,
        "extended_at": rfc3339(erasure.extended_at),
    }


def _decision(erasure: Erasure) -> dict[str, Any] | None:
    if erasure.decision is None:
        return None
    return {
        "outcome": erasure.decision,
        "ground": erasure.decision_ground,
        "decided_at": _instant(erasure.decided_at),
    }


def _instant(instant: datetime | None) -> str | None:
    return None if instant is None else rfc3339(instant)
