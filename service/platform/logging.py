"""Logs: one line an event on stderr, events named `noun.verb`, never an id of a person.

As JSON, one object a line, for whatever collects them; as text where a person looks.
"""

import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from service.platform.logging_text import TextRenderer

LogFormat = Literal["json", "text", "auto"]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

# Fields that could name a person or open a door: they never leave the process, whoever logs them.
REDACTED = frozenset(
    {"user_id", "item_id", "user", "item", "users", "items", "path", "url", "query", "body", "params", "parameters"}
    | {"reason", "token", "authorization", "secret", "secret_key", "salt", "password"}
)
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_PACKAGE_ROOT = Path(__file__).parents[2]


def configure_logging(level: str = "info", form: LogFormat = "json", process: str | None = None) -> None:
    """Set up structlog and route the standard library's loggers through it. Safe to call again.

    Args:
        level: least level that is written: debug, info, warning, error.
        form: `json`, `text`, or `auto`: text where stderr is a terminal, else JSON.
        process: name of this process, in each line: several share a terminal under `expunge serve`.
    """
    as_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    render = TextRenderer(sys.stderr) if as_text else _encode
    structlog.configure(
        processors=[structlog.processors.add_log_level, _Context(process), _redact, render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_StandardError,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Handler()]
    root.setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(_LEVELS[level])
    # Access lines of the server hold paths, and paths hold ids; the middleware writes its own.
    logging.getLogger("uvicorn.access").disabled = True


def error_facts(error: BaseException) -> dict[str, Any]:
    """What may be logged of an exception: its types and the lines it passed, not its texts, which may quote an id."""
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    facts: dict[str, Any] = {
        "error": type(error).__name__,
        "at": [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames],
    }
    cause = error.__cause__ or error.__context__
    if cause is not None:
        facts["cause"] = type(cause).__name__
    return facts


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(_PACKAGE_ROOT)) if path.is_relative_to(_PACKAGE_ROOT) else path.name


class _StandardError:
    """Writes each line at once to what standard error is now, and not to what it was when this was set up."""

    def __init__(self, *_arguments: Any) -> None:
        pass

    def msg(self, line: bytes) -> None:
        sys.stderr.buffer.write(line + b"\n")
        sys.stderr.buffer.flush()

    debug = info = warning = error = critical = log = msg


class _Context:
    """Adds when, in which process and for which request."""

    def __init__(self, process: str | None) -> None:
        self._process = process

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["time"] = datetime.now(UTC).isoformat()
        if self._process is not None:
            event.setdefault("process", self._process)
        current = request_id.get()
        if current is not None:
            event.setdefault("request_id", current)
        return event


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name in REDACTED & event.keys():
        event[name] = "(redacted)"
    return event


def _encode(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    return orjson.dumps(event, default=lambda value: type(value).__name__, option=orjson.OPT_NON_STR_KEYS)


class _Handler(logging.Handler):
    """Turns a record of the standard library, uvicorn's too, into a line of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; an exception is reduced to its types and lines."""
        facts = error_facts(record.exc_info[1]) if record.exc_info and record.exc_info[1] else {}
        # Texts of exceptions are appended after a line break by some loggers.
        text = record.getMessage().split("\n", 1)[0]
        logger = structlog.get_logger()
        level = record.levelno if record.levelno in _LEVELS.values() else logging.ERROR
        logger.log(level, text, logger=record.name, **facts)
