"""Children are started again when they die, in ever longer intervals, and ended in order."""

import os
import signal
import sys
import threading

import pytest

from service.cli.failures import REFUSES_TO_START
from service.cli.supervisor import FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S, BackOff, Program, Supervisor


def test_the_pause_doubles_up_to_a_bound() -> None:
    """A child that dies at once is not started a hundred times a second."""
    back_off = BackOff()

    pauses = [back_off.after(0.1) for _ in range(9)]

    assert pauses[:4] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S, 8 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_a_steady_run_is_forgiven() -> None:
    """A child that dies once an hour is started again at once each time."""
    back_off = BackOff()
    for _ in range(5):
        back_off.after(0.1)

    assert back_off.after(STEADY_S) == FIRST_PAUSE_S


def test_a_child_that_ends_is_started_again() -> None:
    """Whatever the status: a child of the supervisor is not meant to end."""
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if sum("started again" in line for line in said) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    status = Supervisor([Program("child", ("--version",))], say).run()

    assert status == 0
    assert said[0] == "The child ended with status 0; it is started again in 0.5 s."
    assert said[1] == "The child ended with status 0; it is started again in 1 s."


def test_a_program_that_refuses_to_start_ends_them_all() -> None:
    """A wrong setting is not mended by trying again."""
    said: list[str] = []
    programs = [Program("child", ("status",), {"EXPUNGE_PORT": "none"})]

    status = Supervisor(programs, said.append).run()

    assert status == REFUSES_TO_START
    assert said[0] == "The child refuses to start; the line above says why."


def test_the_handlers_of_signals_are_given_back() -> None:
    """Whoever ran before the supervisor is told of signals again."""
    before = signal.getsignal(signal.SIGTERM)

    Supervisor([Program("child", ("status",), {"EXPUNGE_PORT": "none"})], lambda _: None).run()

    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_descriptor_is_left_open() -> None:
    """Pipes to children are closed at the end."""

    def supervise() -> None:
        Supervisor([Program("child", ("status",), {"EXPUNGE_PORT": "none"})], lambda _: None).run()

    supervise()
    before = len(os.listdir("/proc/self/fd"))

    supervise()

    assert len(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() < 50
