"""The stream that wakes the worker. It carries ids of erasures and nothing else; losing all of it loses nothing.

Only this module speaks to Redis or Valkey. Every command has a time limit; a server that is away, full, loading or
read-only is RedisUnavailable (try again later), one that would lose or evict entries is RedisUnsuitable (refuse to
start).
"""

import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.platform.problem import Unavailable

T = TypeVar("T")

OLDEST_VERSION = 7
BLOCK_MAX_MS = 5_000
DEAD_MAX = 10_000
LIMITS_KEYS = "expunge:limits*"
"""What `service.platform.key_limits` counts under."""
PAGE = 1_000  # entries looked at together
REWRITE_LOOK_S = 0.02
_FIELD = b"id"


class RedisUnavailable(Unavailable):
    """The server does not answer, or cannot write now."""

    code = "redis_unavailable"
    title = "Redis does not answer"
    next_step = "Nothing is lost: requests are in the database and are published when Redis is back."


class RedisUnsuitable(Unavailable):
    """The server would lose or evict entries."""

    code = "redis_unsuitable"
    title = "This Redis server cannot be used"
    next_step = "Point EXPUNGE_REDIS_URL to Redis or Valkey >= 7 with maxmemory-policy noeviction, or unset it."


@dataclass(frozen=True)
class ServerInfo:
    """What the server says of itself."""

    name: str
    version: str
    policy: str


@dataclass(frozen=True)
class Message:
    """One delivery: the entry id of the stream and the id of the erasure."""

    entry_id: str
    erasure_id: str


@dataclass(frozen=True)
class StreamDepth:
    """Entries in the stream, entries delivered and not acknowledged, seconds since the stalest of these was touched."""

    length: int
    pending: int
    oldest_seconds: float


