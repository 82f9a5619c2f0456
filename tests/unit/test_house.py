"""Rules of the house that the import linter cannot see."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "service"

# What a unit of work is typed with, and an address. Everything else of SQLAlchemy writes or runs SQL.
NOT_SQL = {"Connection", "Row", "URL"}
# Second repositories of their domain.
REPOSITORIES = {"erasures/outbox.py", "erasures/reach.py"}
# Names that decision 0006 replaced by the field's terms.
RETIRED = {
    *("asked", "asking", "cast", "course", "crew", "demand", "house", "ledger", "lifeline", "outlook", "pace", "scene"),
    *("shelf", "singles", "standing", "story", "tell", "together"),
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SERVICE.rglob("*.py")):
        yield str(path.relative_to(SERVICE)), ast.parse(path.read_text())


def imported_from_sqlalchemy(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sqlalchemy":
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "sqlalchemy"}
    return found


def test_only_repositories_and_the_platform_write_sql():
    """Services compose repositories' functions; endpoints compose services'."""
    for name, tree in modules():
        if name.startswith("platform/") or "repository" in name or name in REPOSITORIES:
            continue
        assert imported_from_sqlalchemy(tree) <= NOT_SQL, name


def test_modules_are_of_a_size_to_read():
    """At most 400 lines each."""
    for path in [*SERVICE.rglob("*.py"), *(ROOT / "model_store").rglob("*.py"), *(ROOT / "migrations").glob("*.py")]:
        assert len(path.read_text().splitlines()) <= 400, path.relative_to(ROOT)


def public_classes() -> Iterator[tuple[str, str]]:
    for path in [*SERVICE.rglob("*.py"), *(ROOT / "model_store").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, str(path.relative_to(ROOT))


def test_a_public_class_name_stands_for_one_thing():
    """Decision 0006: say of what it is one, or make it one class."""
    places: dict[str, list[str]] = {}
    for name, path in public_classes():
        places.setdefault(name, []).append(path)
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_no_module_or_class_goes_by_a_picture():
    """Decision 0006: what was renamed to the field's term does not come back."""
    folders = ("service", "model_store", "benchmarks", "tests", "migrations")
    modules = {path.stem.removeprefix("test_"): path for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert {name: path for name, path in modules.items() if name in RETIRED - {"house"}} == {}
    assert {name: path for name, path in public_classes() if name.lower() in RETIRED} == {}


@pytest.mark.parametrize("module", ["service.app", "service.settings", "service.platform.redis"])
def test_an_api_process_never_loads_torch(module: str):
    """Not even indirectly: a replica is small."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
