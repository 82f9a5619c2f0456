"""From a stored compaction to the document of `schemas`, as plain values for the JSON encoder."""

from datetime import datetime
from typing import Any

from service.compaction.repository import Compaction
from service.compaction.steps import CompactionStatus
from service.platform.clock import rfc3339
from service.platform.obstacles import Obstacle

PATH = "/v1/models/compactions"


def path_of(compaction_id: str) -> str:
    """The path of a compaction."""
    return f"{PATH}/{compaction_id}"


def compaction_body(compaction: Compaction, problem: Obstacle | None) -> dict[str, Any]:
    """CompactionState."""
    runs = compaction.status == CompactionStatus.RUNNING
    progress = {"share": compaction.progress.get("share", 0.0), "left_s": compaction.progress.get("left_s")}
    return {
        "id": compaction.id,
        "status": compaction.status,
        "step": compaction.step,
        "attempt": compaction.attempt,
        "trigger": compaction.trigger,
        "requested_at": rfc3339(compaction.requested_at),
        "started_at": _instant(compaction.started_at),
        "finished_at": _instant(compaction.finished_at),
        "progress": progress if runs else None,
        "steps": {name: {"at": step["at"], "seconds": step.get("seconds")} for name, step in compaction.steps.items()},
        "base_before": compaction.base_before,
        "base_after": compaction.base_after,
        "erasures": compaction.erasures,
        "problem": None if problem is None else problem.body(),
        "facts": compaction.facts,
        "links": {
            "self": path_of(compaction.id),
            "base_before": _version(compaction.base_before),
            "base_after": _version(compaction.base_after),
        },
    }


def _version(number: int | None) -> str | None:
    return None if number is None else f"/v1/models/versions/{number}"


def _instant(instant: datetime | None) -> str | None:
    return None if instant is None else rfc3339(instant)
