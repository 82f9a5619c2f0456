"""Turns the framework's own errors into problems, without repeating what the caller sent."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.platform.methods import address_meant, allow, methods_of
from service.platform.problem import (
    ERRORS_SHOWN,
    BadRequest,
    BodyTooLarge,
    Conflict,
    FieldError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Problem,
    TooManyRequests,
    Unavailable,
    UnsupportedMediaType,
)

_BY_STATUS: dict[int, type[Problem]] = {
    400: BadRequest,
    404: NotFound,
    405: MethodNotAllowed,
    409: Conflict,
    413: BodyTooLarge,
    415: UnsupportedMediaType,
    422: InvalidRequest,
    429: TooManyRequests,
    503: Unavailable,
}
# The last step of these locations is a name that the caller made up.
_NAMED_BY_CALLER = frozenset({"extra_forbidden", "invalid_key"})
_NOT_AN_OBJECT = frozenset({"model_attributes_type", "dict_type", "model_type", "list_type"})


def install_problem_handlers(app: Starlette) -> None:
    """Answer every refusal of this application with problem+json."""
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_validation)


async def _answer_problem(request: Request, error: Exception) -> Response:
    problem = error if isinstance(error, Problem) else InternalError()
    return problem.response(request.state.request_id)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    # The framework wraps what the body limit raises while it reads a body.
    if isinstance(error.__cause__, Problem):
        return await _answer_problem(request, error.__cause__)
    if not isinstance(error, HTTPException):
        return await _answer_problem(request, error)
    kind = _BY_STATUS.get(error.status_code, BadRequest if error.status_code < 500 else InternalError)
    return await _answer_problem(request, _named(kind, request, error.headers))


def _named(kind: type[Problem], request: Request, headers: Mapping[str, str] | None) -> Problem:
    """A problem of the framework's own, with what it leaves out: all methods of an address, the address meant."""
    routes, path = request.app.routes, request.scope["path"]
    if kind is MethodNotAllowed:
        return kind(headers={"Allow": allow(methods_of(routes, path))})
    meant = address_meant(routes, path) if kind is NotFound else None
    if meant is not None:
        return kind(f"Addresses have no doubled or trailing slash here: this one is written {meant}.")
    return kind(headers=headers)


async def _answer_validation(request: Request, error: Exception) -> Response:
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    malformed = next((one for one in errors if one["type"] == "json_invalid"), None)
    if malformed is not None:
        detail = f"Not well-formed JSON, at character {malformed['loc'][-1]}."
        return await _answer_problem(request, BadRequest(detail, errors=[FieldError("#", detail)]))
    if _body_is_not_json(request, errors):
        return await _answer_problem(request, UnsupportedMediaType())
    shown = [FieldError(_pointer(one), _detail(one)) for one in errors[:ERRORS_SHOWN]]
    many = "" if len(errors) <= ERRORS_SHOWN else f" The first {ERRORS_SHOWN} are named."
    plural = "field is" if len(errors) == 1 else "fields are"
    return await _answer_problem(request, InvalidRequest(f"{len(errors)} {plural} not valid.{many}", errors=shown))


def _body_is_not_json(request: Request, errors: Sequence[dict[str, Any]]) -> bool:
    whole_body = any(tuple(one["loc"]) == ("body",) and one["type"] in _NOT_AN_OBJECT for one in errors)
    return whole_body and "json" not in request.headers.get("content-type", "")


def _pointer(error: dict[str, Any]) -> str:
    where, *steps = error["loc"]
    if error["type"] in _NAMED_BY_CALLER:
        steps = steps[:-1]
    names = [str(step).replace("~", "~0").replace("/", "~1") for step in steps]
    if where == "header":
        names = ["-".join(part.capitalize() for part in name.split("-")) for name in names]
    return "/".join(["#", *names]) if where == "body" else "/".join([str(where), *names])


def _detail(error: dict[str, Any]) -> str:
    if error["type"] in _NAMED_BY_CALLER:
        return "It has a field that is not known."
    return str(error["msg"])
