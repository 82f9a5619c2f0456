"""Gauges of compactions: the one under way, how it goes, and how those before it ended."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import Connection, func, select

from service.platform.tables import compactions

COMPACTION_STEPS: Final = (
    *("snapshot", "training", "gating", "pretraining", "moving"),
    *("purging", "scanning", "finishing"),
)
COMPACTION_ENDS: Final = ("done", "refused", "failed", "cancelled")
COMPACTION_PROBLEMS: Final = ("residue_present", "training_underway", "other")
"""Those with a rule of their own; the rest is `other`: the compaction's document names it."""


def compaction_gauges(connection: Connection, now: datetime) -> list[Metric]:
    """What SQL says of compactions; a handful of rows."""
    table = compactions.c
    counted = connection.execute(select(table.status, func.count().label("n")).group_by(table.status)).all()
    counts = {row.status: row.n for row in counted}
    under_way = connection.execute(
        select(table.step, table.status, table.steps, table.progress, table.problem, table.requested_at)
        .where(table.status.in_(("waiting", "running")))
        .limit(1)
    ).first()
    latest = connection.execute(
        select(table.status, table.started_at, table.finished_at)
        .where(table.status.in_(COMPACTION_ENDS))
        .order_by(table.id.desc())
        .limit(1)
    ).first()
    done = connection.execute(
        select(table.started_at, table.finished_at).where(table.status == "done").order_by(table.id.desc()).limit(1)
    ).first()

    ended = CounterMetricFamily("expunge_compactions", "Compactions that ended, by outcome.", labels=["outcome"])
    for outcome in COMPACTION_ENDS:
        ended.add_metric([outcome], counts.get(outcome, 0))
    step = GaugeMetricFamily("expunge_compaction_step", "1 for the step that a compaction is at.", labels=["step"])
    running = under_way is not None and under_way.status == "running"
    for name in COMPACTION_STEPS:
        step.add_metric([name], float(running and under_way is not None and under_way.step == name))
    problem = GaugeMetricFamily(
        "expunge_compaction_problem", "1 for what keeps a compaction from going on, if anything.", labels=["code"]
    )
    code = None if under_way is None or under_way.problem is None else under_way.problem
    told = code if code is None or code in COMPACTION_PROBLEMS else "other"
    for name in COMPACTION_PROBLEMS:
        problem.add_metric([name], float(told == name))
    progress: Mapping[str, Any] = {} if under_way is None else under_way.progress or {}
    at = _began(under_way)
    unsuccessful = latest is not None and latest.status in ("refused", "failed")
    took = None if done is None or done.started_at is None else (done.finished_at - done.started_at).total_seconds()
    since = None if done is None else done.finished_at
    return [
        ended,
        step,
        problem,
        _gauge("compaction_running", "Whether a compaction waits or runs.", float(under_way is not None)),
        _gauge("compaction_progress", "Share of the compaction under way that is done.", progress.get("share") or 0.0),
        _gauge("compaction_step_seconds", "Time since its step began, or since it waits.", _age(at, now)),
        _gauge(
            "compaction_step_expected_seconds",
            "What those before it took for the step; 0: not known.",
            progress.get("expected_s") or 0.0,
        ),
        _gauge("compaction_unsuccessful", "Whether the latest one was refused or failed (1).", float(unsuccessful)),
        _gauge("compaction_seconds", "How long the latest one took that was done.", took or 0.0),
        _gauge(
            "compaction_last_success_timestamp_seconds",
            "When the latest one was done, Unix time; 0: never.",
            0.0 if since is None else since.timestamp(),
        ),
    ]


def _began(row: Any) -> datetime | None:
    if row is None:
        return None
    step = (row.steps or {}).get(row.step)
    return row.requested_at if row.status == "waiting" or step is None else datetime.fromisoformat(step["at"])


def _age(instant: datetime | None, now: datetime) -> float:
    return 0.0 if instant is None else max(0.0, (now - instant).total_seconds())


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"expunge_{name}", text, value=value)
