"""Named points at which a test can make the process die, fail or wait; nothing happens unless one is armed."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Action = Literal["kill", "raise", "pause"]


class FaultInjected(Exception):
    """An armed fault point was reached; a test asked for this."""


@dataclass(frozen=True)
class Fault:
    """What happens where: at the `nth` passage of `point` do `action`."""

    point: str
    action: Action
    nth: int = 1
    file: Path | None = None


_armed: Fault | None = None
_passed = 0


def parse_fault(spec: str, file: Path | None = None) -> Fault:
    """Read `<point>:kill|raise|pause[:<nth passage>]`; raises ValueError naming what is wrong with it."""
    point, _, rest = spec.partition(":")
    action, _, nth = rest.partition(":")
    if not point or action not in get_args(Action) or (nth and not nth.isdigit()):
        msg = "EXPUNGE_FAULT must read <point>:kill, <point>:raise or <point>:pause, optionally with :<nth passage>."
        raise ValueError(msg)
    if action == "pause" and file is None:
        msg = "EXPUNGE_FAULT asks for a pause; EXPUNGE_FAULT_FILE must name the file that ends it."
        raise ValueError(msg)
    return Fault(point, action, int(nth or 1), file)  # type: ignore[arg-type]  # checked above


def arm(fault: Fault | None) -> None:
    """Arm one fault of this process, or none."""
    global _armed, _passed
    _armed, _passed = fault, 0


def fault_point(name: str) -> None:
    """Mark a step at which the process may be made to die; free unless a fault is armed here.

    Raises FaultInjected where the armed action is `raise`.
    """
    if _armed is not None and _armed.point == name:
        _happen(_armed)


def _happen(fault: Fault) -> None:
    global _passed
    _passed += 1
    if _passed != fault.nth:
        return
    if fault.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.action == "raise":
        raise FaultInjected(fault.point)
    _wait(fault.file)


def _wait(file: Path | None) -> None:
    if file is None:
        return
    # The test waits for this file, so that it acts while the process stands here.
    Path(f"{file}.reached").touch()
    while not file.exists():
        time.sleep(0.005)


def _arm_from_environment() -> None:
    spec = os.environ.get("EXPUNGE_FAULT")
    if spec:
        file = os.environ.get("EXPUNGE_FAULT_FILE")
        arm(parse_fault(spec, Path(file) if file else None))


_arm_from_environment()
