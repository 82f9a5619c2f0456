"""A home per test, with a base, its encoders and a compactor that looks often."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factories.workers import Home, copy_template, make_template, opened

QUICK = {"compaction_check_seconds": 0.05, "compaction_min_quality": 1e-9, "compaction_share": None}


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    """A closed home with a base and its encoders."""
    folder = Path(tempfile.mkdtemp(prefix="expunge-template-"))
    make_template(folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def place(template: Path, home: Path) -> Iterator[Home]:
    """An open home of its own, with a base and its encoders."""
    with opened(copy_template(template, home, **QUICK)) as place:
        yield place
