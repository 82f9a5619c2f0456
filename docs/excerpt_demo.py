"""Puts the heart of docs/demo.txt into README.md, so that both are of the same run.

make demo > docs/demo.txt && .venv/bin/python docs/excerpt_demo.py
"""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent
BEGIN, END = "<!-- demo:begin -->\n", "<!-- demo:end -->"


def excerpt(told: str) -> str:
    """The acts of the erasure, the way to retraining, erased, and the summary, with dots for what is left out."""
    acts = re.split(r"\n(?=\d+\. )", told)
    named = {act.partition(".")[0].strip(): act.strip("\n") for act in acts}
    way = re.search(r"^ The way to retraining.*?(?=^\d+%)", named["8"], re.MULTILINE | re.DOTALL)
    parts = [f"{named['5']}\n\n{named['6'].split('The gate is')[0]}", named["7"]]
    parts += [way.group(0)] if way is not None else []
    parts.append(_without_progress(named["11"]))
    summary = named["12"][named["12"].index(" Summary") :]
    return "\n...\n".join(part.strip("\n") for part in (*parts, summary))


def _without_progress(act: str) -> str:
    """An act with the last line of a progress alone."""
    lines = act.splitlines()
    pairs = zip(lines, [*lines[1:], ""], strict=True)
    return "\n".join(line for line, after in pairs if not line[:11] == after[:11] == "Compacting:")


def main() -> None:
    """Replace what stands between the marks."""
    readme = DOCS.parent / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    told = excerpt((DOCS / "demo.txt").read_text())
    readme.write_text(f"{before}{BEGIN}```console\n$ make demo\n...\n{told}\n```\n{END}{after}")


if __name__ == "__main__":
    main()
