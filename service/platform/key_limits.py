"""How much the keys of one owner may ask for: requests a minute, targets of erasures a day.

Counted in the Redis that is configured, so that all replicas count together, or in memory. A Redis that is away is
waited for once, briefly, and then not asked for some seconds: meanwhile each process counts by itself. The keys in
Redis hold the id of an API key and nothing else.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.storage.redis import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter, RateLimiter, SlidingWindowCounterRateLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.platform import metrics
from service.platform.problem import TooManyRequests

KEY_PREFIX = "expunge:limits"
REDIS_PATIENCE_S = 0.1
REDIS_AWAY_S = 5.0
_STATE = "key_limits"

log = structlog.get_logger()


class RateLimited(TooManyRequests):
    """The keys of this label sent EXPUNGE_REQUESTS_PER_MINUTE requests within a minute."""

    code = "rate_limited"
    title = "The API key has sent too many requests"


class TargetQuotaExceeded(TooManyRequests):
    """The keys of this label named EXPUNGE_ERASURE_TARGETS_PER_DAY targets of erasures within a day."""

    code = "target_quota_exceeded"
    title = "The API key has named too many targets of erasures today"
    next_step = (
        "Nothing was stored. Send it again after Retry-After, in smaller parts, or have an operator raise "
        "EXPUNGE_ERASURE_TARGETS_PER_DAY."
    )


@dataclass(frozen=True)
class LimitState:
    """What is left of one limit: `quota` of every `window_s` seconds, `remaining` now, more in `reset_s` seconds."""

    name: str
    quota: int
    window_s: int
    remaining: int
    reset_s: int

    @property
    def policy(self) -> bytes:
        """The limit, as an item of the header RateLimit-Policy."""
        return b'"%b";q=%d;w=%d' % (self.name.encode(), self.quota, self.window_s)

    @property
    def standing(self) -> bytes:
        """What is left, as an item of the header RateLimit."""
        return b'"%b";r=%d;t=%d' % (self.name.encode(), self.remaining, self.reset_s)


class _Limit:
    """One limit with its two places of counting."""

    def __init__(self, name: str, item: RateLimitItem, strategy: type[RateLimiter], shared: Storage | None) -> None:
        self.name, self.item = name, item
        self.shared = None if shared is None else strategy(shared)
        self.own = strategy(MemoryStorage())

    async def take(self, limiter: RateLimiter, owner: str, amount: int) -> tuple[bool, LimitState]:
        """Count `amount` if there is room for it; whether there was, and what is left."""
        taken = await limiter.hit(self.item, self.name, owner, cost=amount)
        reset_at, remaining = await limiter.get_window_stats(self.item, self.name, owner)
        window_s = self.item.get_expiry()
        reset_s = min(max(math.ceil(reset_at - time.time()), 0), window_s)
        return taken, LimitState(self.name, self.item.amount, window_s, max(remaining, 0), reset_s)


class KeyLimits:
    """Counts what the keys of an owner ask for, and refuses what is too much."""

    def __init__(
        self,
        *,
        requests_per_minute: int | None = None,
        targets_per_day: int | None = None,
        redis_url: str | None = None,
        patience_s: float = REDIS_PATIENCE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """None: not limited. Without a `redis_url` this process counts by itself. Connects on first use."""
        self._redis = None if redis_url is None else _redis(redis_url, patience_s)
        self._patience_s, self._monotonic = patience_s, monotonic
        kinds = () if self._redis is None else _errors(self._redis)
        self._failures: tuple[type[Exception], ...] = (TimeoutError, OSError, *kinds)
        self._away_until = -math.inf
        self._away = False
        self._requests = self._targets = None
        if requests_per_minute is not None:
            item = RateLimitItemPerMinute(requests_per_minute)
            self._requests = _Limit("default", item, MovingWindowRateLimiter, self._redis)
        if targets_per_day is not None:
            # A moving window remembers each target; this counts two numbers an owner, however many are named.
            day = RateLimitItemPerDay(targets_per_day)
            self._targets = _Limit("erasure-targets", day, SlidingWindowCounterRateLimiter, self._redis)

    async def count_request(self, scope: Scope, owner: str) -> None:
        """Count a request, once however often it is asked; raises RateLimited."""
        if self._requests is None or self._requests.name in _told(scope):
            return
        taken, state = await self._count(self._requests, owner, 1)
        _told(scope)[state.name] = state
        if not taken:
            metrics.limited_total.labels(RateLimited.code).inc()
            msg = f"It may send {state.quota:,} a minute; the keys of a label share them."
            raise RateLimited(msg, retry_after_s=state.reset_s)

    async def count_targets(self, scope: Scope, owner: str, targets: int) -> None:
        """Count the targets of an erasure, all or none; raises TargetQuotaExceeded."""
        if self._targets is None:
            return
        taken, state = await self._count(self._targets, owner, targets)
        _told(scope)[state.name] = state
        if not taken:
            metrics.limited_total.labels(TargetQuotaExceeded.code).inc()
            msg = (
                f"It names {targets:,}; {state.remaining:,} of {state.quota:,} a day are left to the keys of the label."
            )
            raise TargetQuotaExceeded(msg, retry_after_s=state.reset_s)

    async def stop(self) -> None:
        """Let go of Redis."""
        if self._redis is not None:
            await self._redis.bridge.storage.aclose()  # type: ignore[attr-defined]  # it has no other end

    async def _count(self, limit: _Limit, owner: str, amount: int) -> tuple[bool, LimitState]:
        if limit.shared is not None and self._monotonic() >= self._away_until:
            if self._away:  # one request finds out whether it is back, the others do not wait for it
                self._away_until = self._monotonic() + REDIS_AWAY_S
            try:
                async with asyncio.timeout(self._patience_s):
                    found = await limit.take(limit.shared, owner, amount)
            except self._failures as error:
                self._note(away=True, reason=type(error).__name__)
            else:
                self._note(away=False)
                return found
        return await limit.take(limit.own, owner, amount)

    def _note(self, *, away: bool, reason: str = "") -> None:
        if away:
            self._away_until = self._monotonic() + REDIS_AWAY_S
        elif self._away:
            self._away_until = -math.inf
        if away and not self._away:
            log.warning("limits.redis_away", error=reason, counted="in this process alone")
        elif self._away and not away:
            log.info("limits.redis_back")
        self._away = away
        metrics.limits_counted_alone.set(away)


class RateLimitHeaders:
    """Middleware: tells callers what is left of each limit that their request counted against."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        states = _told(scope)

        async def send_with_limits(message: Message) -> None:
            if states and message["type"] == "http.response.start":
                policy = b", ".join(state.policy for state in states.values())
                standing = b", ".join(state.standing for state in states.values())
                added = ((b"ratelimit-policy", policy), (b"ratelimit", standing))
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self.app(scope, receive, send_with_limits)


def _told(scope: Scope) -> dict[str, LimitState]:
    told: dict[str, LimitState] = scope.setdefault("state", {}).setdefault(_STATE, {})
    return told


def _redis(url: str, patience_s: float) -> RedisStorage:
    address = url.replace("unix://", "redis+unix://", 1) if url.startswith("unix://") else url
    return RedisStorage(
        f"async+{address}",
        implementation="redispy",
        key_prefix=KEY_PREFIX,
        socket_timeout=patience_s,
        socket_connect_timeout=patience_s,
    )


def _errors(storage: Storage) -> tuple[type[Exception], ...]:
    kinds = storage.base_exceptions
    return kinds if isinstance(kinds, tuple) else (kinds,)
