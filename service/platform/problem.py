"""Errors that callers see: each says what happened, which thing it concerns and what to do next (RFC 9457).

    Problem
      InvalidRequest          422 invalid_request         Unauthenticated     401 unauthenticated
        BadRequest            400 bad_request             ScopeMissing        403 scope_missing
        InvalidCursor         422 invalid_cursor          InternalError       500 internal_error
      NotFound                404 not_found               Unavailable         503 unavailable
      MethodNotAllowed        405 method_not_allowed        StorageUnavailable  503 storage_unavailable
      BodyTimeout             408 body_timeout              ModelUnavailable    503 model_unavailable
      HeadTimeout             408 head_timeout              NotReady            503 not_ready
      Conflict                409 conflict                  TooManyConnections  503 too_many_connections
      BodyTooLarge            413 body_too_large            ShuttingDown        503 shutting_down
      UriTooLong              414 uri_too_long              RedisUnavailable    503 redis_unavailable  (platform.redis)
      UnsupportedMediaType    415 unsupported_media_type    RedisUnsuitable     503 redis_unsuitable   (platform.redis)
      TooManyRequests         429 too_many_requests         SecretRefused       503 secret_refused  (platform.identity)
      HeadTooLarge            431 head_too_large            DatabaseUnusable    503 database_unusable
                                                              DatabaseDamaged   503 database_damaged
                                                            DatabaseBehind      503 database_behind
                                                          StorageFull         507 storage_full

Domains add subclasses with a code of their own; `GET /problems/{code}` explains every one of them.
A text may name resources by the service's own ids, never by a user id or an item id that the caller sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import orjson
from pydantic import BaseModel, Field
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
ERRORS_SHOWN = 20


@dataclass(frozen=True)
class FieldError:
    """One field that was refused, and why: a JSON pointer into the body (`#/users/0`), `path/<name>`, `query/<name>` or
    `header/<Name>`.
    """

    pointer: str
    detail: str


class Problem(Exception):
    """Base of all errors that become a response. Subclasses set `code`, `status`, `title` and `next_step`."""

    code: ClassVar[str] = "problem"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"
    next_step: ClassVar[str] = "Try again; if it persists, report the request id."

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        """`detail` is a sentence about this occurrence; `retry_after_s` becomes the header Retry-After."""
        self.detail = f"{detail or self.title + '.'} {self.next_step}"
        self.errors = tuple(errors[:ERRORS_SHOWN])
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, retry_after_s))
        super().__init__(self.detail)

    def body(self, request_id: str) -> dict[str, Any]:
        """The members of the problem+json document."""
        body: dict[str, Any] = {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": f"urn:request:{request_id}",
            "code": self.code,
            "request_id": request_id,
        }
        if self.errors:
            body["errors"] = [asdict(error) for error in self.errors]
        return body

    def response(self, request_id: str) -> Response:
        """The response to send."""
        return Response(orjson.dumps(self.body(request_id)), self.status, self.headers, MEDIA_TYPE)


class InvalidRequest(Problem):
    """The request was understood and makes no sense."""

    code = "invalid_request"
    status = 422
    title = "The request is not valid"
    next_step = "Correct the fields named in `errors` and send it again."


class BadRequest(InvalidRequest):
    """The request could not be read at all."""

    code = "bad_request"
    status = 400
    title = "The request could not be read"
    next_step = "Send well-formed HTTP with a JSON body in UTF-8."


class InvalidCursor(InvalidRequest):
    """A cursor that this service did not give out."""

    code = "invalid_cursor"
    title = "The cursor is not valid"
    next_step = "Follow the `next` link of the page before, or begin again without a cursor."


class NotFound(Problem):
    """No such route or resource."""

    code = "not_found"
    status = 404
    title = "There is nothing at this address"
    next_step = "Check the path against /openapi.json; slashes inside an id are written %2F."


class MethodNotAllowed(Problem):
    """The route exists, not with this method."""

    code = "method_not_allowed"
    status = 405
    title = "This address does not take this method"
    next_step = "Use one of the methods named in the header Allow."


class BodyTimeout(Problem):
    """The body came too slowly."""

    code = "body_timeout"
    status = 408
    title = "The body took too long to arrive"
    next_step = "Send it again over a better connection, or in smaller requests."


class HeadTimeout(Problem):
    """The head of a request came too slowly."""

    code = "head_timeout"
    status = 408
    title = "The head of the request took too long to arrive"
    next_step = "Send it again over a better connection."


class UriTooLong(Problem):
    """The address exceeds what the head of a request may hold."""

    code = "uri_too_long"
    status = 414
    title = "The address is too long"
    next_step = "Send long lists in the body of a POST: /v1/recommendations, /v1/erasures."


class HeadTooLarge(Problem):
    """The head of a request has too many bytes or too many lines."""

    code = "head_too_large"
    status = 431
    title = "The head of the request is too large"
    next_step = "Send fewer and shorter headers; cookies are not read here."


class Conflict(Problem):
    """The state of the resource does not allow this."""

    code = "conflict"
    status = 409
    title = "The present state does not allow this"
    next_step = "Read the resource again and decide anew."


class BodyTooLarge(Problem):
    """The body exceeds EXPUNGE_BODY_LIMIT_BYTES."""

    code = "body_too_large"
    status = 413
    title = "The body is too large"
    next_step = "Split the request into smaller ones."


class UnsupportedMediaType(Problem):
    """The body is not JSON."""

    code = "unsupported_media_type"
    status = 415
    title = "The body is of a type that is not read here"
    next_step = "Send JSON with the header Content-Type: application/json."


class TooManyRequests(Problem):
    """A bound is reached; nothing was stored."""

    code = "too_many_requests"
    status = 429
    title = "Too much is waiting already"
    next_step = "Wait as long as the header Retry-After says and send it again."


class Unauthenticated(Problem):
    """No key, or one that is not known."""

    code = "unauthenticated"
    status = 401
    title = "A valid API key is needed"
    next_step = "Send the header Authorization: Bearer exp_...; `expunge keys create` makes a key."


class ScopeMissing(Problem):
    """The key is valid and may not do this."""

    code = "scope_missing"
    status = 403
    title = "The API key does not have the scope that this call needs"
    next_step = "Use a key with that scope; `expunge keys create --scope` makes one, /docs names that of each call."


class OriginNotAllowed(Problem):
    """A web page of an origin that EXPUNGE_CORS_ORIGINS does not name."""

    code = "origin_not_allowed"
    status = 403
    title = "Pages of this origin may not call the service"
    next_step = "Name the origin in EXPUNGE_CORS_ORIGINS, or call from a server."


class InternalError(Problem):
    """A defect of the service."""

    code = "internal_error"
    status = 500
    title = "The service failed on this request"
    next_step = "Try again; if it persists, report the request id, the log holds the cause."


class Unavailable(Problem):
    """Something that the service needs is away for now."""

    code = "unavailable"
    status = 503
    title = "The service cannot answer this now"
    next_step = "Try again in a few seconds."


class TooManyConnections(Unavailable):
    """EXPUNGE_CONNECTIONS_MAX connections are open, and each has a request under way."""

    code = "too_many_connections"
    title = "Too many connections are open"
    next_step = "Nothing was read. Keep connections open and use them again, and come back in a second."


class ShuttingDown(Unavailable):
    """The service was told to stop before this request was done."""

    code = "shutting_down"
    title = "The service is stopping"
    next_step = "Send it again in some seconds, an erasure with the same Idempotency-Key: what was stored is found."


class StorageUnavailable(Unavailable):
    """The database does not answer, or its outcome is not known."""

    code = "storage_unavailable"
    title = "The database does not answer"
    next_step = "Try again with the same Idempotency-Key: what was stored before is found, not repeated."


class DatabaseUnusable(Unavailable):
    """The database is there, or should be, and is not one that this service can work with."""

    code = "database_unusable"
    title = "The database cannot be used"
    next_step = "An operator must act: EXPUNGE_DATABASE_URL names the database, docs/deployment.md says what it needs."


class DatabaseDamaged(DatabaseUnusable):
    """Bytes of the database are not what was written: the disk, or something that wrote over them."""

    code = "database_damaged"
    title = "The database is damaged"
    next_step = (
        "Trying again does not help. An operator must stop the service and restore the database from a backup, or "
        "recover it; the runbook's section ExpungeDatabaseDamaged says how."
    )


class DatabaseBehind(Unavailable):
    """The database has gone back in time: the model store holds what the database no longer knows."""

    code = "database_behind"
    title = "The database is older than the model store"
    next_step = (
        "The service cleans it from the ledger of erasures by itself, where that is whole. Where it says that it "
        "cannot, an operator must restore the newest backup, or decide what is lost; the runbook's section "
        "ExpungeDatabaseBehind says how."
    )


class ModelUnavailable(Unavailable):
    """No version of the model could be loaded yet."""

    code = "model_unavailable"
    title = "No version of the model is loaded"
    next_step = "Train and publish one with `expunge train`; /readyz?verbose names the cause."


class NotReady(Unavailable):
    """A readiness check fails."""

    code = "not_ready"
    title = "The service is not ready"
    next_step = "GET /readyz?verbose names the check that fails."


class StorageFull(Problem):
    """The database has no room left; nothing was stored."""

    code = "storage_full"
    status = 507
    title = "There is no room left to store this"
    next_step = "Nothing was stored. Free disk space on the server, then send it again."


class ProblemBody(BaseModel):
    """The problem+json document, as the OpenAPI description shows it."""

    class Error(BaseModel):
        """One field that was refused."""

        pointer: str = Field(examples=["#/interactions/0/user_id"])
        detail: str = Field(examples=["Field required"])

    type: str = Field(examples=["/problems/invalid_request"])
    title: str = Field(examples=["The request is not valid"])
    status: int = Field(examples=[422])
    detail: str
    instance: str = Field(examples=["urn:request:0190b3c6-7c5e-7c1f-9d0a-000000000000"])
    code: str = Field(examples=["invalid_request"])
    request_id: str = Field(examples=["0190b3c6-7c5e-7c1f-9d0a-000000000000"])
    errors: list[Error] | None = None


def problems(*kinds: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may answer with these problems."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        known = by_status.setdefault(kind.status, {"description": "", "content": {MEDIA_TYPE: {"schema": _REFERENCE}}})
        known["description"] = f"{known['description']} `{kind.code}`: {kind.title}.".strip()
    return by_status


_REFERENCE = {"$ref": "#/components/schemas/ProblemBody"}


def known_problems() -> dict[str, type[Problem]]:
    """Every problem by its code, those of the domains that are imported among them."""
    found: dict[str, type[Problem]] = {}
    waiting = [Problem]
    while waiting:
        kind = waiting.pop()
        found[kind.code] = kind
        waiting.extend(kind.__subclasses__())
    del found[Problem.code]
    return dict(sorted(found.items()))
