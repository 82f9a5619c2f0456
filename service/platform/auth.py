"""API keys: who calls, and what the caller may do.

A key is shown once and stored as its SHA-256. Verified keys are remembered for 5 seconds: revoking one takes no longer.
A label may have two keys that work at once, so that one can be replaced without a pause. They are one owner: what the
one asked for, the other sees.
"""

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

import structlog
from fastapi import Security
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from sqlalchemy import Connection, bindparam, insert, or_, select, update
from starlette.requests import Request

from service.platform import metrics
from service.platform.clock import Clock, SystemClock
from service.platform.database import Database
from service.platform.ids import uuid7
from service.platform.key_limits import KeyLimits
from service.platform.problem import Problem, ScopeMissing, Unauthenticated
from service.platform.tables import api_keys

CACHE_SECONDS = 5.0
CACHE_SIZE = 1024
PREFIX = "exp_"
TOKEN_BYTES = 32
KEYS_PER_LABEL = 2
LAST_USED_EVERY = timedelta(minutes=1)

log = structlog.get_logger()


class Scope(StrEnum):
    """What a key may do; `admin` implies all others.

    `officer` answers for privacy: sees the erasures of every key, and the audit log; extends deadlines, decides, holds,
    approves large erasures or refuses them; asks for none and cancels none of the others.
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
    owner: str
    """Whose erasures and limits: the id of the first key of the label; its own id for a key without a label."""

    def may(self, scope: Scope) -> bool:
        """Whether this key has the scope, or one that implies it."""
        return bool(self.scopes & {scope, Scope.ADMIN, _IMPLIED_BY.get(scope)})

    @property
    def sees_only(self) -> str | None:
        """The owner whose erasures this key is shown: its own; None where it is shown those of all."""
        return None if self.may(Scope.OFFICER) else self.owner

    @property
    def cancels_only(self) -> str | None:
        """The owner whose erasures this key cancels: its own; None where it cancels those of all."""
        return None if self.may(Scope.ADMIN) else self.owner


@dataclass(frozen=True)
class NewKey:
    """A key just made; `token` is shown now and never again."""

    key_id: str
    token: str


@dataclass(frozen=True)
class KeyFacts:
    """What is known of a key: everything but the key. `last_used_at` is right to about a minute."""

    key_id: str
    owner: str
    label: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def works(self, at: datetime) -> bool:
        """Whether it opens anything at that time."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


class KeyRefused(Exception):
    """No key is made; the text is a sentence or two for whoever asked."""


def create_key(
    connection: Connection, label: str, scopes: frozenset[Scope], at: datetime, expires_at: datetime | None = None
) -> NewKey:
    """Make a key of 256 random bits; only its SHA-256 is stored.

    With a label that had keys before, it is another key of the same owner. Raises KeyRefused where two of them work.
    """
    siblings = _keys_of(connection, label) if label else []
    working = [each for each in siblings if each.works(at)]
    if len(working) >= KEYS_PER_LABEL:
        msg = (
            f"The label has {len(working)} keys that work, and may have {KEYS_PER_LABEL}. Revoke the one that is not "
            "used any more; `expunge keys list` tells when each was."
        )
        raise KeyRefused(msg)
    token = PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(TOKEN_BYTES)).decode().rstrip("=")
    key_id = uuid7()
    row = {
        "id": key_id,
        "token_sha256": _digest(token),
        "owner": (working or siblings)[-1].owner if siblings else key_id,
        "label": label,
        "scopes": " ".join(sorted(scopes)),
        "created_at": at,
        "expires_at": expires_at,
    }
    connection.execute(insert(api_keys).values(row))
    return NewKey(key_id, token)


def rotate_key(
    connection: Connection, label: str, at: datetime, expires_at: datetime | None = None
) -> tuple[KeyFacts, NewKey]:
    """Make a second key beside the one of this label, with its scopes; returns the old one and the new one.

    Without `expires_at` the new one lives as long as the old one was given, counted from now. Raises KeyRefused where
    the label has no key that works, or two.
    """
    working = [each for each in _keys_of(connection, label) if each.works(at)] if label else []
    if not working:
        msg = (
            "No key that works has this label. `expunge keys list` shows the labels, `expunge keys create` makes a key."
        )
        raise KeyRefused(msg)
    old = working[-1]
    if expires_at is None and old.expires_at is not None:
        expires_at = at + (old.expires_at - old.created_at)
    return old, create_key(connection, label, old.scopes, at, expires_at)


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
    return [_facts(row) for row in connection.execute(_ALL)]


def _keys_of(connection: Connection, label: str) -> list[KeyFacts]:
    """The keys of a label, the oldest first, held against others that would make or rotate one until the commit."""
    mine = api_keys.c.label == label
    connection.execute(select(api_keys.c.id).where(mine).with_for_update()).all()
    return [_facts(row) for row in connection.execute(_ALL.where(mine))]


_ALL = select(
    api_keys.c.id,
    api_keys.c.owner,
    api_keys.c.label,
    api_keys.c.scopes,
    api_keys.c.created_at,
    api_keys.c.expires_at,
    api_keys.c.last_used_at,
    api_keys.c.revoked_at,
).order_by(api_keys.c.created_at, api_keys.c.id)
_FIND = _ALL.where(api_keys.c.token_sha256 == bindparam("token_sha256"))


def _facts(row: Any) -> KeyFacts:
    key_id, owner, label, scopes, *instants = row
    return KeyFacts(key_id, owner, label, _scopes(scopes), *instants)


