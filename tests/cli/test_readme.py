"""The README does what it says: its calls are made, its story was told."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.cli.conftest import WAIT_S, Serving
from tests.conftest import require

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_calls_of_the_readme_work_as_they_stand(service: Serving) -> None:
    """Every line between the marks is run by a shell against a real service; each must succeed."""
    require(shutil.which("curl"), "curl")
    (script,) = re.findall(r"<!-- tested -->\n```sh\n(.*?)```", README, re.DOTALL)
    environment = {**os.environ, "EXPUNGE_URL": service.url, "EXPUNGE_API_KEY": service.key}

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status":"forgotten"' in done.stdout
    assert "erasure.accepted" in done.stdout


def test_the_story_of_the_readme_was_told() -> None:
    """What the README shows of a run stands in the record of that run, line by line; it is shortened, not written."""
    told = (ROOT / "docs" / "demo.txt").read_text().splitlines()
    (shown,) = re.findall(r"\$ make demo\n(.*?)```", README, re.DOTALL)

    lines = [line for line in shown.splitlines() if line.strip() not in ("", "...")]

    assert len(lines) > 20
    for line in lines:
        assert line in told
