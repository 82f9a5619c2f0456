"""What operators ask the worker: /livez, /readyz and /metrics on a port of its own."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import orjson
import structlog
from prometheus_client import CONTENT_TYPE_LATEST

import migrations
from service.platform.gauges import Scraper
from service.platform.problem import MEDIA_TYPE, NotFound, NotReady, Problem
from service.worker.worker import Worker

REQUEST_SECONDS = 5.0
REQUESTS_AT_ONCE = 16

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
    """

    def __init__(self, worker: Worker, host: str, port: int) -> None:
        self._worker = worker
        self._scraper = Scraper(worker.dependencies.database, worker.dependencies.stream, worker.dependencies.clock)
        routes = {"/livez": self._livez, "/readyz": self._readyz, "/metrics": self._metrics}
        self._server = _Server((host, port), _handler(routes))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="monitor", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()
        log.info("monitor.started", port=self.port)

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._scraper.close()

    def _livez(self) -> MonitorResponse:
        return MonitorResponse(200, "application/json", orjson.dumps({"status": "ok"}))

    def _readyz(self) -> MonitorResponse:
        """Standing by is ready too: a standby is there to take over."""
        checks = {"database": self._database(), "redis": self._redis(), "unlearning": self._unlearning()}
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
        except Problem as problem:
            return {"status": "failed", "detail": problem.code}
        if revision is None or revision < migrations.head():
            return {"status": "failed", "detail": "The schema is behind this code: run `expunge db upgrade`."}
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
        status = self._worker.status
        if status.trouble is not None:
            return {"status": "degraded", "detail": f"The latest round failed ({status.trouble}); it is tried again."}
        if not status.lease:
            return {"status": "ok", "detail": "stands by"}
        return {"status": "ok", "detail": f"base {status.base}" if status.base else "no model yet"}


class _Server(ThreadingHTTPServer):
    """A server that bounds its threads: a client that says nothing is cut off after some seconds."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._slots = threading.BoundedSemaphore(REQUESTS_AT_ONCE)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(timeout=REQUEST_SECONDS):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("monitor.connection_failed")


def _not_found() -> MonitorResponse:
    return MonitorResponse(404, MEDIA_TYPE, orjson.dumps(NotFound().body("monitor")))


def _handler(routes: dict[str, Callable[[], MonitorResponse]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_SECONDS
        protocol_version = "HTTP/1.0"
        server_version, sys_version = "expunge", ""

        def do_GET(self) -> None:
            route = routes.get(self.path.partition("?")[0])
            answer = _not_found() if route is None else route()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.media_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: scrapes are not events."""

    return Handler
