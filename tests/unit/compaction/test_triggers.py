"""When a compaction begins by itself."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.compaction.repository import BaseInUse, Compaction, TriggerFacts
from service.compaction.triggers import due_trigger, margin
from service.settings import load_settings

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
BASE = BaseInUse(1, 0, NOW - timedelta(days=30), 1000)
FACTS = TriggerFacts(BASE, 0, None, False, [], False)
SETTINGS = load_settings(home=Path("/nonexistent"))


def ended(status: str, ago: timedelta, took: timedelta = timedelta(minutes=2)) -> Compaction:
    at = NOW - ago
    return Compaction("c", "operator", status, "finishing", 1, None, at, at - took, at, 1, 2, 9, 0, {}, {}, None, {})


@pytest.mark.parametrize(
    ("facts", "trigger"),
    [
        (FACTS, None),
        (replace(FACTS, forgotten_pairs=19), None),
        (replace(FACTS, forgotten_pairs=20), "share"),
        (replace(FACTS, earliest_due=NOW + timedelta(hours=25)), None),
        (replace(FACTS, earliest_due=NOW + timedelta(hours=24)), "deadline"),
        (replace(FACTS, earliest_due=NOW - timedelta(hours=1), forgotten_pairs=99), "deadline"),
        (replace(FACTS, refused=True), "refusal"),
        (replace(FACTS, forgotten_pairs=99, is_open=True), None),
        (replace(FACTS, base=None, forgotten_pairs=99), None),
    ],
)
def test_each_trigger_has_its_bound(facts: TriggerFacts, trigger: str | None) -> None:
    """What is open already, and a home without a base, need none."""
    assert due_trigger(facts, SETTINGS, NOW) == trigger


def test_the_age_of_the_base_counts_only_where_that_is_wanted() -> None:
    """For freshness; off by default."""
    daily = SETTINGS.model_copy(update={"compaction_interval_hours": 24.0})

    assert due_trigger(FACTS, daily, NOW) == "interval"
    assert due_trigger(FACTS, daily, BASE.created_at + timedelta(hours=23)) is None


def test_the_margin_is_learnt_from_how_long_the_last_ones_took() -> None:
    """Three times the longest of five; at least the setting, and no more of it than half the time there is."""
    long = [ended("done", timedelta(days=each), timedelta(hours=each)) for each in (1, 10, 2, 3, 4, 90)]

    assert margin([], SETTINGS) == timedelta(hours=24)
    assert margin(long, SETTINGS) == timedelta(hours=30)
    assert margin([], SETTINGS.model_copy(update={"due_days": 0.5})) == timedelta(hours=6)


def test_after_one_in_vain_triggers_wait_ever_longer() -> None:
    """5 minutes, then twice as long; after one that was done, as long as it took."""
    due = replace(FACTS, forgotten_pairs=99)

    def begins(*before: Compaction) -> bool:
        return due_trigger(replace(due, ended=before), SETTINGS, NOW) is not None

    assert not begins(ended("refused", timedelta(minutes=4)))
    assert begins(ended("refused", timedelta(minutes=5)))
    assert not begins(ended("failed", timedelta(minutes=9)), ended("refused", timedelta(hours=1)))
    assert begins(ended("failed", timedelta(minutes=10)), ended("refused", timedelta(hours=1)))
    assert begins(*[ended("refused", timedelta(hours=4))] * 20)
    assert not begins(ended("done", timedelta(minutes=1)))
    assert begins(ended("done", timedelta(minutes=2)))
