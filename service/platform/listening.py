"""Listening sockets: a port whose last holder still ends is waited for."""

import errno
import socket
import time
from typing import Final

BACKLOG: Final = 2048
PATIENCE_S: Final = 5.0
STEP_S: Final = 0.1


class CannotListen(Exception):
    """The address cannot be listened on, now or ever; the text is a sentence that says why."""


class PortInUse(CannotListen):
    """Another process listens there, and did not let go of it in time; trying again later may help."""


def listen(host: str, port: int, patience_s: float = PATIENCE_S) -> socket.socket:
    """A listening socket on the first address that the host name has; port 0 takes a free one.

    Raises:
        PortInUse: it was taken for all of `patience_s` seconds, as by a process that takes long to end.
        CannotListen: trying again would not help.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        raise CannotListen(f"The host {host} is not known here.") from None
    end = time.monotonic() + patience_s
    while True:
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            if error.errno != errno.EADDRINUSE:
                raise CannotListen(f"Cannot listen on {host}:{port} ({error.strerror}).") from None
            if time.monotonic() >= end:
                raise PortInUse(f"Port {port} of {host} is in use by another program.") from None
            time.sleep(STEP_S)
        else:
            return listening
