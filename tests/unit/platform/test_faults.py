import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.platform import faults
from service.platform.faults import Fault, FaultInjected, fault_point, parse_fault


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    faults.arm(None)


def test_a_point_that_is_not_armed_does_nothing():
    """Production passes through."""
    fault_point("worker.after_publish")


def test_an_armed_point_raises():
    """`:raise` fails the step."""
    faults.arm(parse_fault("worker.after_publish:raise"))

    fault_point("worker.before_publish")
    with pytest.raises(FaultInjected):
        fault_point("worker.after_publish")


def test_a_fault_can_wait_for_a_later_passage():
    """`:raise:3` lets two go by and happens once."""
    faults.arm(parse_fault("p:raise:3"))

    fault_point("p")
    fault_point("p")
    with pytest.raises(FaultInjected):
        fault_point("p")
    fault_point("p")


def test_kill_ends_the_process_as_kill_9_does():
    """Nothing is cleaned up, nothing is flushed."""
    code = "from service.platform.faults import fault_point; fault_point('p'); print('alive')"

    done = subprocess.run(
        [sys.executable, "-c", code], env={"EXPUNGE_FAULT": "p:kill"}, capture_output=True, text=True, check=False
    )

    assert done.returncode == -signal.SIGKILL
    assert done.stdout == ""


def test_a_pause_ends_when_its_file_appears(tmp_path: Path):
    """The process says that it stands there, and goes on when told."""
    go = tmp_path / "go"
    code = "from service.platform.faults import fault_point; fault_point('p'); print('went on')"
    environment = {"EXPUNGE_FAULT": "p:pause", "EXPUNGE_FAULT_FILE": str(go)}

    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as process:
        while not Path(f"{go}.reached").exists():
            assert process.poll() is None
        go.touch()
        output, _ = process.communicate(timeout=30)

    assert output == "went on\n"


@pytest.mark.parametrize("spec", ["", "p", "p:", "p:explode", ":kill", "p:kill:soon"])
def test_a_fault_that_makes_no_sense_is_refused(spec: str):
    """The text shows how one is written."""
    with pytest.raises(ValueError, match="<point>:kill"):
        parse_fault(spec)


def test_a_pause_needs_a_file():
    """Or it would never end."""
    with pytest.raises(ValueError, match="EXPUNGE_FAULT_FILE"):
        parse_fault("p:pause")


def test_a_fault_is_read_in_full():
    """Point, action, passage."""
    assert parse_fault("p:kill:2") == Fault("p", "kill", 2)
