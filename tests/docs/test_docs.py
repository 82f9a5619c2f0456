"""The docs against the code: the generated reference is current, links lead somewhere, commands in them exist."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from service.cli.program import app as command_line
from service.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
TEXT = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
MAKEFILE = (ROOT / "Makefile").read_text()


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as they are made where the project is shown."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> dict[str, set[str]]:
    """Every command of the command line, with its options."""
    found: dict[str, set[str]] = {}

    def walk(command: Any, path: str) -> None:
        children = getattr(command, "commands", None)
        if not children:
            found[path] = {option for parameter in command.params for option in parameter.opts}
        for name, child in (children or {}).items():
            walk(child, f"{path} {name}".strip())

    walk(typer.main.get_command(command_line), "")
    return found


def test_the_reference_is_what_the_code_says() -> None:
    """docs/reference.md holds every setting, command, route, state, problem, metric: generated, and up to date."""
    done = subprocess.run(
        [sys.executable, "docs/generate_reference.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", TEXT)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    """Every relative link of a page names a file that is there, and a heading in it where it names one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXT[page]):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page

        assert file.exists(), f"{page} links to {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.read_text()), f"{page} links to {target}"


@pytest.mark.parametrize("page", TEXT)
def test_variables_in_the_docs_are_settings(page: str) -> None:
    """A variable that the docs name, the code reads: as a setting, or as the reference lists it beside them."""
    known = {f"EXPUNGE_{name.upper()}" for name in Settings.model_fields}
    known |= set(re.findall(r"^\| `(EXPUNGE_\w+)`", TEXT["docs/reference.md"], re.MULTILINE))

    for name in re.findall(r"EXPUNGE_[A-Z][A-Z_]*[A-Z]", TEXT[page]):
        # EXPUNGE_GATE_* stands for all that begin so.
        assert name in known or any(each.startswith(f"{name}_") for each in known), f"{page} names {name}"


@pytest.mark.parametrize("page", TEXT)
def test_commands_in_the_docs_exist(page: str) -> None:
    """`expunge ...` in the docs is a command, with options that it has."""
    known = commands()
    for line in re.findall(r'(?:^|`|&& |api )expunge ([a-z][^`\n"]*)', TEXT[page], re.MULTILINE):
        words = re.split(r"\s+(?:#|&&|\|)|\)", line)[0].split()
        name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in known), None)
        if name is None and words[0] in {each.split()[0] for each in known} and len(words) == 1:
            continue  # A group of commands, spoken of as a whole.

        assert name is not None, f"{page}: expunge {line}"
        options = {word.split("=")[0] for word in words if word.startswith("--")}
        assert options <= known[name] | {"--home", "--help"}, f"{page}: expunge {line}"


@pytest.mark.parametrize("page", TEXT)
def test_make_targets_in_the_docs_exist(page: str) -> None:
    """`make ...` in the docs is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))

    for name in re.findall(r"(?:^|`)make ([a-z-]+)", TEXT[page], re.MULTILINE):
        assert name in targets, f"{page} names make {name}"


def test_make_help_lists_every_target() -> None:
    """Each target that is not a file has a line of help, and is phony."""
    phony = set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split())
    helped = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))

    assert phony - {"help"} == helped