class Authenticator:
    """Verifies tokens against the database, with a bounded memory of 5 seconds of monotonic time."""

    def __init__(
        self,
        database: Database,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        clock: Clock | None = None,
        limits: KeyLimits | None = None,
    ) -> None:
        """`limits`: what every key may ask for; None where nothing is limited."""
        self._database, self._monotonic, self._clock = database, monotonic, clock or SystemClock()
        self.limits = limits
        self._verified: dict[str, tuple[float, Principal]] = {}
        self._noted: dict[str, datetime] = {}
        self._told: dict[str, datetime] = {}
        self._writing: set[asyncio.Task[None]] = set()

    async def principal(self, authorization: str | None) -> Principal:
        """The principal behind an Authorization header; raises Unauthenticated."""
        if authorization is not None:
            known = self._verified.get(authorization)
            if known is not None and self._monotonic() < known[0]:
                return known[1]
        return await self._verify(authorization)

    async def stop(self) -> None:
        """Wait for what is being written of the keys' use."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def _verify(self, authorization: str | None) -> Principal:
        if authorization is None:
            raise _refusal("missing", "The request carries no API key.")
        self._verified.pop(authorization, None)
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer" or not token.startswith(PREFIX):
            raise _refusal("malformed", "The Authorization header holds no API key of this service.")
        digest = _digest(token)
        row = await self._database.run_read(lambda read: read.execute(_FIND, {"token_sha256": digest}).first())
        key = None if row is None else _facts(row)
        now = self._clock.now()
        if key is None or not key.works(now):
            raise self._refused(key, now)
        self._note_use(key, now)
        left = CACHE_SECONDS
        if key.expires_at is not None:
            left = min(left, (key.expires_at - now).total_seconds())
        return self._remember(authorization, Principal(key.key_id, key.scopes, key.owner), left)

    def _refused(self, key: KeyFacts | None, now: datetime) -> Unauthenticated:
        """The same words for all: whether a key once worked is told to the operator alone."""
        reason = "unknown" if key is None else "revoked" if key.revoked_at is not None else "expired"
        if key is not None and _due(self._told, key.key_id, now):
            log.warning(f"auth.key_{reason}", key_id=key.key_id)
        return _refusal(reason, "The API key is not known, or it is not valid any more.")

    def _remember(self, authorization: str, principal: Principal, seconds: float) -> Principal:
        if len(self._verified) >= CACHE_SIZE:
            del self._verified[next(iter(self._verified))]
        self._verified[authorization] = (self._monotonic() + seconds, principal)
        return principal

    def _note_use(self, key: KeyFacts, now: datetime) -> None:
        # Beside the request, which does not wait for it; what cannot be written now is written with a later one.
        recent = key.last_used_at is not None and timedelta() <= now - key.last_used_at < LAST_USED_EVERY
        if not recent and _due(self._noted, key.key_id, now):
            task = asyncio.get_running_loop().create_task(self._write_use(key.key_id, now))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _write_use(self, key_id: str, now: datetime) -> None:
        last = api_keys.c.last_used_at
        stale = update(api_keys).where(api_keys.c.id == key_id, or_(last.is_(None), last <= now - LAST_USED_EVERY))
        with suppress(Problem):  # the database is away or full, which is told elsewhere
            await self._database.run_write(lambda write: write.execute(stale.values(last_used_at=now)))


def _due(done: dict[str, datetime], key_id: str, now: datetime) -> bool:
    """Whether something is to be done for a key again, once in LAST_USED_EVERY; notes that it is done."""
    before = done.get(key_id)
    if before is not None and timedelta() <= now - before < LAST_USED_EVERY:
        return False
    if len(done) >= CACHE_SIZE:
        del done[next(iter(done))]
    done[key_id] = now
    return True


class Require(SecurityBase):
    """FastAPI dependency: the principal of a request, which must have one of some scopes."""

    def __init__(self, *scopes: Scope) -> None:
        self._scopes = scopes
        self.model = HTTPBearer(description="An API key, `exp_...`.")
        self.scheme_name = "API key"

    async def __call__(self, request: Request) -> Principal:
        """The principal; raises Unauthenticated, RateLimited or ScopeMissing."""
        authenticator = cast(Authenticator, request.app.state.authenticator)
        principal = await authenticator.principal(request.headers.get("authorization"))
        if authenticator.limits is not None:
            await authenticator.limits.count_request(request.scope, principal.owner)
        if not any(map(principal.may, self._scopes)):
            metrics.auth_failures_total.labels("scope").inc()
            raise ScopeMissing(f"This call needs the scope {' or '.join(f'`{scope}`' for scope in self._scopes)}.")
        return principal


def require(*scopes: Scope) -> Require:
    """The dependency that lets only keys with one of these scopes pass."""
    return Require(*scopes)


def needs(*scopes: Scope) -> Any:
    """The dependency of a route that needs one of these scopes; its description names them and what implies them."""
    named = dict.fromkeys(each for scope in scopes for each in (scope, _IMPLIED_BY.get(scope)) if each is not None)
    return Security(require(*scopes), scopes=[scope.value for scope in named])


def _refusal(reason: str, detail: str) -> Unauthenticated:
    metrics.auth_failures_total.labels(reason).inc()
    return Unauthenticated(detail, headers={"WWW-Authenticate": "Bearer"})


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _scopes(text: str) -> frozenset[Scope]:
    # A scope that this code does not know yet, as while a newer one beside it is rolled out, opens nothing here.
    return frozenset(Scope(scope) for scope in text.split() if scope in _SCOPES)
