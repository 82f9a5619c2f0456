"""How soon a service is there again after everything was killed, and how soon the next worker takes over a batch."""

import random
import time
from typing import Any

from sqlalchemy import select

from service.platform import tables
from tests.factories.workers import Home
from tests.faults.harness import cells
from tests.faults.harness.stage import ROLES, Stage, staged, wait_for
from tests.faults.harness.world import MEDIUM, Templates

ROUNDS = 10
LIMITS_S = {"ready_s": 10.0, "reclaimed_s": 15.0}
# As the product comes: a lease is missed for as long as its default says.
AS_IT_COMES: dict[str, Any] = dict.fromkeys(("lease_seconds", "sweep_seconds", "checkpoint_seconds", "redis_timeout_s"))


def recover(database: str, seed: int, templates: Templates, *, fresh: bool = False) -> dict[str, Any]:
    """Kill API x2, worker x2 and Valkey at once in the middle of a batch, ten times, with the product's own terms.

    Ready: from the start of new processes until both APIs say so. Reclaimed: from the same moment until the batch whose
    worker was killed is settled.
    """

    def measure() -> dict[str, Any]:
        with staged(templates, database, MEDIUM, **AS_IT_COMES) as stage, stage.place() as place:
            chosen, ready, reclaimed = random.Random(seed), [], []
            for _ in range(ROUNDS):
                both = _once(stage, place, chosen)
                ready.append(both[0])
                reclaimed.append(both[1])
        broken = [
            f"{name} took {max(values):.1f} s, more than {LIMITS_S[name]:g}"
            for name, values in (("ready_s", ready), ("reclaimed_s", reclaimed))
            if max(values) > LIMITS_S[name]
        ]
        print(f"recovery {database}: ready {max(ready):.1f} s, reclaimed {max(reclaimed):.1f} s at most", flush=True)
        return {"database": database, "ready_s": ready, "reclaimed_s": reclaimed, "broken": broken}

    code = cells.code_of(("recovery", "stage", "world"))
    done: dict[str, Any] = cells.cell(f"recovery-{database}", code, ROUNDS, measure, fresh=fresh)
    return done


def _once(stage: Stage, place: Home, chosen: random.Random) -> tuple[float, float]:
    """(seconds to ready, seconds to the settled batch) after one death of everything."""
    go = stage.home.parent / f"go-{chosen.random()}"
    accepted = {place.accept(chosen.choice(place.learnt)) for _ in range(5)}
    stage.start("worker-0", "worker.after_apply:pause", go)
    for role in stage.ports:
        stage.start(role)
    wait_for(lambda: go.with_name(f"{go.name}.reached").exists(), 60, "a batch in the middle")
    stage.start("worker-1")
    stage.kill_all()
    stage.valkey.kill()
    begun = time.monotonic()
    stage.valkey.start()
    for role in ROLES:
        stage.start(role)
    stage.wait_until_ready()
    ready = time.monotonic() - begun
    wait_for(lambda: _forgotten(place) >= accepted, 90, "a batch taken over")
    reclaimed = time.monotonic() - begun
    stage.kill_all()
    return round(ready, 2), round(reclaimed, 2)


def _forgotten(place: Home) -> set[str]:
    table = tables.erasures.c
    return {row.id for row in place.rows(select(table.id).where(table.status == "forgotten"))}
