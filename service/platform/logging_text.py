"""The log as text, for whoever looks at a terminal: one line an event, whatever is in it."""

import os
from collections.abc import Callable
from datetime import datetime
from typing import Any, TextIO

import orjson
from structlog.typing import EventDict, WrappedLogger

PROCESS_WIDTH = 6
LEVEL_WIDTH = 7
_DIM, _BOLD, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_LEVEL_COLOURS = {"debug": _DIM, "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}


def wants_colours(stream: TextIO) -> bool:
    """Whether colours belong there: a terminal that is not dumb, and nobody asked for none (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class TextRenderer:
    """Renders `15:04:05 worker warning lease.lost epoch=3`: time of day here, process, level, event, and the rest.

    The last processor of a chain; gives bytes in the encoding of the stream. Control characters come out escaped, so
    that no value can move the cursor or begin a line.
    """

    def __init__(self, stream: TextIO) -> None:
        self._encoding = stream.encoding or "utf-8"
        self._colours = wants_colours(stream)

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
        """One line, without its end."""
        at = datetime.fromisoformat(event.pop("time")).astimezone().strftime("%H:%M:%S")
        level = str(event.pop("level", ""))
        head = [
            self._styled(at, _DIM),
            f"{_escaped(event.pop('process', '')):{PROCESS_WIDTH}}",
            self._styled(f"{level:{LEVEL_WIDTH}}", _LEVEL_COLOURS.get(level, "")),
            self._styled(_escaped(event.pop("event", "")), _BOLD),
        ]
        rest = [f"{self._styled(_escaped(key), _DIM)}={_shown(value)}" for key, value in event.items()]
        return " ".join((*head, *rest)).encode(self._encoding, "backslashreplace")

    def _styled(self, text: str, style: str) -> str:
        return f"{style}{text}{_RESET}" if self._colours and style else text


def _shown(value: Any) -> str:
    if not isinstance(value, str):
        value = orjson.dumps(value, default=_name_of_type, option=orjson.OPT_NON_STR_KEYS).decode()
        return _escaped(value)
    quote: Callable[[str], str] = '"{}"'.format if not value or " " in value else str
    return quote(_escaped(value))


def _escaped(text: object) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))


def _name_of_type(value: object) -> str:
    return type(value).__name__