class ErasureStream:
    """One stream, one consumer group, one consumer. Safe to share between threads."""

    def __init__(self, url: str, *, stream: str, group: str, consumer: str, timeout_s: float = 2.0) -> None:
        """Connects on first use. `consumer` names this process; `timeout_s` bounds each command."""
        self._stream, self._group, self._consumer = stream, group, consumer
        self._dead = f"{stream}:dead"
        self._redis = _client(url, timeout_s, timeout_s)
        self._blocking = _client(url, timeout_s, timeout_s + BLOCK_MAX_MS / 1000)

    def check(self) -> ServerInfo:
        """Look at the server; raises RedisUnsuitable (older than 7, or it evicts) or RedisUnavailable."""
        with _mapped():
            facts = {**self._redis.info("server"), **self._redis.info("memory")}
        info = ServerInfo(
            "valkey" if "valkey_version" in facts else "redis",
            str(facts.get("valkey_version") or facts["redis_version"]),
            str(facts.get("maxmemory_policy", "noeviction")),
        )
        if int(str(facts["redis_version"]).split(".")[0]) < OLDEST_VERSION:
            msg = f"It is {info.name} {info.version}; before {OLDEST_VERSION}, lost deliveries stay pending for ever."
            raise RedisUnsuitable(msg)
        if info.policy != "noeviction":
            msg = f"Its maxmemory-policy is {info.policy}, which may evict the stream."
            raise RedisUnsuitable(msg)
        return info

    def ping(self) -> None:
        """Ask for a sign of life; raises RedisUnavailable."""
        with _mapped():
            self._redis.ping()

    def publish(self, erasure_ids: Sequence[str]) -> None:
        """Append one entry an erasure, in one round trip. An erasure may appear twice when an answer was lost."""
        if not erasure_ids:
            return
        with _mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for erasure_id in erasure_ids:
                pipeline.xadd(self._stream, {_FIELD: erasure_id})
            pipeline.execute()

    def read(self, *, count: int, block_ms: int) -> list[Message]:
        """Take up to `count` new entries, waiting up to `block_ms` (1 to 5,000) for the first; [] when none came."""
        block = min(max(block_ms, 1), BLOCK_MAX_MS)
        answer = self._in_group(
            lambda: self._blocking.xreadgroup(
                self._group, self._consumer, {self._stream: ">"}, count=count, block=block
            )
        )
        return self._messages(answer[0][1]) if answer else []

    def claim(self, *, min_idle_ms: int, count: int) -> list[Message]:
        """Take over up to `count` entries that nobody has touched for `min_idle_ms`."""
        answer = self._in_group(
            lambda: self._redis.xautoclaim(
                self._stream, self._group, self._consumer, min_idle_time=min_idle_ms, start_id="0-0", count=count
            )
        )
        return self._messages(answer[1])

    def keep(self, entry_ids: Sequence[str]) -> None:
        """Say that these deliveries are still worked on: resets their idle time, leaves their delivery count."""
        if entry_ids:
            self._in_group(
                lambda: self._redis.xclaim(
                    self._stream, self._group, self._consumer, min_idle_time=0, message_ids=list(entry_ids), justid=True
                )
            )

    def ack(self, entry_ids: Sequence[str]) -> None:
        """Acknowledge deliveries and take their entries out of the stream, at once; unknown ones are no error."""
        if not entry_ids:
            return
        with _mapped():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.xack(self._stream, self._group, *entry_ids)
            pipeline.xdel(self._stream, *entry_ids)
            pipeline.execute()

    def dead_letter(self, message: Message, code: str) -> None:
        """Move an entry that cannot be worked on to the stream `<stream>:dead`, with the code of its problem."""
        with _mapped():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.xadd(self._dead, {_FIELD: message.erasure_id, b"code": code}, maxlen=DEAD_MAX, approximate=True)
            pipeline.xack(self._stream, self._group, message.entry_id)
            pipeline.xdel(self._stream, message.entry_id)
            pipeline.execute()

    def dead_letters(self) -> int:
        """Entries in the dead-letter stream."""
        with _mapped():
            return int(self._redis.xlen(self._dead))

    def pending(self) -> StreamDepth:
        """How full the stream is."""
        length = self._in_group(lambda: self._redis.xlen(self._stream))
        summary = self._in_group(lambda: self._redis.xpending(self._stream, self._group))
        if not summary["pending"]:
            return StreamDepth(int(length), 0, 0.0)
        # Idle times, not entry ids: an id is wall-clock time, and that may step.
        oldest = self._in_group(
            lambda: self._redis.xpending_range(self._stream, self._group, min="-", max="+", count=100)
        )
        idle_ms = max((entry["time_since_delivered"] for entry in oldest), default=0)
        return StreamDepth(int(length), int(summary["pending"]), idle_ms / 1000)

    def contents(self) -> Iterator[tuple[str, list[bytes]]]:
        """Everything that the service keeps in the server, by key: names, fields and values as they are."""
        with _mapped():
            for stream in (self._stream, self._dead):
                yield from ((stream, page) for page in self._entries(stream))
            for key in self._redis.scan_iter(match=LIMITS_KEYS, count=1_000):
                if key.decode() not in (self._stream, self._dead):
                    yield key.decode(errors="replace"), [key, b"\n", self._redis.dump(key) or b""]

    def remove(self, erasure_ids: Collection[str]) -> int:
        """Take every entry of these erasures out, dead letters among them; returns how many there were."""
        wanted = set(erasure_ids)
        with _mapped():
            dead = self._remove_from(self._dead, wanted)
            if dead:
                self._write_dead_anew()
            return dead + self._remove_from(self._stream, wanted)

    def write_anew(self, timeout_s: float) -> bool:
        """Have the server write its append-only file anew, so that what was taken out leaves the disk; waits for it.

        Returns False where it keeps no such file. Raises RedisUnavailable, also where it refuses to, or fails, or takes
        longer than `timeout_s`.
        """
        end = time.monotonic() + timeout_s
        with _mapped():
            if not self._redis.info("persistence").get("aof_enabled"):
                return False
            self._await_rewrite(end)  # one that is under way began before what was taken out last
            self._redis.bgrewriteaof()
            if self._await_rewrite(end) != "ok":
                msg = "It could not write its append-only file anew."
                raise RedisUnavailable(msg)
        return True

    def _remove_from(self, key: str, wanted: set[str]) -> int:
        count, start = 0, "-"
        while entries := self._redis.xrange(key, min=start, count=PAGE):
            found = [entry for entry, fields in entries if fields.get(_FIELD, b"").decode(errors="replace") in wanted]
            if found:
                pipeline = self._redis.pipeline(transaction=True)
                pipeline.xack(key, self._group, *found)
                pipeline.xdel(key, *found)
                pipeline.execute()
            count += len(found)
            start = f"({entries[-1][0].decode()}"
        return count

    def _write_dead_anew(self) -> None:
        """Store the dead letters once more: the bytes of entries that were taken out stay beside those of their block.

        In the stream itself they go when all entries of their block are delivered.
        """

        def unit(pipeline: Any) -> None:
            entries = pipeline.xrange(self._dead)
            pipeline.multi()
            pipeline.delete(self._dead)
            for entry, fields in entries:
                pipeline.xadd(self._dead, fields, id=entry)

        self._redis.transaction(unit, self._dead)

    def _await_rewrite(self, end: float) -> str:
        """Wait until no rewrite runs or is to run; returns how the last one ended."""
        while True:
            facts = self._redis.info("persistence")
            if not facts.get("aof_rewrite_in_progress") and not facts.get("aof_rewrite_scheduled"):
                return str(facts.get("aof_last_bgrewrite_status", "ok"))
            if time.monotonic() >= end:
                msg = "It has not written its append-only file anew in time."
                raise RedisUnavailable(msg)
            time.sleep(REWRITE_LOOK_S)

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()
        self._blocking.close()

    def _entries(self, stream: str) -> Iterator[list[bytes]]:
        """The fields and values of a stream's entries, many together."""
        start = b"-"
        while entries := self._redis.xrange(stream, min=start, max=b"+", count=1_000):
            yield [each for _, fields in entries for pair in fields.items() for each in (*pair, b"\n")]
            start = b"(" + entries[-1][0]

    def _in_group(self, command: Callable[[], T]) -> T:
        with _mapped():
            try:
                return command()
            except redis.exceptions.ResponseError as error:
                if not _group_is_missing(error):
                    raise
            self._make_group()
            return command()

    def _make_group(self) -> None:
        # At 0, never at $: entries published before the group existed are for it too.
        try:
            self._redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except redis.exceptions.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _messages(self, entries: Sequence[tuple[bytes, dict[bytes, bytes] | None]]) -> list[Message]:
        found, foreign = [], []
        for entry_id, fields in entries:
            erasure_id = (fields or {}).get(_FIELD)
            if erasure_id is None:
                foreign.append(entry_id.decode())
            else:
                found.append(Message(entry_id.decode(), erasure_id.decode()))
        self.ack(foreign)
        return found


