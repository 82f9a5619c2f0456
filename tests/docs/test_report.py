"""The figures in the docs come from the measured results, and from nowhere else."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import LABELS, figures_table, filled, gpu_table, readable

ROOT = Path(__file__).parents[2]

RESULTS: dict[str, Any] = {
    "machine": {"cpu": "A processor", "cores": 2},
    "commit": "0123456789abcdef",
    "figures": {
        "retrain_over_apply": {
            "value": 1234.5,
            "unit": "ratio",
            "n": 9,
            "detail": {"target": {"at_least": 1000.0}, "measured": {"at": "2026-11-21T10:00:00+00:00"}},
        },
        "rss_api_bytes": {"value": 300e6, "unit": "bytes", "n": 1, "detail": {"target": {"at_most": 250e6}}},
    },
}


def test_the_pages_hold_what_was_measured() -> None:
    """README and docs/figures.md are what the command writes from the committed results."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.report", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_a_figure_that_misses_its_bound_says_so() -> None:
    """Nobody has to compare two columns to find what was missed."""
    table = figures_table(RESULTS).splitlines()

    assert "| 1,234 | ≥ 1,000 | 9 |" in table[2]
    assert "300 MB **missed**" in table[3]
    assert "A processor, 2 cores, 2026-11-21, commit `0123456789`" in table[-1]


def test_what_is_not_measured_is_not_made_up() -> None:
    """Without results the page says that there are none."""
    assert "Not measured yet" in figures_table(None)
    assert "Not measured yet" in gpu_table(None)


def test_only_the_marked_place_changes() -> None:
    """Text around the markers stays as it is; filling twice is filling once."""
    page = "before\n<!-- figures:begin -->\nold\n<!-- figures:end -->\nafter\n"

    once = filled(page, {"figures": "new", "gpu": "not on this page"})

    assert once == "before\n<!-- figures:begin -->\nnew\n<!-- figures:end -->\nafter\n"
    assert filled(once, {"figures": "new"}) == once


def test_a_marker_that_is_not_closed_is_refused() -> None:
    """Otherwise the rest of the page would be lost."""
    with pytest.raises(ValueError, match="not closed"):
        filled("<!-- figures:begin -->\ntext", {"figures": "new"})


def test_every_figure_has_words() -> None:
    """Each name that the benchmark writes has a label for people."""
    from benchmarks.figures import FIGURES

    assert {figure.name for figure in FIGURES} == set(LABELS)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.99512, "ratio", "0.9951"),
        (1234.5, "ratio", "1,234"),
        (0.0, "difference", "0"),
        (1.5, "s", "1.500 s"),
        (25e7, "bytes", "250 MB"),
    ],
)
def test_figures_are_short(value: float, unit: str, text: str) -> None:
    """About four digits, with the unit."""
    assert readable(value, unit) == text
