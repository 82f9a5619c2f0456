"""What every HTTP application of the house shares: middleware, problem handlers, operational routes, OpenAPI."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.applications import Starlette
from starlette.routing import Route

from service.platform import docs_page, health
from service.platform.cors import CrossOrigin
from service.platform.declared import declare_only
from service.platform.gauges import package_version
from service.platform.key_limits import RateLimited, RateLimitHeaders
from service.platform.methods import Methods
from service.platform.middleware import Access, BodyLimit, EncodedSlash, Problems, RequestId
from service.platform.problem import (
    MEDIA_TYPE,
    BadRequest,
    BodyTimeout,
    BodyTooLarge,
    ProblemBody,
    UnsupportedMediaType,
    UriTooLong,
    problems,
)
from service.platform.problem_handlers import install_problem_handlers
from service.settings import Settings

DESCRIPTION = """Recommendations that forget. An erasure is hidden the moment it is accepted, forgotten by the model
within seconds, and told by the audit log. Errors are `application/problem+json`; calls of `/v1` need an API key."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

# The framework's own telemetry sends paths, bodies and texts of exceptions to whatever exporter the environment names.
_NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
OF_BODIES = (BadRequest, BodyTimeout, BodyTooLarge, UnsupportedMediaType)
"""What may be wrong with any body."""

_REFERENCE = {"$ref": "#/components/schemas/ProblemBody"}


def new_application(settings: Settings, lifespan: Lifespan, routers: Iterable[APIRouter]) -> FastAPI:
    """An application with these routers, in this order: routes are tried one by one, so the busiest come first."""
    app = FastAPI(
        title="Expunge",
        version=package_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        openapi_url="/openapi.json" if settings.docs else None,
        telemetry=_NO_TELEMETRY,
    )
    for router in (*routers, health.router, *([docs_page.router] if settings.docs else [])):
        # Not include_router: that matches each request once more for every router that it tries.
        app.router.routes.extend(router.routes)
    declare_only(app.router.routes)
    install_problem_handlers(app)
    _install_middleware(
        app,
        body_limit_bytes=settings.body_limit_bytes,
        log_requests=settings.log_requests,
        cors=settings if settings.cors_origins else None,
        limited=settings.limits_keys,
    )
    app.openapi = _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def operational_application(routes: Sequence[Route]) -> Starlette:
    """An application of these routes alone, which take no body: bounds and problems as everywhere."""
    app = Starlette(routes=routes)
    declare_only(routes, [("/readyz", "verbose")])  # as the API's, though it always tells everything
    app.router.redirect_slashes = False
    install_problem_handlers(app)
    _install_middleware(app, body_limit_bytes=0, log_requests=False)
    return app


def _install_middleware(
    app: Starlette, *, body_limit_bytes: int, log_requests: bool, cors: Settings | None = None, limited: bool = False
) -> None:
    # The last one added is the outermost.
    app.add_middleware(Methods)
    app.add_middleware(EncodedSlash)
    app.add_middleware(BodyLimit, limit_bytes=body_limit_bytes)
    app.add_middleware(Problems)
    if limited:
        app.add_middleware(RateLimitHeaders)
    if cors is not None:
        app.add_middleware(CrossOrigin, origins=cors.cors_origins, credentials=cors.cors_credentials)
    app.add_middleware(Access, log_all=log_requests)
    app.add_middleware(RequestId)


def _openapi(app: FastAPI) -> Callable[[], dict[str, Any]]:
    describe = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_problems(describe())
        return app.openapi_schema

    return described


def _with_problems(schema: dict[str, Any]) -> dict[str, Any]:
    """Describe errors as they are: problem+json in place of the framework's own validation error."""
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        components.pop(name, None)
    body = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    components.update(body.pop("$defs", {}))
    components["ProblemBody"] = body
    for path in schema.get("paths", {}).values():
        for operation in path.values():
            if "requestBody" in operation:
                for status, response in problems(*OF_BODIES).items():
                    operation["responses"].setdefault(str(status), response)
            if "parameters" in operation:
                operation["responses"].setdefault(str(UriTooLong.status), problems(UriTooLong)[UriTooLong.status])
            if "security" in operation:
                for status, response in problems(RateLimited).items():
                    operation["responses"].setdefault(str(status), response)
            _describe_errors(operation["responses"])
            _describe_scopes(operation)
    return schema


def _describe_scopes(operation: dict[str, Any]) -> None:
    scopes = sorted({scope for one in operation.get("security", ()) for given in one.values() for scope in given})
    if scopes:
        text = operation.get("description", "")
        named = " or ".join(f"`{scope}`" for scope in [*(scope for scope in scopes if scope != "admin"), "admin"])
        operation["description"] = f"{text}\n\nNeeds a key with the scope {named}.".strip()


def _describe_errors(responses: dict[str, Any]) -> None:
    content = {MEDIA_TYPE: {"schema": _REFERENCE}}
    for status, response in responses.items():
        if status == "422" or (status >= "4" and MEDIA_TYPE in response.get("content", {})):
            response["content"] = content
    responses.setdefault("default", {"description": "Any other problem.", "content": content})
