"""Waiting for what another thread or process does."""

import time
from collections.abc import Callable

LIMIT_S = 20.0


def eventually(holds: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Return as soon as a condition holds; fail where it does not within the limit."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, f"It did not happen within {limit_s} s."
        time.sleep(0.01)
