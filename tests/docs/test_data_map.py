"""The data map against the code: each column, file, key, log field and label has a rule, and no rule is for nothing."""

import ast
import importlib
import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.registry import CollectorRegistry

from service.cli import main
from service.data_map.database import DATABASE
from service.data_map.home import HOME
from service.data_map.places import DataKind, GoesAt
from service.data_map.service import DATA_MAP, document, markdown, text
from service.data_map.traces import LOG, METRICS, STREAM
from service.platform.key_limits import KEY_PREFIX
from service.platform.logging import REDACTED
from service.platform.obstacles import Obstacle
from service.platform.tables import metadata

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "service").rglob("*.py"), *(ROOT / "model_store").rglob("*.py")])
LOGGING = {"debug", "info", "warning", "error", "exception", "critical", "bind", "log"}
# What calls with ** give: the keys of error_facts, and an obstacle.
SPREAD = {"error_facts": {"error", "at", "cause"}, "body": set(Obstacle.__dataclass_fields__), "facts": {"error", "at"}}
ADDED = {"event", "time", "level", "process", "request_id", "logger"}  # by service.platform.logging


def names(part: Any) -> list[str]:
    return [place.name for place in part]


def test_every_column_has_a_rule_and_every_rule_a_column() -> None:
    """A new column fails here: say in service/data_map/database.py what it holds and when it goes."""
    columns = {f"{table.name}.{column.name}" for table in metadata.tables.values() for column in table.columns}
    declared = set(names(DATABASE))

    assert columns - declared == set(), "columns without a rule in service/data_map/database.py"
    assert declared - columns == set(), "rules in service/data_map/database.py for columns that are gone"


def test_no_place_has_two_rules() -> None:
    """Each store names a place once."""
    places = [(place.store, place.name) for place in DATA_MAP]

    assert len(places) == len(set(places))


def test_rules_make_sense() -> None:
    """What holds nothing never goes; what names somebody in the service's own stores does; a gap is a rule not kept."""
    for place in DATA_MAP:
        assert place.holds, place.name
        assert all(sentence.endswith(".") for sentence in (place.kept, place.gap or ".")), place.name
        assert DataKind.NOTHING not in place.holds or len(place.holds) == 1, place.name
        if not place.personal:
            assert (place.goes, place.gap) == (GoesAt.NEVER, None), place.name
    named = [place for place in (*DATABASE, *HOME) if {DataKind.ID, DataKind.VECTOR, DataKind.KEY} & place.holds]
    assert [place.name for place in named if place.goes == GoesAt.NEVER] == ["datasets/*/*"]


def home_paths() -> Iterator[tuple[str, str]]:
    """Names that the code puts below a home, and where: `home / "name"`, `home / CONSTANT`."""
    for path in SOURCES:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for literal, constant in re.findall(r'\bhome / (?:"([^"]+)"|([A-Z][A-Z_]*)\b)', path.read_text()):
            yield literal or getattr(importlib.import_module(module), constant), module


def test_every_file_that_the_code_writes_below_a_home_has_a_rule() -> None:
    """A new one fails here: say in service/data_map/home.py what it holds and when it goes."""
    declared = {name.partition("#")[0].split("/")[0] for name in names(HOME)}
    found = list(home_paths())

    assert {"expunge.db", "store", "checkpoints", "valkey", "imported.json"} <= {name for name, _ in found}
    for name, module in found:
        assert any(fnmatchcase(name, known) for known in declared), f"{module}: {name}"


def log_fields() -> set[str]:
    """The keyword arguments of every log call, and of what is spread into one."""
    found: set[str] = set()
    for path in SOURCES:
        source = path.read_text()
        if "structlog" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and is_log_call(node):
                for keyword in node.keywords:
                    if keyword.arg is not None:
                        found.add(keyword.arg)
                    else:
                        found |= SPREAD[spread_name(keyword.value, path)]
    return found


def is_log_call(call: ast.Call) -> bool:
    """A method of a logger; or a call by another name whose first argument is an event, noun.verb, with fields."""
    if isinstance(call.func, ast.Attribute) and call.func.attr in LOGGING:
        return ast.unparse(call.func.value) in {"log", "logger", "self._log", "structlog.get_logger()"}
    first = call.args[0] if call.args else None
    is_event = isinstance(first, ast.Constant) and re.fullmatch(r"[a-z]+\.[a-z_]+", str(first.value)) is not None
    return is_event and isinstance(call.func, ast.Name) and bool(call.keywords)


def spread_name(value: ast.expr, path: Path) -> str:
    called = value.func if isinstance(value, ast.Call) else value
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    assert name in SPREAD, f"{path}: say in this test which fields **{ast.unparse(value)} gives to a log line"
    return str(name)


def test_every_field_of_a_log_call_has_a_rule() -> None:
    """A new one fails here: say in service/data_map/traces.py what it holds."""
    declared, used = set(names(LOG)), log_fields() | ADDED

    assert used - declared == set(), "log fields without a rule in service/data_map/traces.py"
    assert declared - used == set(), "rules in service/data_map/traces.py for log fields that are gone"
    assert declared & REDACTED == set()


def test_the_keys_of_limits_have_a_rule() -> None:
    """In the configured Redis, beside the stream."""
    assert f"{KEY_PREFIX}*" in names(STREAM)


def metric_labels(registry: CollectorRegistry) -> set[str]:
    importlib.import_module("service.platform.metrics")
    collectors = set(registry._collector_to_names)
    found = {label for each in collectors for label in getattr(each, "_labelnames", ())}
    trees = [ast.parse(path.read_text()) for path in (ROOT / "service" / "platform").glob("*gauges.py")]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.keyword) and node.arg == "labels":
            found |= set(ast.literal_eval(node.value))
    return found


def test_every_label_of_a_metric_has_a_rule() -> None:
    """A new one fails here: say in service/data_map/traces.py what it holds."""
    ours = metric_labels(REGISTRY)
    of_libraries = {"implementation", "major", "minor", "patchlevel", "generation", "le"}

    assert {"route", "code", "checksum"} <= ours
    assert set(names(METRICS)) == ours | of_libraries


def test_the_page_is_what_the_map_says() -> None:
    """`make reference` writes it."""
    assert (ROOT / "docs" / "data-map.md").read_text() == markdown(), "run `make reference` and commit docs/data-map.md"


def test_the_text_fits_80_columns_and_leaves_nothing_out() -> None:
    """What a terminal shows, and a narrower one."""
    for width in (80, 60):
        lines = text(width).splitlines()

        assert max(map(len, lines)) <= width
    shown = " ".join(text().split())
    for place in DATA_MAP:
        assert place.name in shown, place.name
        assert place.gap is None or place.gap in shown


def test_the_command_tells_the_map(capsys: pytest.CaptureFixture[str]) -> None:
    """As text, or as the document that REST gives; it needs no home."""
    assert main(["data-map"]) == 0
    assert capsys.readouterr().out == text() + "\n"
    assert main(["data-map", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == document()


def test_the_tests_that_the_threat_model_names_exist() -> None:
    """Each defence is held by a test; one that was renamed or taken away shows here."""
    page = (ROOT / "docs" / "threat-model.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)

    assert len(named) > 20
    for file, test in named:
        functions = {
            node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)
        }
        assert test in functions, f"{file}::{test}"
    assert "## What is not defended" in page
