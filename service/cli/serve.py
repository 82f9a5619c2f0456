"""`expunge serve`, `api`, `worker` and `compactor`: the processes that run for as long as they are let."""

from __future__ import annotations

import http.client
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.cli.context import Home, open_home, settings_of
from service.cli.failures import REFUSES_TO_START, TRY_AGAIN, Refusal
from service.cli.parent_watch import exit_with_parent

if TYPE_CHECKING:
    from fastapi import FastAPI

    from service.cli.supervisor import Supervisor

READY_WITHIN_S = 600.0
ASK_S = 30.0

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on [127.0.0.1].")]
Port = Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
LogFormat = Annotated[
    Literal["json", "text", "auto"] | None,
    typer.Option("--log-format", help="Of the log on standard error; auto is text on a terminal, else JSON [auto]."),
]
LogRequests = Annotated[
    bool | None,
    typer.Option(
        "--log-requests/--no-log-requests", help="Log each request, not only those that fail with a 5xx [no]."
    ),
]


def serve(
    context: typer.Context,
    host: Host = None,
    port: Port = None,
    log_format: LogFormat = None,
    log_requests: LogRequests = None,
) -> None:
    """Run everything: API, worker, compactor and an embedded stream server, each its own process.

    Ctrl-C or SIGTERM ends them in order. A process that dies is started again. The first start makes an admin key and
    prints it once.
    """
    from service.cli.supervisor import Program, Supervisor
    from service.platform.embedded import EmbeddedValkey
    from service.platform.listening import listen
    from service.platform.logging import configure_logging

    exit_with_parent()
    settings = settings_of(context, host=host, port=port, log_format=log_format, log_requests=log_requests)
    configure_logging(settings.log_level, settings.log_format, "serve")
    with _refusing("--port"):
        listening = listen(settings.host, settings.port)
    with open_home(settings, upgrade=True, behind=True) as home:
        _greet(home)
        if home.behind is not None:  # it starts, so that /readyz can tell; it answers nothing else
            _say(f"{home.behind} Nothing is answered before that is mended: `expunge status`, docs/runbook.md.")
    embedded = None if settings.redis_url else EmbeddedValkey(settings.home, settings.valkey_binary)
    if embedded is not None:
        embedded.start()
    try:
        environment = {
            "EXPUNGE_HOME": str(settings.home),
            "EXPUNGE_REDIS_URL": settings.redis_url or "",
            "EXPUNGE_LOG_FORMAT": settings.log_format,
            "EXPUNGE_LOG_REQUESTS": str(settings.log_requests),
        }
        if embedded is not None:
            environment["EXPUNGE_REDIS_URL"] = embedded.url
        descriptor = listening.fileno()
        supervisor = Supervisor(
            (
                Program("API", ("api", "--fd", str(descriptor)), environment, (descriptor,)),
                Program("worker", ("worker",), environment),
                Program("compactor", ("compactor",), environment),
            ),
            _say,
        )
        _announce(supervisor, listening)
        status = supervisor.run()
    finally:
        listening.close()
        if embedded is not None:
            embedded.stop()
    _say("Stopped.")
    raise typer.Exit(status)


def api(
    context: typer.Context,
    host: Host = None,
    port: Port = None,
    log_format: LogFormat = None,
    log_requests: LogRequests = None,
    fd: Annotated[int | None, typer.Option("--fd", hidden=True)] = None,
) -> None:
    """Run the API alone. It never imports torch; any number may run beside each other."""
    from service.app import create_app, stop_waiting
    from service.platform.http_server import ApplicationServer, server_config
    from service.platform.listening import listen

    exit_with_parent()
    settings = settings_of(context, host=host, port=port, log_format=log_format, log_requests=log_requests)
    with _refusing("--port"):
        listening = listen(settings.host, settings.port) if fd is None else socket.socket(fileno=fd)
    app = create_app(settings)
    failures = _noting_failures(app)
    config = server_config(app, connections_max=settings.connections_max)
    # uvicorn raises the signal that ended it once more, at its end; that was asked for and is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    try:
        ApplicationServer(config, lambda: stop_waiting(app)).run(sockets=[listening])
    except SystemExit:
        raise (failures[0] if failures else Refusal("The API could not start.", REFUSES_TO_START)) from None


