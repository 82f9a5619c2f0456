"""A stream server that can be killed."""

import subprocess
from contextlib import suppress
from pathlib import Path

import redis

from tests.unit.worker.waiting import eventually


class Server:
    """A stream server that keeps nothing: killed, it comes back empty."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary, self._folder = binary, folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{folder / 'socket'}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        words = ["--port", "0", "--unixsocket", str(self._folder / "socket"), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([self._binary, *words], stdout=subprocess.DEVNULL, cwd=self._folder)
        eventually(self._answers)

    def kill(self) -> None:
        """Kill it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        client = redis.Redis.from_url(self.url)
        with suppress(redis.RedisError):
            return bool(client.ping())
        return False
