"""The compose file in real containers, driven from outside: bring it up, kill parts of it, ask it over HTTP.

Standard library only. Uses podman with podman-compose where they are there, else Docker with its compose plug-in.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "expunge-test"
STAND_INS = Path(os.environ.get("EXPUNGE_STAND_INS", "/var/tmp/expunge-stand-ins"))  # noqa: S108
COMPOSE_SECONDS = 1200
IMAGES = ("python:3.11-slim", "postgres:16", "valkey/valkey:8", "prom/prometheus:v3.5.0")

T = TypeVar("T")


class Missing(Exception):
    """Something that this machine would need; the text says what and how to get it."""


class Failed(Exception):
    """The stack did not do what it must."""


@dataclass(frozen=True)
class Engine:
    """The programs that run containers here."""

    program: str
    compose: tuple[str, ...]

    @classmethod
    def find(cls) -> "Engine":
        """The engine of this machine with the base images at hand; raises Missing."""
        own = STAND_INS / "compose" / "bin" / "podman-compose"
        podman_compose = shutil.which("podman-compose") or (str(own) if own.exists() else None)
        if shutil.which("podman") and podman_compose:
            engine = cls("podman", (podman_compose, "--podman-run-args=--pull=never"))
        elif shutil.which("docker") and _succeeds("docker", "compose", "version") and _succeeds("docker", "info"):
            engine = cls("docker", ("docker", "compose"))
        else:
            msg = "neither podman with podman-compose nor a Docker engine with compose is here (see docs/deployment.md)"
            raise Missing(msg)
        absent = [image for image in IMAGES if not _succeeds(engine.program, "image", "inspect", image)]
        if absent:
            msg = f"images are missing: {', '.join(absent)}. Pull them, or run docker/stand-ins.sh where no registry is"
            raise Missing(msg)
        return engine


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    body: Any


@dataclass(frozen=True)
class Accepted:
    """An erasure of one interaction that was answered with 202."""

    id: str
    user_id: str
    item_id: str


class Stack:
    """One project of containers made from docker-compose.yml."""

    def __init__(self, engine: Engine, folder: Path, data: Path) -> None:
        self.engine = engine
        self.api, self.prometheus = free_port(), free_port()
        self.key: str | None = None
        self.accepted: list[Accepted] = []
        self.environment = {
            "EXPUNGE_SECRET_KEY": secrets.token_urlsafe(48),
            "POSTGRES_PASSWORD": secrets.token_hex(16),
            "DATA_DIR": str(data),
            "API_PUBLISH": f"127.0.0.1:{self.api}",
            "PROMETHEUS_PUBLISH": f"127.0.0.1:{self.prometheus}",
        }
        self._log = (folder / "containers.log").open("a")

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run a compose command on the project; its standard output. Raises Failed with the end of what it said."""
        command = [*self.engine.compose, "-p", PROJECT, "-f", str(ROOT / "docker-compose.yml"), *arguments]
        outside = {name: value for name, value in os.environ.items() if not name.startswith("EXPUNGE_")}
        build = {"BUILDAH_ISOLATION": "chroot", "BUILDAH_FORMAT": "docker"}
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=outside | build | self.environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=COMPOSE_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            self._log.write(f"$ {' '.join(arguments)}\n{error.stdout!r}\n{error.stderr!r}\n")
            msg = f"compose {' '.join(arguments)} did not end: {(error.stderr or b'')[-1000:]!r}"
            raise Failed(msg) from error
        self._log.write(f"$ {' '.join(arguments)}\n{done.stdout}{done.stderr}\n")
        self._log.flush()
        if check and done.returncode != 0:
            msg = f"compose {' '.join(arguments)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}"
            raise Failed(msg)
        return done.stdout

    def up(self) -> None:
        """Bring everything up in the order of its conditions, which old podman cannot wait for by itself."""
        if self.engine.program == "docker":
            self.compose("up", "-d")
            return
        self.compose("up", "-d", "--no-deps", "postgres", "valkey")
        for service in ("postgres", "valkey"):
            eventually(f"{service} is healthy", partial(self.healthy, service))
        self.compose("up", "-d", "--no-deps", "migrate")
        code = run(self.engine.program, "wait", self.container("migrate")).strip()
        require(code == "0", f"migrate ended with {code}")
        self.compose("up", "-d", "--no-deps", "api", "worker", "prometheus")

    def container(self, service: str) -> str:
        """The id of the first container of a service."""
        label = f"label=com.docker.compose.service={service}"
        own = f"label=com.docker.compose.project={PROJECT}"
        found = run(self.engine.program, "ps", "-aq", "--filter", label, "--filter", own).split()
        if not found:
            msg = f"{service} has no container"
            raise Failed(msg)
        return found[0]

    def kill(self, *services: str) -> None:
        """End containers at once, as a power cut would."""
        run(self.engine.program, "kill", "--signal", "KILL", *(self.container(service) for service in services))

    def start(self, *services: str) -> None:
        """Start containers that were killed, with the volumes that they had."""
        run(self.engine.program, "start", *(self.container(service) for service in services))

    def inside(self, service: str, *command: str) -> str:
        """Run a command in a running container."""
        return run(self.engine.program, "exec", self.container(service), *command)

    def healthy(self, service: str) -> bool:
        """Whether the container's own health check passes now. (Podman runs none by itself where systemd is absent.)"""
        if self.engine.program == "podman":
            return _succeeds("podman", "healthcheck", "run", self.container(service))
        return run("docker", "inspect", "-f", "{{.State.Health.Status}}", self.container(service)).strip() == "healthy"

    def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request to the API with the key of this test; status 0 where nobody answers."""
        own = {"Content-Type": "application/json", **(headers or {})}
        if self.key is not None:
            own["Authorization"] = f"Bearer {self.key}"
        return http(f"http://127.0.0.1:{self.api}{path}", method, body, own)

    def monitoring(self, path: str) -> Any:
        """The `data` of an answer of Prometheus' own API, None where it does not answer."""
        answer = http(f"http://127.0.0.1:{self.prometheus}{path}", "GET", None, {})
        return answer.body["data"] if answer.status == 200 else None

    def down(self) -> None:
        """Remove containers, networks and volumes of the project."""
        self.compose("--profile", "train", "down", "-v", "--remove-orphans", check=False)