def worker(context: typer.Context, log_format: LogFormat = None) -> None:
    """Run a worker alone: it makes the model forget. One works at a time, any others stand by."""
    from service.worker.process import run_worker

    exit_with_parent()
    settings = settings_of(context, log_format=log_format)
    with _refusing("EXPUNGE_METRICS_PORT"):
        status = run_worker(settings)
    raise typer.Exit(status)


def compactor(context: typer.Context, log_format: LogFormat = None) -> None:
    """Run a compactor alone: it trains the base anew and completes erasures. One works at a time, others stand by."""
    from service.compactor.process import run_compactor

    exit_with_parent()
    raise typer.Exit(run_compactor(settings_of(context, log_format=log_format)))


@contextmanager
def _refusing(setting: str) -> Iterator[None]:
    """Say what to do about a port that cannot be had; final only where trying again would not help."""
    from service.platform.listening import CannotListen, PortInUse

    try:
        yield
    except PortInUse as error:
        msg = f"{error} Stop that one (`ss -ltnp` names it), or choose another port with {setting}."
        raise Refusal(msg, TRY_AGAIN) from None
    except CannotListen as error:
        msg = f"{error} Choose another host with EXPUNGE_HOST, or another port with {setting}."
        raise Refusal(msg, REFUSES_TO_START) from None


def address_of(listening: socket.socket) -> tuple[str, int]:
    """Host and port under which this machine reaches a listening socket."""
    host, port = listening.getsockname()[:2]
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # recognised, not bound
    return everywhere.get(host, host), port


def _say(text: str) -> None:
    print(text, flush=True)


def _greet(home: Home) -> None:
    from service.platform import auth
    from service.platform.clock import SystemClock

    at = SystemClock().now()
    key = home.database.transact(lambda connection: auth.ensure_first_key(connection, at))
    _say(f"Home      {home.settings.home}")
    if key is not None:
        _say(f"Admin key {key.token}   (shown this once; `expunge keys create` makes others)")


def _announce(supervisor: Supervisor, listening: socket.socket) -> None:
    host, port = address_of(listening)
    shown = f"[{host}]" if ":" in host else host

    def wait() -> None:
        if _answers(host, port):
            supervisor.note(f"API       http://{shown}:{port}   (docs at /docs; Ctrl-C stops)")
            missing = _missing(host, port)
            if missing:
                supervisor.note(missing)

    threading.Thread(target=wait, daemon=True).start()


def _answers(host: str, port: int) -> bool:
    # The socket listens from the start, so the first answer comes the moment that the API can give one.
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        try:
            if _status(host, port, "/livez") == 200:
                return True
        except OSError:
            time.sleep(0.1)
    return False


def _missing(host: str, port: int) -> str:
    """What to do first where the service is not ready."""
    try:
        if _status(host, port, "/readyz") == 200:
            return ""
    except OSError:
        pass
    return "No model serves yet: `expunge import --data DIR`, `expunge train`; no restart is needed."


def _status(host: str, port: int, path: str) -> int:
    connection = http.client.HTTPConnection(host, port, timeout=ASK_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def _noting_failures(app: FastAPI) -> list[BaseException]:
    """Keep what the application's start raises: uvicorn only tells that something did."""
    inner, failures = app.router.lifespan_context, list[BaseException]()

    @asynccontextmanager
    async def noting(application: FastAPI) -> AsyncIterator[None]:
        try:
            async with inner(application):
                yield
        except BaseException as error:
            failures.append(error)
            raise

    app.router.lifespan_context = noting
    return failures
