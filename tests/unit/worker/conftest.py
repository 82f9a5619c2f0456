"""A home per test, copied from one that is made once a run."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factories.workers import Home, copy_template, make_template, opened


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
    with opened(copy_template(template, home)) as place:
        yield place
