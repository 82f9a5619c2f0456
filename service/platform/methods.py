"""What each address takes: HEAD wherever GET is taken, OPTIONS everywhere, and which address was meant."""

import re
from collections.abc import Iterable, Sequence

from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service.platform.problem import NotFound

SERVER_WIDE = "/*"  # `OPTIONS *` asks about the server
_SLASHES = re.compile("//+")


class Methods:
    """Answers OPTIONS, and HEAD as GET: the server leaves out the body of what is sent."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raises NotFound for OPTIONS of an address without a route."""
        method = scope.get("method")
        if method == "HEAD":
            inner = {**scope, "method": "GET"}
            try:
                await self.app(inner, receive, send)
            finally:
                scope["route"] = inner.get("route")
        elif method == "OPTIONS":
            await _options(scope)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def methods_of(routes: Iterable[BaseRoute], path: str) -> set[str]:
    """The methods that an address takes, over all its routes; empty where there is none."""
    taken: set[str] = set()
    for route in _at(routes, path):
        taken |= route.methods or set()
    if "GET" in taken:
        taken.add("HEAD")
    return taken | {"OPTIONS"} if taken else taken


def allow(methods: Iterable[str]) -> str:
    """The header Allow."""
    return ", ".join(sorted(methods))


def address_meant(routes: Sequence[BaseRoute], path: str) -> str | None:
    """The template of the route that an address has without doubled and trailing slashes, None where there is none.

    Not the address itself, which may hold the id of a person.
    """
    cleaned = _SLASHES.sub("/", path).rstrip("/")
    if cleaned == path:
        return None
    return next((route.path for route in _at(routes, cleaned)), None)


def _options(scope: Scope) -> Response:
    routes, path = scope["app"].routes, scope["path"]
    if path == SERVER_WIDE:
        methods = {method for route in routes if isinstance(route, Route) for method in methods_of(routes, route.path)}
    else:
        methods = methods_of(routes, path)
    if not methods:
        raise NotFound
    return Response(status_code=204, headers={"Allow": allow(methods)})


def _at(routes: Iterable[BaseRoute], path: str) -> list[Route]:
    """The routes of an address: those of exactly this path, before those whose parameters it would fit."""
    found = [route for route in routes if isinstance(route, Route) and route.path_regex.match(path)]
    return [route for route in found if route.path == path] or found
