"""A home per test, copied from one that is made once a run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factories.workers import Home, copy_template, opened


@pytest.fixture
def place(template: Path, home: Path) -> Iterator[Home]:
    """An open home of its own, with a base and its encoders."""
    with opened(copy_template(template, home)) as place:
        yield place
