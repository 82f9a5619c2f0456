"""Whether it is time for a compaction: each trigger is a setting, and decides on what SQL says."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from service.compaction.repository import Compaction, TriggerFacts
from service.compaction.steps import CompactionStatus, CompactionTrigger
from service.settings import Settings

LEARN_FROM: Final = 5
"""Compactions that were done, by whose length the margin before a deadline is learnt."""
MARGIN_TIMES: Final = 3.0
"""The longest of them so many times: room for one that is refused, one that waits for a worker, and the good one."""
PAUSE_FIRST: Final = timedelta(minutes=5)
PAUSE_MOST: Final = timedelta(hours=4)
"""After one that came to nothing others are not tried at once; twice as long each time."""
REST_LEAST: Final = timedelta(minutes=1)


def due_trigger(facts: TriggerFacts, settings: Settings, now: datetime) -> CompactionTrigger | None:
    """The trigger that asks for a compaction now, the most pressing one; None where none does, or one is open."""
    if facts.base is None or facts.is_open or now < rests_until(facts.ended, now):
        return None
    if facts.earliest_due is not None and facts.earliest_due - margin(facts.ended, settings) <= now:
        return CompactionTrigger.DEADLINE
    if facts.refused and settings.compaction_on_refusal:
        return CompactionTrigger.REFUSAL
    n_edges = facts.base.n_edges
    if (
        settings.compaction_share is not None
        and n_edges
        and facts.forgotten_pairs / n_edges >= settings.compaction_share
    ):
        return CompactionTrigger.SHARE
    hours = settings.compaction_interval_hours
    if hours is not None and facts.base.created_at + timedelta(hours=hours) <= now:
        return CompactionTrigger.INTERVAL
    return None


def margin(ended: Sequence[Compaction], settings: Settings) -> timedelta:
    """How long before the earliest deadline a compaction is to begin.

    The setting, but no more than half the time that an erasure has; longer where compactions take longer.
    """
    took = [each.seconds for each in ended if each.status == CompactionStatus.DONE and each.seconds is not None]
    learnt = timedelta(seconds=MARGIN_TIMES * max(took[:LEARN_FROM], default=0.0))
    least = timedelta(hours=settings.compaction_margin_hours)
    return max(learnt, min(least, timedelta(days=settings.due_days) / 2))


def rests_until(ended: Sequence[Compaction], now: datetime) -> datetime:
    """Until when no trigger but an operator starts one.

    After one that was done, as long as that took: what could not be completed must not have it run without an end.
    """
    if not ended or ended[0].finished_at is None:
        return now
    latest = ended[0]
    assert latest.finished_at is not None
    if latest.status == CompactionStatus.DONE:
        return latest.finished_at + max(timedelta(seconds=latest.seconds or 0.0), REST_LEAST)
    in_vain = next((place for place, each in enumerate(ended) if each.status == CompactionStatus.DONE), len(ended))
    pause: timedelta = PAUSE_FIRST * 2 ** min(in_vain - 1, 16)
    return latest.finished_at + min(pause, PAUSE_MOST)
