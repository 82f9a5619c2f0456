"""Write docs/reference.md: settings, metrics, problems, routes, commands, states, fault points, all read from the code.

`make reference` writes it; a test runs `--check` and fails where it is out of date.
"""

import ast
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "reference.md"
HEAD = """# Reference

Written by `make reference` from the code; edit the code. What the words mean stands in
[decision 0006](decisions/0006-vocabulary-of-words.md), what to do when an alert fires in the [runbook](runbook.md).
"""
STATES = {
    "accepted": "Stored, hidden from every answer, late writes refused; the model still knows it.",
    "forgotten": "The version that answers was made without it and passed the gate.",
    "erased": "The base was trained anew without it and every copy purged. Not reached by this release.",
    "cancelled": "Taken back by the caller while it was accepted; its suppression is lifted.",
    "needs_attention": "The worker cannot go on with it alone, or it is held. It stays hidden; nothing is lost.",
    "refused": "Ended by a decision before it was forgotten: its record is kept, and stays hidden.",
}
OTHER_VARIABLES = {
    "EXPUNGE_PROXY": "Proxy to a service; without it the one of the environment, and none to this machine.",
    "EXPUNGE_URL": "Where the commands that talk to a service find it; default `http://127.0.0.1:8080`.",
    "EXPUNGE_API_KEY": "The key that these commands send.",
    "EXPUNGE_DEBUG": "With any value, a command that fails prints its traceback before its sentence.",
}
INTERNAL_VARIABLES = {"EXPUNGE_PARENT_PIPE"}
METHODS = ("get", "post", "put", "patch", "delete")


def main(arguments: Sequence[str]) -> int:
    """Write the page, or with `--check` say whether the one that is there is current (exit code 1 if not)."""
    sys.path.insert(0, str(ROOT))
    text = reference()
    if "--check" not in arguments:
        TARGET.write_text(text)
        return 0
    if TARGET.exists() and TARGET.read_text() == text:
        return 0
    sys.stderr.write("docs/reference.md is out of date: run `make reference` and commit it.\n")
    return 1


def reference() -> str:
    """The whole page."""
    _import_everything()
    sections = {
        "Settings": _settings(),
        "Commands": _commands(),
        "Routes": _routes(),
        "States of an erasure": _states(),
        "Problems": _problems(),
        "Metrics": _metrics(),
        "Invariants": _invariants(),
        "Fault points": _fault_points(),
    }
    return HEAD + "".join(f"\n## {title}\n{body}" for title, body in sections.items())


def _import_everything() -> None:
    # A problem is known once its module is imported, wherever it stands.
    service = importlib.import_module("service")
    for module in pkgutil.walk_packages(service.__path__, "service."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _settings() -> str:
    settings = importlib.import_module("service.settings").Settings
    meanings = _attribute_texts(ROOT / "service" / "settings.py", "Settings")
    rows = [
        (f"`EXPUNGE_{name.upper()}`", _default(field.default), meanings[name])
        for name, field in settings.model_fields.items()
    ]
    return (
        "Each is an environment variable. A value that makes no sense ends the start with one sentence.\n\n"
        + _table(("variable", "default", "meaning"), rows)
        + "\nThe command line reads these, too.\n\n"
        + _table(("variable", "meaning"), [(f"`{name}`", text) for name, text in OTHER_VARIABLES.items()])
    )


def _default(value: Any) -> str:
    return "" if value is None else f"`{value}`"


def _attribute_texts(file: Path, class_name: str) -> dict[str, str]:
    """The string that stands below each annotated attribute of a class; every one must have its own."""
    tree = ast.parse(file.read_text())
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    texts: dict[str, str] = {}
    for node, below in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if not (isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)):
                msg = f"{class_name}.{node.target.id} has no explanation below it."
                raise LookupError(msg)
            texts[node.target.id] = str(below.value.value)
    return texts


def _commands() -> str:
    cli = importlib.import_module("service.cli.program")
    root = importlib.import_module("typer.main").get_command(cli.app)
    rows = [
        (f"`expunge {path}`", _first_sentence(command.help or ""), _options(command))
        for path, command in _leaves(root, "")
    ]
    return "`expunge COMMAND --help` explains each option. `--home DIR` goes with every command.\n\n" + _table(
        ("command", "what it does", "options and arguments"), rows
    )


def _leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if not children:
        yield path, command
        return
    for name in sorted(children):
        if not children[name].hidden:
            yield from _leaves(children[name], f"{path} {name}".strip())


