"""What operators ask the worker: /livez, /readyz and /metrics on a port of its own, served as the API is."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import orjson
import structlog
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import migrations
from service.platform.application import operational_application
from service.platform.gauges import Scraper
from service.platform.http_server import ApplicationServer, server_config
from service.platform.integrity import read_both_ends
from service.platform.listening import listen
from service.platform.obstacles import obstacle_to, read_forgetting_state
from service.platform.problem import MEDIA_TYPE, NotReady, Problem
from service.worker.worker import Worker

CONNECTIONS_MAX = 64
GRACE_S = 1

log = structlog.get_logger()


class MonitorResponse(NamedTuple):
    """A response: status code, media type, body."""

    status: int
    media_type: str
    body: bytes


class Monitor:
    """Serves the worker's health and metrics on a thread of its own.

    Args:
        worker: whose health is told.
        host: address to listen on.
        port: TCP port; 0 takes a free one, see `port`.

    Raises:
        PortInUse, CannotListen: as `listen` does.
    """

    def __init__(self, worker: Worker, host: str, port: int) -> None:
        self._worker, self._listening = worker, listen(host, port)
        self._scraper = Scraper(worker.dependencies.database, worker.dependencies.stream, worker.dependencies.clock)
        self.port = int(self._listening.getsockname()[1])
        """The port that it listens on."""
        routes = {"/livez": self._livez, "/readyz": self._readyz, "/metrics": self._metrics}
        app = operational_application([_route(path, answer) for path, answer in routes.items()])
        config = server_config(app, connections_max=CONNECTIONS_MAX, lifespan="off", timeout_graceful_shutdown=GRACE_S)
        self._server = ApplicationServer(config, lambda: None)
        self._thread = threading.Thread(target=self._server.run, args=([self._listening],), name="monitor", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()
        log.info("monitor.started", port=self.port)

    def stop(self) -> None:
        """Answer no more."""
        self._server.should_exit = True
        self._thread.join()
        self._listening.close()
        self._scraper.close()

    def _livez(self) -> MonitorResponse:
        return MonitorResponse(200, "application/json", orjson.dumps({"status": "ok"}))

    def _readyz(self) -> MonitorResponse:
        """Standing by is ready too: a standby is there to take over."""
        checks = {"database": self._database(), "redis": self._redis(), "unlearning": self._unlearning()}
        if self._worker.dependencies.integrity is not None:
            found = self._worker.dependencies.integrity.findings()
            checks |= {name: {"status": each.status, "detail": each.detail} for name, each in found.items()}
        statuses = {check["status"] for check in checks.values()}
        if "failed" in statuses:
            body = {"checks": checks, **NotReady().body("readyz"), "status": "failed"}
            return MonitorResponse(NotReady.status, MEDIA_TYPE, orjson.dumps(body))
        status = "degraded" if "degraded" in statuses else "ok"
        return MonitorResponse(200, "application/json", orjson.dumps({"status": status, "checks": checks}))

    def _metrics(self) -> MonitorResponse:
        return MonitorResponse(200, CONTENT_TYPE_LATEST, self._scraper.render())

    def _database(self) -> dict[str, str]:
        try:
            revision = self._worker.dependencies.database.query(migrations.revision_of)
            if revision is None or revision < migrations.head():
                return {"status": "failed", "detail": "The schema is behind this code: run `expunge db upgrade`."}
            self._worker.dependencies.database.query(read_both_ends)
        except Problem as problem:
            return {"status": "failed", "detail": problem.code}
        return {"status": "ok", "detail": f"migrated to {revision}"}

    def _redis(self) -> dict[str, str]:
        stream = self._worker.dependencies.stream
        try:
            if stream is not None:
                stream.ping()
                return {"status": "ok", "detail": "answers"}
        except Problem:
            pass
        return {"status": "degraded", "detail": "No Redis: the worker looks for work by itself."}

    def _unlearning(self) -> dict[str, str]:
        status, dependencies = self._worker.status, self._worker.dependencies
        if not status.lease and status.trouble is None:
            return {"status": "ok", "detail": "stands by"}
        try:
            state = dependencies.database.query(
                lambda connection: read_forgetting_state(connection, dependencies.clock.now())
            )
        except Problem as problem:
            return {"status": "degraded", "detail": problem.code}
        found = obstacle_to(replace(state, worker_seen=state.now, trouble=status.trouble_code))
        if found is not None:
            return {"status": "degraded", "detail": f"{found} ({state.waiting:,} erasures wait.)"}
        return {"status": "ok", "detail": f"base {status.base}" if status.base else "no model yet"}


def _route(path: str, answer: Callable[[], MonitorResponse]) -> Route:
    async def endpoint(_request: Request) -> Response:
        # In a thread: the database and the stream are asked, and may take their time.
        given = await asyncio.to_thread(answer)
        return Response(given.body, given.status, media_type=given.media_type)

    return Route(path, endpoint)
