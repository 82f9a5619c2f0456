"""An hour of load with trouble of every kind: what is lost, repeated or shown, and what grows."""

from typing import Any

from tests.faults.harness import cells
from tests.faults.harness.callers import WEIGHTS
from tests.faults.harness.kills import COMPACTING
from tests.faults.harness.trial import Script, perform
from tests.faults.harness.world import LARGE, Templates

LENGTH = 60.0
# Two hands: one for processes, one for what is around them. Each kind comes up some times a minute.
PROCESSES = (
    "kill_api",
    "kill_worker",
    "die_at_a_point",
    "fail_at_a_point",
    "pause_worker",
    "pause_api",
    "stop_in_order",
    "kill_everything",
    "die_while_loading",
    "kill_compactor",
    "compactor_dies_at_a_point",
)
AROUND = (
    "redis_killed",
    "redis_emptied",
    "redis_flushed",
    "redis_group_lost",
    "redis_log_torn",
    "redis_log_flipped",
    "redis_away",
    "redis_slow",
    "redis_cut",
    "redis_answers_lost",
    "redis_refuses",
    "duplicates",
    "database_cut",
    "database_busy",
    "database_killed",
    "model_damaged",
    "clock_stepped",
    "slow_disk",
)
PAUSE_S = 8.0
# A compaction is asked for by one request in a thousand: every half minute of an hour of 100,000.
ALL = {name: 10 * weight for name, weight in WEIGHTS.items()} | {"compact": 1}
SPARE = 1.25
"""Callers are asked to be this much faster than needed: what they wait for while something is down is made up for."""


def soak(database: str, seed: int, minutes: float, requests: int, templates: Templates) -> dict[str, Any]:
    """Run one soak and write its cell; it ends with the minutes, and the requests are more than asked for."""
    rate = SPARE * requests / (60 * minutes)
    script = Script(
        [PROCESSES, AROUND],
        seconds=60 * minutes,
        rate=rate,
        pause_s=PAUSE_S,
        world=LARGE,
        compacting=True,
        weights=ALL,
        settings=COMPACTING,
    )
    print(f"soak on {database}: {minutes:g} minutes, {requests} requests, seed {seed}", flush=True)
    outcome = perform(script, database, seed, templates, keep=cells.KEPT / "soak", sample=True)
    result = {"database": database, "minutes": minutes, "asked_for": requests, **outcome.as_dict()}
    code = cells.code_of((*cells.ENGINE, "soak"))
    cells.cell(f"soak-{database}", code, requests, lambda: result, fresh=True)
    print(
        f"soak on {database}: {outcome.requests} requests, lost {outcome.lost}, duplicated {outcome.duplicated}, "
        f"stale reads {outcome.stale_reads}, {len(outcome.broken)} broken",
        flush=True,
    )
    return result