def _options(command: Any) -> str:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    names = [parameter.opts[0] if parameter.opts else parameter.name for parameter in shown]
    return _codes(name for name in names if name != "--help")


def _routes() -> str:
    settings = importlib.import_module("service.settings").load_settings()
    schema = importlib.import_module("service.app").create_app(settings).openapi()
    rows = [
        (
            f"`{method.upper()} {path}`",
            _first_sentence(operation.get("description") or operation["summary"]),
            _codes(name for one in operation.get("security", ()) for names in one.values() for name in names),
            ", ".join(sorted(operation["responses"])),
        )
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
        if method in METHODS
    ]
    return (
        "The full contract is served at `/openapi.json` and, to read, at `/docs`. A key needs the scope that is named; "
        "`admin` has them all.\n\n" + _table(("route", "what it does", "scope", "answers"), rows)
    )


def _states() -> str:
    tables = importlib.import_module("service.platform.tables")
    checks = [
        str(item.sqltext) for item in tables.erasures.constraints if "status IN" in str(getattr(item, "sqltext", ""))
    ]
    names = re.findall(r"'(\w+)'", checks[0])
    return _table(("state", "what is true from then on"), [(f"`{name}`", STATES[name]) for name in names])


def _problems() -> str:
    known = importlib.import_module("service.platform.problem").known_problems()
    rows = [
        (f"`{code}`", str(kind.status), _first_sentence(kind.__doc__ or kind.title), kind.next_step)
        for code, kind in known.items()
    ]
    return "Errors are `application/problem+json`; `GET /problems/{code}` tells the same.\n\n" + _table(
        ("code", "status", "what happened", "what to do"), rows
    )


def _metrics() -> str:
    rows = sorted({*_registered_metrics(), *_scraped_gauges()})
    return _table(("metric", "type", "labels", "meaning"), rows)


def _registered_metrics() -> Iterator[tuple[str, str, str, str]]:
    module = importlib.import_module("service.platform.metrics")
    for metric in vars(module).values():
        name = getattr(metric, "_name", None)
        if name is not None and hasattr(metric, "_documentation"):
            suffix = "_total" if metric._type == "counter" else ""
            yield f"`{name}{suffix}`", metric._type, _codes(metric._labelnames), metric._documentation


def _scraped_gauges() -> Iterator[tuple[str, str, str, str]]:
    """Gauges that are made at each scrape: read from the calls that make them."""
    trees = [ast.parse(path.read_text()) for path in sorted((ROOT / "service" / "platform").glob("*gauges.py"))]
    for call in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)):
        made_by = getattr(call.func, "id", "")
        values = [argument.value for argument in call.args[:2] if isinstance(argument, ast.Constant)]
        texts = [value for value in values if isinstance(value, str)]
        if made_by in ("_gauge", "GaugeMetricFamily", "CounterMetricFamily") and len(texts) == 2:
            labels = [ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg == "labels"]
            name = texts[0] if made_by != "_gauge" else f"expunge_{texts[0]}"
            kind, suffix = ("counter", "_total") if made_by == "CounterMetricFamily" else ("gauge", "")
            yield f"`{name}{suffix}`", kind, _codes(labels[0] if labels else ()), texts[1]


def _invariants() -> str:
    in_sql = importlib.import_module("service.platform.invariants").INVARIANTS
    in_worker = vars(importlib.import_module("service.worker.invariants")).values()
    rows = [(f"`{invariant.rule}`", invariant.promise) for invariant in in_sql]
    rows += [(f"`{kind.rule}`", _first_sentence(kind.__doc__)) for kind in in_worker if hasattr(kind, "rule")]
    return "Checked while the service runs; what breaks one is counted under its rule.\n\n" + _table(
        ("rule", "promise"), rows
    )


def _fault_points() -> str:
    found: set[str] = set()
    for file in sorted((*(ROOT / "service").rglob("*.py"), *(ROOT / "model_store").rglob("*.py"))):
        found.update(re.findall(r'fault_point\("([\w.]+)"\)', file.read_text()))
    lines = "".join(f"* `{name}`\n" for name in sorted(found))
    return "Steps at which `EXPUNGE_FAULT=<point>:kill|raise|pause` acts; for tests, never in production.\n\n" + lines


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().split("\n\n", 1)[0].split())
    return paragraph.split(". ", 1)[0].rstrip(".") + "." if paragraph else ""


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
