"""A TCP proxy that can be slow, cut connections, and lose answers whose requests arrived."""

import asyncio
import threading
from contextlib import suppress


class Proxy:
    """Stands between the service and a server of this machine.

    Args:
        target: the server's port.
    """

    def __init__(self, target: int) -> None:
        self.delay_s = 0.0
        """How long what is sent to the server is kept back."""
        self.lose_answers = False
        """Whether requests arrive and their connection is cut before the answer."""
        self.port = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._listening = threading.Event()

    def __enter__(self) -> "Proxy":
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def cut(self) -> None:
        """Cut every connection."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        self._loop.run_forever()
        server.close()
        self._cut()
        if tasks := asyncio.all_tasks(self._loop):  # they end by themselves, their connections being cut
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=5))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        both = (writer, far_writer)
        self._open.update(both)
        try:
            await asyncio.gather(self._there(reader, far_writer, both), self._back(far_reader, writer, both))
        finally:
            self._open.difference_update(both)

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, both: object) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
        _abort(both)

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, both: object) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.lose_answers:
                    break
                writer.write(data)
                await writer.drain()
        _abort(both)


def _abort(both: object) -> None:
    for writer in both:  # type: ignore[attr-defined]
        writer.transport.abort()
