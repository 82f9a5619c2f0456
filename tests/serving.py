"""Runs an application on the house's own HTTP server, so that tests see what callers see: paths, bounds, headers."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from fastapi import FastAPI

from service.platform.http_server import ApplicationServer, server_config


class _Server(ApplicationServer):
    """A server that tells when it answers."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config, stopping)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()


@contextmanager
def serving(app: FastAPI, *, connections_max: int = 800, **config: Any) -> Iterator[str]:
    """Serve an application on a port of its own, in a thread; yields its URL. Fails where it does not start.

    `config` replaces arguments of the server's configuration.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        server = _Server(
            server_config(app, connections_max=connections_max, **config),
            lambda: app.state.services.stopping.set(),
        )
        thread = threading.Thread(target=_run, args=(server, listener), name="server", daemon=True)
        thread.start()
        try:
            assert server.settled.wait(30), "The application did not start within 30 s."
            assert server.started, "The application refused to start."
            host, port = listener.getsockname()
            yield f"http://{host}:{port}"
        finally:
            server.should_exit = True
            thread.join(30)
        assert not thread.is_alive(), "The application did not stop within 30 s."


def _run(server: _Server, listener: socket.socket) -> None:
    with suppress(SystemExit):  # its way to say that the application refused to start
        server.run([listener])
