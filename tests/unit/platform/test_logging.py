import logging
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog

from service.platform.logging import REDACTED, configure_logging, error_facts, request_id


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


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
