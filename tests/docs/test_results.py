"""docs/results is what the committed cells say."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "results"


def test_the_pages_are_current() -> None:
    """Tables, sentences and summary come from the cells, not from hands."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.evaluation.main", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_every_plot_that_is_shown_is_there() -> None:
    """As PNG on the page and as SVG behind it, and none that is shown nowhere."""
    shown = set(re.findall(r"\(plots/([\w.-]+)\)", (FOLDER / "README.md").read_text()))

    assert shown == {path.name for path in (FOLDER / "plots").glob("*")}
