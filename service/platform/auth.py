"""API keys: who calls, and what the caller may do.

A key is shown once and stored as its SHA-256. Verified keys are remembered for 5 seconds: revoking one takes no longer.
"""

import base64
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

from fastapi import Security
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from sqlalchemy import Connection, bindparam, insert, select, update
from starlette.requests import Request

from service.platform import metrics
from service.platform.database import Database
from service.platform.ids import uuid7
from service.platform.problem import ScopeMissing, Unauthenticated
from service.platform.tables import api_keys

CACHE_SECONDS = 5.0
CACHE_SIZE = 1024
PREFIX = "exp_"
TOKEN_BYTES = 32


class Scope(StrEnum):
    """What a key may do; `admin` implies all others.

    `officer` answers for privacy: sees the erasures of every key, and the audit log; asks for none and cancels none.
    """

    RECOMMEND = "recommend"
    READ = "read"
    WRITE = "write"
    ERASE = "erase"
    AUDIT = "audit"
    OFFICER = "officer"
    ADMIN = "admin"


_IMPLIED_BY = {Scope.AUDIT: Scope.OFFICER}
_SCOPES = frozenset(scope.value for scope in Scope)


@dataclass(frozen=True)
class Principal:
    """The key behind a request."""

    key_id: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Whether this key has the scope, or one that implies it."""
        return bool(self.scopes & {scope, Scope.ADMIN, _IMPLIED_BY.get(scope)})

    @property
    def sees_only(self) -> str | None:
        """The key whose erasures this one is shown: its own; None where it is shown those of all keys."""
        return None if self.may(Scope.OFFICER) else self.key_id

    @property
    def cancels_only(self) -> str | None:
        """The key whose erasures this one cancels: its own; None where it cancels those of all keys."""
        return None if self.may(Scope.ADMIN) else self.key_id


@dataclass(frozen=True)
class NewKey:
    """A key just made; `token` is shown now and never again."""

    key_id: str
    token: str


@dataclass(frozen=True)
class KeyFacts:
    """What is known of a key: everything but the key."""

    key_id: str
    label: str
    scopes: frozenset[Scope]
    created_at: datetime
    revoked_at: datetime | None


def create_key(connection: Connection, label: str, scopes: frozenset[Scope], at: datetime) -> NewKey:
    """Make a key of 256 random bits; only its SHA-256 is stored."""
    token = PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(TOKEN_BYTES)).decode().rstrip("=")
    key_id = uuid7()
    connection.execute(
        insert(api_keys).values(
            id=key_id, token_sha256=_digest(token), label=label, scopes=" ".join(sorted(scopes)), created_at=at
        )
    )
    return NewKey(key_id, token)


def ensure_first_key(connection: Connection, at: datetime) -> NewKey | None:
    """Make the first admin key where no key exists yet; None where one does."""
    if connection.execute(select(api_keys.c.id).limit(1)).first() is not None:
        return None
    return create_key(connection, "first admin key", frozenset({Scope.ADMIN}), at)


def revoke_key(connection: Connection, key_id: str, at: datetime) -> bool:
    """Revoke a key; False where there is no such key that is still valid."""
    still_valid = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
    return connection.execute(still_valid.values(revoked_at=at)).rowcount == 1


def list_keys(connection: Connection) -> list[KeyFacts]:
    """All keys, the oldest first."""
    columns = (api_keys.c.id, api_keys.c.label, api_keys.c.scopes, api_keys.c.created_at, api_keys.c.revoked_at)
    rows = connection.execute(select(*columns).order_by(api_keys.c.created_at, api_keys.c.id))
    return [KeyFacts(row.id, row.label, _scopes(row.scopes), row.created_at, row.revoked_at) for row in rows]


_FIND = select(api_keys.c.id, api_keys.c.scopes).where(
    api_keys.c.token_sha256 == bindparam("token_sha256"), api_keys.c.revoked_at.is_(None)
)


class Authenticator:
    """Verifies tokens against the database, with a bounded memory of 5 seconds of monotonic time."""

    def __init__(self, database: Database, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database, self._monotonic = database, monotonic
        self._verified: dict[str, tuple[float, Principal]] = {}

    async def principal(self, authorization: str | None) -> Principal:
        """The principal behind an Authorization header; raises Unauthenticated."""
        if authorization is not None:
            known = self._verified.get(authorization)
            if known is not None and self._monotonic() < known[0]:
                return known[1]
        return await self._verify(authorization)

    async def _verify(self, authorization: str | None) -> Principal:
        if authorization is None:
            raise _refusal("missing", "The request carries no API key.")
        self._verified.pop(authorization, None)
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer" or not token.startswith(PREFIX):
            raise _refusal("malformed", "The Authorization header holds no API key of this service.")
        digest = _digest(token)
        row = await self._database.run_read(lambda read: read.execute(_FIND, {"token_sha256": digest}).first())
        if row is None:
            raise _refusal("unknown", "The API key is not known, or it was revoked.")
        return self._remember(authorization, Principal(row.id, _scopes(row.scopes)))

    def _remember(self, authorization: str, principal: Principal) -> Principal:
        if len(self._verified) >= CACHE_SIZE:
            del self._verified[next(iter(self._verified))]
        self._verified[authorization] = (self._monotonic() + CACHE_SECONDS, principal)
        return principal


class Require(SecurityBase):
    """FastAPI dependency: the principal of a request, which must have one of some scopes."""

    def __init__(self, *scopes: Scope) -> None:
        self._scopes = scopes
        self.model = HTTPBearer(description="An API key, `exp_...`.")
        self.scheme_name = "API key"

    async def __call__(self, request: Request) -> Principal:
        """The principal; raises Unauthenticated or ScopeMissing."""
        authenticator = cast(Authenticator, request.app.state.authenticator)
        principal = await authenticator.principal(request.headers.get("authorization"))
        if not any(map(principal.may, self._scopes)):
            metrics.auth_failures_total.labels("scope").inc()
            raise ScopeMissing(f"This call needs the scope {' or '.join(f'`{scope}`' for scope in self._scopes)}.")
        return principal


def require(*scopes: Scope) -> Require:
    """The dependency that lets only keys with one of these scopes pass."""
    return Require(*scopes)


def needs(*scopes: Scope) -> Any:
    """The dependency of a route that needs one of these scopes; its description names them."""
    return Security(require(*scopes), scopes=[scope.value for scope in scopes])


def _refusal(reason: str, detail: str) -> Unauthenticated:
    metrics.auth_failures_total.labels(reason).inc()
    return Unauthenticated(detail, headers={"WWW-Authenticate": "Bearer"})


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _scopes(text: str) -> frozenset[Scope]:
    # A scope that this code does not know yet, as while a newer one beside it is rolled out, opens nothing here.
    return frozenset(Scope(scope) for scope in text.split() if scope in _SCOPES)
