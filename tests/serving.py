"""Runs an application on a real HTTP server, so that tests see what callers see: decoded paths, limits, headers."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from fastapi import FastAPI


class _Server(uvicorn.Server):
    """A server that tells when it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve an application on a port of its own, in a thread; yields its URL. Fails where it does not start."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        config = uvicorn.Config(app, loop="uvloop", http="httptools", ws="none", log_config=None, access_log=False)
        server = _Server(config)
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