def _client(url: str, connect_s: float, timeout_s: float) -> Any:
    try:
        # One silent retry for a connection that the server closed meanwhile; a timeout is never retried here.
        client = redis.Redis.from_url(
            url,
            socket_connect_timeout=connect_s,
            socket_timeout=timeout_s,
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
            protocol=2,
            max_connections=16,
        )
        # What is behind the ? of the URL is looked at when a connection is made; this one is not connected.
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (ValueError, TypeError, redis.exceptions.RedisError) as error:
        msg = "EXPUNGE_REDIS_URL has a part or an option that is not known."
        raise RedisUnsuitable(msg) from error
    return client


def _group_is_missing(error: redis.exceptions.ResponseError) -> bool:
    text = str(error)
    # XPENDING and XREADGROUP say NOGROUP; a stream that does not exist is "no such key" to XINFO and friends.
    return text.startswith("NOGROUP") or "no such key" in text


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except redis.exceptions.InvalidResponse as error:
        msg = "What answers there is not Redis."
        raise RedisUnsuitable(msg) from error
    except redis.exceptions.ResponseError as error:
        code = _code(error)
        if code == "WRONGTYPE":
            msg = "The key of the stream holds something else; EXPUNGE_STREAM names another key."
            raise RedisUnsuitable(msg) from error
        raise RedisUnavailable(_refused(error) or f"It answers {code}.", retry_after_s=5) from error
    except redis.exceptions.RedisError as error:
        raise RedisUnavailable(_refused(error) or _unreachable(error), retry_after_s=5) from error


def _refused(error: BaseException) -> str | None:
    """What a server that answers says against the client, in our words; None where it is something else."""
    text = str(error)
    if isinstance(error, redis.exceptions.AuthenticationError) or text.startswith(("NOAUTH", "WRONGPASS")):
        return "It refuses the user or the password of EXPUNGE_REDIS_URL, or wants one."
    if isinstance(error, redis.exceptions.NoPermissionError):
        return "Its user may not run the commands that are needed (ACL)."
    if "DB index" in text:
        return "It has no database of the number in EXPUNGE_REDIS_URL."
    return None


def _unreachable(error: BaseException) -> str:
    """Why nothing answers: the first cause that the system names."""
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case ssl.SSLCertVerificationError():
                return f"Its certificate is not trusted ({cause.verify_message})."
            case ssl.SSLError():
                return "TLS fails: it speaks plain Redis, or other TLS; redis:// is plain, rediss:// is TLS."
            case socket.gaierror():
                return "Its host name is not known."
            case ConnectionRefusedError():
                return "Nothing listens at its address."
            case FileNotFoundError():
                return "There is no socket at its address."
            case PermissionError():
                return "Access to its socket is denied."
        cause = cause.__cause__ or cause.__context__
    return f"It is not reachable ({type(error).__name__})."


def _code(error: redis.exceptions.ResponseError) -> str:
    """The server's error code, such as MISCONF; for those that the client has a class for, the name of the class."""
    if type(error) is not redis.exceptions.ResponseError:
        return type(error).__name__
    # Errors inside a pipeline come with the command in front, which is not to be repeated.
    return str(error).rpartition("caused error: ")[2].split(" ", 1)[0]
