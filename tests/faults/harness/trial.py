"""One trial: a stage, callers, a nemesis; then everything is healed, comes to rest, and is judged."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.harness.callers import WEIGHTS, Caller, Callers
from tests.faults.harness.history import History
from tests.faults.harness.judging import Verdict, at_rest, judge
from tests.faults.harness.nemesis import Nemesis
from tests.faults.harness.sampling import Sampler
from tests.faults.harness.stage import COMPACTOR, ROLES, NotInTime, Stage, staged, wait_for
from tests.faults.harness.world import SMALL, Templates, World

REST_S, COMPACTED_S = 90.0, 400.0
CALLERS = 3


@dataclass(frozen=True)
class Script:
    """What happens in a trial.

    Args:
        troubles: what goes wrong; several hands make trouble at the same time, each with its own list.
        seconds: how long.
        rate: requests a second, of all callers together.
        most: requests, where the trial is to end earlier.
        pause_s: mean time between two troubles of one hand.
        weights: how often callers do what.
        settings: other than those of every trial.
        own_disk: whether the home needs a disk that can be full.
        compacting: whether a compactor runs, too.
    """

    troubles: Sequence[Sequence[str]]
    seconds: float = 6.0
    rate: float = 40.0
    most: int | None = None
    pause_s: float = 0.7
    weights: Mapping[str, int] = field(default_factory=lambda: WEIGHTS)
    settings: Mapping[str, Any] = field(default_factory=dict)
    own_disk: bool = False
    compacting: bool = False
    world: World = SMALL


@dataclass
class Outcome:
    """What came of a trial."""

    seed: int
    requests: int
    answered: int
    erasures: int
    lost: int
    duplicated: int
    stale_reads: int
    broken: list[str]
    happened: dict[str, int]
    not_made: list[str]
    processes: int
    seconds: float
    samples: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def perform(
    script: Script, database: str, seed: int, templates: Templates, *, keep: Path | None = None, sample: bool = False
) -> Outcome:
    """Perform a trial.

    Args:
        script: what happens.
        database: sqlite or postgresql.
        seed: of everything that is chosen.
        templates: homes to copy.
        keep: folder for the history and the log of a trial in which something did not hold.
        sample: whether memory and files are watched.
    """
    started, history = time.monotonic(), History()
    with staged(templates, database, script.world, own_disk=script.own_disk, **script.settings) as stage:
        ports = list(stage.ports.values())
        callers = [
            Caller(number, seed, script.world, ports, stage.token, history, script.weights) for number in range(CALLERS)
        ]
        hands = [
            Nemesis(stage, f"{seed}-{number}", troubles, script.pause_s)
            for number, troubles in enumerate(script.troubles)
        ]
        sampler = Sampler(stage, interval_s=5.0 if sample else 0.0)
        with stage.running((*ROLES, COMPACTOR) if script.compacting else ROLES):
            stage.wait_until_ready()
            with sampler, Callers(callers, script.seconds, script.rate, script.most) as busy:
                _trouble(hands, busy)
            verdict = _heal_and_judge(stage, history, COMPACTED_S if script.compacting else REST_S)
        outcome = Outcome(
            seed,
            len(history),
            sum(each.outcome == "ok" for each in history),
            len({each.asked["key"] for each in history.named("erase")}),
            verdict.lost,
            verdict.duplicated,
            verdict.stale_reads,
            verdict.broken[:20],
            dict(sum((hand.happened for hand in hands), Counter())),
            [text for hand in hands for text in hand.failed][:20],
            stage.started,
            round(time.monotonic() - started, 1),
            sampler.result() if sample else {},
        )
        if verdict.broken and keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            history.write(keep / f"{database}-{seed}.history.jsonl")
            (keep / f"{database}-{seed}.log").write_bytes(stage.log.read_bytes()[-5_000_000:])
    return outcome


def _trouble(hands: list[Nemesis], busy: Callers) -> None:
    for hand in hands:
        hand.__enter__()
    try:
        while busy.busy:
            time.sleep(0.1)
    finally:
        for hand in hands:
            hand.__exit__()


def _heal_and_judge(stage: Stage, history: History, rest_s: float) -> Verdict:
    """Wait until everything has come to rest, and judge."""
    with stage.place() as place:
        try:
            wait_for(lambda: at_rest(place), rest_s, "rest")
            stage.wait_until_ready()
        except NotInTime as error:
            verdict = judge(history, place)
            verdict.note("P1", str(error))
            return verdict
        return judge(history, place)
