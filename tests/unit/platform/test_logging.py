import io
import logging
import sys
from typing import Any

import orjson
import pytest
import structlog

from service.platform.logging import REDACTED, configure_logging, error_facts, request_id

pytestmark = pytest.mark.usefixtures("own_logging")


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_a_line_is_one_json_object(capfd: pytest.CaptureFixture[str]):
    """Event, level, time and the fields given."""
    configure_logging()

    structlog.get_logger().info("erasure.accepted", targets=3)

    [line] = lines(capfd)
    assert (line["event"], line["level"], line["targets"]) == ("erasure.accepted", "info", 3)
    assert line["time"].endswith("+00:00")


def test_lines_below_the_level_are_not_written(capfd: pytest.CaptureFixture[str]):
    """Ours and the libraries'."""
    configure_logging("warning")

    structlog.get_logger().info("a.b")
    logging.getLogger("uvicorn.error").info("Started")

    assert lines(capfd) == []


@pytest.mark.P8
@pytest.mark.parametrize("name", sorted(REDACTED))
def test_fields_that_could_name_a_person_do_not_leave(capfd: pytest.CaptureFixture[str], name: str):
    """Whoever logs them."""
    configure_logging()

    structlog.get_logger().warning("a.b", **{name: "ana@example.org"})

    assert lines(capfd)[0][name] == "(redacted)"


def test_the_request_of_a_line_is_named(capfd: pytest.CaptureFixture[str]):
    """By the id that its answer carried."""
    configure_logging()
    token = request_id.set("abc")

    structlog.get_logger().info("a.b")

    request_id.reset(token)
    assert lines(capfd)[0]["request_id"] == "abc"


def test_lines_of_libraries_are_json_too(capfd: pytest.CaptureFixture[str]):
    """One format for whoever collects them."""
    configure_logging()

    logging.getLogger("some.library").warning("careful with %d", 3)

    [line] = lines(capfd)
    assert (line["event"], line["logger"], line["level"]) == ("careful with 3", "some.library", "warning")


@pytest.mark.P8
def test_the_text_of_an_exception_is_not_logged(capfd: pytest.CaptureFixture[str]):
    """It may quote an id; its type and the lines it passed are enough."""
    configure_logging()

    try:
        raise ValueError("ana@example.org") from KeyError("ana@example.org")
    except ValueError as error:
        structlog.get_logger().error("a.failed", **error_facts(error))
        logging.getLogger("some.library").exception("it failed")

    ours, theirs = lines(capfd)
    assert (ours["error"], ours["cause"]) == ("ValueError", "KeyError")
    assert "test_logging.py" in ours["at"][0]
    assert theirs["error"] == "ValueError"
    assert "ana@example.org" not in str([ours, theirs])


def test_the_servers_access_lines_are_off():
    """They hold paths, and paths hold ids."""
    configure_logging()

    assert logging.getLogger("uvicorn.access").disabled


class Stream(io.TextIOWrapper):
    """A stream that is a terminal or not, and keeps what was written."""

    def __init__(self, terminal: bool, encoding: str = "utf-8") -> None:
        self.kept = io.BytesIO()
        super().__init__(self.kept, encoding)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def text(self) -> str:
        self.flush()
        return self.kept.getvalue().decode()


@pytest.mark.parametrize(
    ("form", "terminal", "is_json"),
    [
        ("auto", True, False),
        ("auto", False, True),
        ("json", True, True),
        ("json", False, True),
        ("text", True, False),
        ("text", False, False),
    ],
)
def test_text_where_a_person_looks(monkeypatch: pytest.MonkeyPatch, form: Any, terminal: bool, is_json: bool):
    """JSON elsewhere, unless one of them was asked for."""
    monkeypatch.setattr(sys, "stderr", stream := Stream(terminal))
    configure_logging("info", form)

    structlog.get_logger().info("a.b")

    assert stream.text().startswith("{") is is_json


def test_a_line_of_text_reads_well(monkeypatch: pytest.MonkeyPatch):
    """Time of day, process, level, event, fields; of libraries, too."""
    monkeypatch.setattr(sys, "stderr", stream := Stream(False))
    configure_logging("info", "text", "worker")

    structlog.get_logger().warning("lease.lost", epoch=3, why="too slow", at=["a.py:1 f"], none=None)
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)

    ours, theirs = stream.text().splitlines()
    assert ours[8:] == ' worker warning lease.lost epoch=3 why="too slow" at=["a.py:1 f"] none=null'
    assert theirs[8:] == " worker info    Started server process [7] logger=uvicorn.error"


@pytest.mark.parametrize(
    ("terminal", "no_color", "term", "coloured"),
    [(True, "", "xterm", True), (True, "1", "xterm", False), (True, "", "dumb", False), (False, "", "xterm", False)],
)
def test_colours_only_where_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, no_color: str, term: str, coloured: bool
):
    """On a terminal that has them, and NO_COLOR is honoured."""
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", stream := Stream(terminal))
    configure_logging("info", "text")

    structlog.get_logger().info("a.b", c=1)

    assert ("\x1b" in stream.text()) is coloured


@pytest.mark.P8
def test_text_holds_no_more_than_json(monkeypatch: pytest.MonkeyPatch):
    """Neither redacted fields, nor the texts and locals of exceptions, nor unknown objects."""
    monkeypatch.setattr(sys, "stderr", stream := Stream(True))
    configure_logging("info", "text")
    canary = "ana@example.org"

    class Person:
        def __repr__(self) -> str:
            return canary

    try:
        raise ValueError(canary)
    except ValueError:
        structlog.get_logger().error("a.failed", user_id=canary, whom=Person(), exc_info=True)
        logging.getLogger("some.library").exception("it failed")

    assert "(redacted)" in stream.text()
    assert canary not in stream.text()


def test_no_value_can_begin_a_line_or_move_the_cursor(monkeypatch: pytest.MonkeyPatch):
    """Control characters come out escaped; what the terminal cannot show, too."""
    monkeypatch.setattr(sys, "stderr", stream := Stream(False, "ascii"))
    configure_logging("info", "text")

    structlog.get_logger().info("a\nb", **{"k\r": "c\x1b[2J\u2028é"})

    [line] = stream.text().splitlines()
    assert line.endswith("a\\nb k\\r=c\\x1b[2J\\u2028\\xe9")


def test_a_line_names_its_process(capfd: pytest.CaptureFixture[str]):
    """Several share a terminal; a logger that knows better is not overruled."""
    configure_logging(process="api")

    structlog.get_logger().info("a.b")
    structlog.get_logger(process="valkey").info("c.d")

    assert [line["process"] for line in lines(capfd)] == ["api", "valkey"]
