"""Calls from web pages of other origins, where EXPUNGE_CORS_ORIGINS allows them."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.platform.problem import BadRequest, FieldError, OriginNotAllowed

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
REQUEST_HEADERS = ("Authorization", "Idempotency-Key", "If-Match", "If-None-Match", "Prefer", "X-Request-Id")
ANSWER_HEADERS = (
    *("ETag", "Idempotency-Replayed", "Location", "Preference-Applied", "Retry-After", "X-Request-Id"),
    *("RateLimit", "RateLimit-Policy", "WWW-Authenticate"),
)


class CrossOrigin(CORSMiddleware):
    """Starlette's middleware, with problems for refusals. It answers preflights itself: they carry no key.

    Outside of what makes problems, so that pages can read those too.
    """

    def __init__(self, app: ASGIApp, *, origins: Sequence[str], credentials: bool) -> None:
        """`origins` as browsers send them, or `*`."""
        super().__init__(
            app,
            allow_origins=origins,
            allow_credentials=credentials,
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            expose_headers=ANSWER_HEADERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = Headers(scope=scope) if scope["type"] == "http" and scope["method"] == "OPTIONS" else None
        if headers is None or "origin" not in headers or "access-control-request-method" not in headers:
            await super().__call__(scope, receive, send)
            return
        given = self.preflight_response(headers)
        if given.status_code < 400:
            answer = Response(status_code=204, headers=_without_content(given.headers))
        elif not self.is_allowed_origin(headers["origin"]):
            answer = OriginNotAllowed().response(scope["state"]["request_id"])
        else:
            detail = "A method or a header that is not taken from other origins."
            error = FieldError("header/Access-Control-Request-Headers", detail)
            answer = BadRequest(detail, errors=[error]).response(scope["state"]["request_id"])
        await answer(scope, receive, send)


def _without_content(headers: Headers) -> dict[str, str]:
    return {name: value for name, value in headers.items() if not name.startswith("content-")}
