"""A pipe by which a child learns that its parent is gone, however it died: no orphan goes on serving."""

import os
import signal
import threading

PARENT_PIPE_VARIABLE = "EXPUNGE_PARENT_PIPE"


def exit_with_parent() -> None:
    """Where a parent left such a pipe, end this process (by SIGTERM, so that it drains) when the parent is gone."""
    given = os.environ.pop(PARENT_PIPE_VARIABLE, None)
    if given is None:
        return
    descriptor = int(given)
    os.set_inheritable(descriptor, False)
    threading.Thread(target=_wait, args=(descriptor,), name="parent-watch", daemon=True).start()


def _wait(descriptor: int) -> None:
    # Nothing is ever written: the read ends when the last writing end, the parent's, is closed.
    os.read(descriptor, 1)
    os.kill(os.getpid(), signal.SIGTERM)
