"""Routes that check the key before they read anything, and one for the hot path without the framework's work."""

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from email.message import Message
from typing import Any, cast, get_args

from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from service.platform.json_body import parse_json
from service.platform.problem import FieldError, UnsupportedMediaType

Guard = Callable[[Request], Awaitable[Any]]
Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]

_UTF_8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


class GuardedRoute(APIRoute):
    """A route of the framework's, with two differences.

    What is declared as `Annotated[Principal, Security(require(...))]` is checked first: nobody without a key has a body
    read, or learns what would be wrong with it. And a body is JSON in UTF-8, read by `parse_json`.
    """

    def get_route_handler(self) -> Endpoint:
        """Return what answers a request."""
        serve = super().get_route_handler()
        guards = [cast(Guard, one.call) for one in self.dependant.dependencies if isinstance(one.call, SecurityBase)]
        body = self.body_field
        members = frozenset[str]() if body is None else frozenset(_members_of(body.field_info.annotation))

        async def answer(request: Request) -> Response:
            for guard in guards:
                await guard(request)
            if body is None:
                return await serve(request)
            _check_media_type(request)
            return await serve(_JsonRequest(request, members))

        return answer


class _JsonRequest(Request):
    def __init__(self, request: Request, members: frozenset[str]) -> None:
        super().__init__(request.scope, request.receive)
        self._members = members

    async def json(self) -> Any:
        return parse_json(await self.body(), self._members)


def _members_of(annotation: Any) -> Iterator[str]:
    """Every member that a body of this type may have, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield field.alias or name
            yield from _members_of(field.annotation)
    for each in get_args(annotation):
        yield from _members_of(each)


def _check_media_type(request: Request) -> None:
    given = request.headers.get("content-type")
    length = request.headers.get("content-length", "0")
    if given is None and length == "0" and "transfer-encoding" not in request.headers:
        return  # there is no body, which is told in the words of what it lacks
    message = Message()
    message["content-type"] = given or ""
    subtype = message.get_content_subtype()
    json = message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))
    if given is None or not json:
        raise _unsupported("A body is JSON: application/json.")
    if (message.get_content_charset() or "utf-8") not in _UTF_8:
        raise _unsupported("JSON is written in UTF-8.")


def _unsupported(detail: str) -> UnsupportedMediaType:
    return UnsupportedMediaType(detail, errors=[FieldError("header/Content-Type", detail)])


class LeanRoute(APIRoute):
    """A route whose endpoint takes the request alone and returns a response.

    Its `dependencies` are guards: each is called with the request, in order, and may raise. They describe the route's
    security as dependencies do; parameters are described by `openapi_extra`.

    Measured: solving one dependency and no parameter takes 60 us a request, a guard 2 us.
    """

    def get_route_handler(self) -> Endpoint:
        """Return what answers a request."""
        guards = [cast(Guard, dependency.dependency) for dependency in self.dependencies]
        endpoint = cast(Endpoint, self.endpoint)

        async def answer(request: Request) -> Response:
            for guard in guards:
                await guard(request)
            return await endpoint(request)

        return answer
