"""Every setting of the service, its default and its limits; each is read from `EXPUNGE_<NAME>`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

MEBIBYTE = 1024 * 1024

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "text", "auto"]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, le=31 * 24 * 3600)]
Port = Annotated[int, Field(ge=0, le=65535)]


class SettingsError(Exception):
    """A setting makes no sense; the text is one sentence that names it and says what would do."""


class Settings(BaseSettings):
    """How one process of the service runs. Immutable; durations carry their unit in the name."""

    model_config = SettingsConfigDict(env_prefix="EXPUNGE_", extra="ignore", frozen=True)

    home: Path = Path("~/.expunge")
    """Folder that holds all state: database, secret, model store, embedded server."""
    data_dir: Path | None = None
    """Folder that holds data sets."""
    database_url: str | None = None
    """SQLAlchemy URL; without one, SQLite at `<home>/expunge.db`."""
    redis_url: str | None = None
    """URL of a Redis or Valkey >= 7; without one, an embedded server is started in `home`."""
    secret_key: SecretStr | None = None
    """Keys digests, cursors and manifests; without one, `<home>/secret.key`, made once."""

    log_key: SecretStr | None = None
    """Signs the audit log; without one, one derived from EXPUNGE_SECRET_KEY, or `<home>/log.key`, made once."""
    witnesses: Annotated[tuple[str, ...], NoDecode] = ()
    """Who cosigns the log's heads: `URL VKEY`, several separated by commas."""
    timestamp_url: str | None = None
    """Authority that stamps the log's heads with the time (RFC 3161); none by default. Needs the extra `timestamps`."""
    timestamp_roots: Path | None = None
    """PEM file of the certificates that the authority's must lead to."""
    timestamp_seconds: Seconds = 3600.0
    """Least time between two heads that are stamped."""
    checkpoint_seconds: Seconds = 10.0
    """Interval at which a log that grew is signed without being asked."""

    host: str = "127.0.0.1"
    """Address that the API and the worker's endpoints listen on."""
    port: Port = 8080
    """Port of the API."""
    metrics_port: Port = 8081
    """Port of the worker's metrics and health endpoints."""
    log_level: LogLevel = "info"
    """Least level that is logged: debug, info, warning or error."""
    log_format: LogFormat = "auto"
    """json, text, or auto: text where standard error is a terminal, JSON elsewhere."""
    log_requests: bool = False
    """Whether each request is logged; those that fail with a 5xx status always are."""
    docs: bool = True
    """Whether `/docs` and `/openapi.json` are served."""

    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins whose web pages may call the API, parted by commas, such as `https://shop.example`; `*` for any."""
    cors_credentials: bool = False
    """Whether these pages may send cookies and the like; not with `*`. API keys do not need it."""

    due_days: Annotated[float, Field(gt=0, le=31)] = 7.0
    """Days from acceptance to `due_at`; the law allows one month."""
    batch_max: Annotated[int, Field(gt=0, le=10_000)] = 256
    """Most erasures that one unlearning step takes together."""
    batch_window_ms: Annotated[int, Field(ge=0, le=60_000)] = 0
    """Longest wait for more erasures to join a batch. 0: take what is there; the next gather while a batch runs."""
    sweep_seconds: Seconds = 5.0
    """Interval at which the relay looks for outbox rows that nobody published."""
    lease_seconds: Seconds = 10.0
    """How long a silent worker keeps its lease."""
    max_attempts: Annotated[int, Field(gt=0, le=100)] = 5
    """Deliveries of one erasure before it needs attention."""

    connections_max: Annotated[int, Field(ge=10, le=100_000)] = 800
    """Most connections open at once; beyond it the one idle the longest makes room. Mind the limit of open files."""
    body_limit_bytes: Annotated[int, Field(ge=1024, le=256 * MEBIBYTE)] = 2 * MEBIBYTE
    """Most bytes of a request's body."""
    targets_max: Annotated[int, Field(gt=0, le=100_000)] = 10_000
    """Most targets that one erasure names."""
    requests_per_minute: Annotated[int, Field(gt=0, le=100_000)] | None = None
    """Most requests that the keys of one label send within a minute; without it, any number."""
    erasure_targets_per_day: Annotated[int, Field(gt=0, le=1_000_000_000)] | None = None
    """Most targets of erasures that the keys of one label name within a day: a key that leaks deletes no more."""
    approval_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of all recorded interactions above which an erasure waits for a second key's approval; 1: none does."""
    approval_min_pairs: Positive = 1_000
    """Interactions up to which no erasure waits for approval: in a small data set one person is a large share."""
    backlog_max: Positive = 100_000
    """Most erasures accepted and not yet forgotten; above it callers are told to come back later."""
    id_max_length: Annotated[int, Field(gt=0, le=512)] = 512
    """Most characters in a user id or an item id."""
    integrity_seconds: Annotated[float, Field(ge=1, le=31 * 24 * 3600)] = 3600.0
    """How often every page of a SQLite database is read through, after the first time at the start."""
    pool_size: Annotated[int, Field(gt=0, le=200)] = 5
    """Database connections of one process (PostgreSQL)."""

    gate_max_residual: Annotated[float, Field(gt=0)] = 0.25
    """Share of the way to its calibrated target that a batch's mean score may still have to go."""
    gate_max_overshoot: Annotated[float, Field(gt=0)] = 1.5
    """How far beyond the target it may be, same unit: an unnaturally low score tells as much as a high one."""
    gate_noise: Annotated[float, Field(ge=0)] = 0.75
    """Spread of one pair's residual in good versions, same unit: small batches may stray by that much over sqrt(n)."""
    gate_min_quality: Annotated[float, Field(gt=0, le=1)] = 0.98
    """Validation NDCG over the base's; erasing 2 % of the interactions costs a retrained model about 1 %."""
    gate_max_drift: Annotated[float, Field(gt=0)] = 0.25
    """Mean absolute change of the remaining scores, in held-out standard deviations; less than between two seeds."""
    fine_tune_max_epochs: Annotated[int, Field(ge=0, le=50)] = 3
    """Most epochs of fine-tuning when the gate refuses what the encoder gave; then the erasure needs attention."""
    torch_threads: Annotated[int, Field(gt=0, le=1024)] | None = None
    """Threads of the worker's arithmetic; without it, one a core."""

    compaction_share: Annotated[float, Field(gt=0, le=1)] | None = 0.02
    """Share of the base's interactions forgotten since, at which it is trained anew: that costs about 1 % of NDCG."""
    compaction_margin_hours: Annotated[float, Field(ge=0, le=31 * 24)] = 24.0
    """How long before the earliest `due_at` a compaction begins, at least; longer once compactions take over 8 h."""
    compaction_interval_hours: Annotated[float, Field(ge=0.01, le=24 * 366)] | None = None
    """Age of the base at which it is trained anew on what was recorded since; without it, only erasures ask for it."""
    compaction_on_refusal: bool = True
    """Whether an erasure that the gate refused brings it forward: trained without it, there is nothing to refuse."""
    compaction_check_seconds: Seconds = 5.0
    """Interval at which the compactor looks whether there is something to do."""
    compaction_min_quality: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Validation NDCG@20 of a new base over the old one's, less two standard errors of the difference; two seeds, each
    with its own split, are a few % apart."""
    compaction_threads: Annotated[int, Field(gt=0, le=1024)] | None = None
    """Threads of a compaction's arithmetic; without it, one a core: at its niceness it takes what others leave."""
    compaction_nice: Annotated[int, Field(ge=0, le=19)] = 10
    """Niceness of the compactor: whoever answers callers goes first."""
    compaction_memory_bytes: Annotated[int, Field(ge=256 * MEBIBYTE)] | None = None
    """Most memory of a compaction's training, beyond which it fails rather than others; without it, no bound."""

    keep_versions: Annotated[int, Field(ge=1, le=100)] = 2
    """Versions kept in the store beside the live one."""

    tombstone_days: Annotated[float, Field(gt=0, le=36_500)] = 1095.0
    """Days that late writes of what was erased are refused: three years, when most claims lapsed; consent ends it."""
    idempotency_days: Annotated[float, Field(gt=0, le=3_650)] = 30.0
    """Days that an Idempotency-Key is remembered: longer than anybody retries, and as long as an erasure may take."""
    purge_wal_mb: Annotated[int, Field(ge=0, le=65_536)] = 512
    """PostgreSQL: most MB that a purge writes to the write-ahead log to have old segments overwritten; 0: nothing."""

    valkey_binary: Path | None = None
    """Server binary to run in place of the packaged one."""
    stream: Annotated[str, Field(min_length=1, max_length=200)] = "expunge:erasures"
    """Key of the stream in Redis; `<stream>:dead` holds what was set aside."""
    group: Annotated[str, Field(min_length=1, max_length=200)] = "unlearners"
    """Consumer group of the workers."""
    redis_timeout_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    """Longest wait for an answer of Redis."""

    fault: str | None = None
    """Fault to inject, for tests: `<point>:kill`, `<point>:raise` or `<point>:pause`."""
    fault_file: Path | None = None
    """File whose appearance ends an injected pause."""

    @field_validator("home", "data_dir", "valkey_binary", "fault_file", "timestamp_roots")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()

    @field_validator("cors_origins", "witnesses", mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        return tuple(part.strip() for part in given.split(",") if part.strip()) if isinstance(given, str) else given

    @field_validator("cors_origins")
    @classmethod
    def _known_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if not all(origin == "*" or _ORIGIN.fullmatch(origin) for origin in origins):
            msg = "must name origins as browsers send them, such as https://shop.example, or be *"
            raise ValueError(msg)
        return origins

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, text: str | None) -> str | None:
        if text is not None:
            from service.platform.database_url import read_database_url

            read_database_url(text)
        return text

    @field_validator("timestamp_url")
    @classmethod
    def _web_address(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("https://", "http://")):
            msg = "must begin with https:// or http://"
            raise ValueError(msg)
        return url

    @field_validator("redis_url")
    @classmethod
    def _known_redis(cls, text: str | None) -> str | None:
        if text is not None:
            from service.platform.redis_url import check_redis_url

            check_redis_url(text)
        return text

    @field_validator("secret_key")
    @classmethod
    def _strong_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value().strip()) < 32:
            msg = "must have at least 32 characters"
            raise ValueError(msg)
        return secret

    @model_validator(mode="after")
    def _no_credentials_for_anybody(self) -> Settings:
        if self.cors_credentials and "*" in self.cors_origins:
            msg = "EXPUNGE_CORS_CREDENTIALS needs origins by name: with EXPUNGE_CORS_ORIGINS=* any page could use it"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _batches_fit_the_lease(self) -> Settings:
        if self.batch_window_ms / 1000 >= self.lease_seconds:
            msg = "EXPUNGE_BATCH_WINDOW_MS must be shorter than EXPUNGE_LEASE_SECONDS, or waiting loses the lease"
            raise ValueError(msg)
        return self

    @property
    def sql_url(self) -> URL:
        """The database's address in force, as an object: a text would read ? and % in a path as something else."""
        from service.platform.database_url import read_database_url, sqlite_url

        return (
            sqlite_url(self.home / "expunge.db") if self.database_url is None else read_database_url(self.database_url)
        )

    @property
    def limits_keys(self) -> bool:
        """Whether there is any limit to what a key may ask for."""
        return self.requests_per_minute is not None or self.erasure_targets_per_day is not None

    @property
    def store_root(self) -> Path:
        """Folder of the model store."""
        return self.home / "store"


def load_settings(**given: Any) -> Settings:
    """Read the settings from the environment, with `given` taking precedence; None means not given.

    Raises SettingsError with one sentence when a value makes no sense; the value is not repeated, it may be a secret.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        sentence = _sentence(error)
    # Outside the handler: the first error holds the value, and must not travel along as its context.
    raise SettingsError(sentence)


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    what = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"{what}."
    name = f"EXPUNGE_{str(first['loc'][0]).upper()}"
    what = what.replace("Input should be", "must be", 1)
    return f"{name} {what}." if what.startswith("must") else f"{name} is refused: {what}."
