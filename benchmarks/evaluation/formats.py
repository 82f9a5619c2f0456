"""Figures and tables as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from benchmarks.evaluation.load import Stat

MISSING = "–"


def number(value: float | None, digits: int = 4) -> str:
    """A figure with so many digits after the point; a dash where there is none."""
    if value is None:
        return MISSING
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text  # no minus zero


def signed(value: float | None, digits: int = 4) -> str:
    """The same with its sign."""
    text = number(value, digits)
    return text if value is None or text.startswith("-") or not text.strip("0.,") else f"+{text}"


def spread(stat: Stat, digits: int = 4) -> str:
    """`mean ± sd`, or the mean alone of a single seed."""
    return number(stat.mean, digits) + (f" ± {number(stat.sd, digits)}" if stat.sd is not None else "")


def seconds(value: float | None) -> str:
    """Three significant digits, milliseconds below a second, none below a tenth of one."""
    if value is None:
        return MISSING
    if value < 1e-4:
        return "< 0.1 ms"
    return f"{significant(value * 1000)} ms" if value < 1 else f"{significant(value)} s"


def megabytes(value: float | None) -> str:
    """Bytes as MB, three significant digits, none below a tenth of one."""
    if value is None:
        return MISSING
    return "< 0.1 MB" if value < 1e5 else f"{significant(value / 1e6)} MB"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as per cent."""
    return MISSING if value is None else f"{number(100 * value, digits)} %"


def significant(value: float | None, digits: int = 3) -> str:
    """A figure with so many significant digits, never in scientific notation."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")  # before counting: .09996 has three digits as .100
    after = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(after, 0)}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table: words to the left, figures to the right; columns in which nothing stands are left out."""
    lines = [list(row) for row in rows]
    kept = [0] + [n for n in range(1, len(head)) if any(line[n] not in (MISSING, "") for line in lines)]
    figures = [any(character.isdigit() for line in lines for character in line[n][:2]) for n in kept]
    rule = ["---"] + ["---:" if aligned else "---" for aligned in figures[1:]]
    shown = [[head[n] for n in kept], rule, *([line[n] for n in kept] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in shown)