@contextmanager
def running(engine: Engine, folder: Path, data: Path) -> Iterator[Stack]:
    """A stack that is gone afterwards, whatever happens; what containers said is in `containers.log` in the folder."""
    stack = Stack(engine, folder, data)
    stack.down()
    try:
        yield stack
    except BaseException:
        for service in ("api", "worker", "migrate", "postgres", "valkey", "prometheus"):
            stack.compose("logs", "--tail", "60", service, check=False)
        raise
    finally:
        stack.down()


def http(url: str, method: str, body: Any, headers: Mapping[str, str]) -> Answer:
    """One request; JSON in, JSON out where it is JSON; status 0 where nobody answers."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, dict(headers), method=method)
    try:
        with urllib.request.urlopen(request, timeout=15) as response:
            return Answer(response.status, _read(response.read()))
    except urllib.error.HTTPError as error:
        return Answer(error.code, _read(error.read()))
    except OSError as error:
        return Answer(0, repr(error))


def eventually(what: str, look: Callable[[], T], seconds: float = 60.0) -> T:
    """The first true answer of `look`; raises Failed with the last one when none comes in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = look()
        if answer:
            return answer
        if time.monotonic() > deadline:
            msg = f"not within {seconds:g} s: {what} (last: {answer!r})"
            raise Failed(msg)
        time.sleep(0.2)


def require(true: object, what: str) -> None:
    """Raise Failed unless it is true."""
    if not true:
        raise Failed(what)


def run(*command: str) -> str:
    """The standard output of a command; raises Failed with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        msg = f"{' '.join(command[:4])} ended with {done.returncode}: {done.stderr[-1000:]}"
        raise Failed(msg)
    return done.stdout


def free_port() -> int:
    """A port of the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _succeeds(*command: str) -> bool:
    return _code(command) == 0


def _code(command: Sequence[str]) -> int:
    return subprocess.run(command, capture_output=True, check=False).returncode


def _read(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode(errors="replace")
