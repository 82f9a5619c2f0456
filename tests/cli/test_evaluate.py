"""`expunge evaluate`: a grid is measured, taken up again, listed, and refused in a sentence."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import WAIT_S, Run

GRID = """
retrain_seeds = [0, 1]
[recipes.default.lightgcn]
backbone = { layers = 2 }
training = { embedding_size = 8, batch_size = 1024, learning_rate = 5e-2, epochs = EPOCHS }
[[cells]]
datasets = ["small"]
backbones = ["lightgcn"]
methods = ["none", "graph_swap"]
protocols = ["genuine_2pct", "user"]
seeds = [0]
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "little.toml"
    path.write_text(GRID.replace("EPOCHS", "2"))
    return path


def arguments(grid: Path, data: Path) -> list[str]:
    folder = grid.parent
    return [
        *("evaluate", str(grid), "--data", str(data), "--threads", "1"),
        *("--results", str(folder / "results"), "--models", str(folder / "models")),
    ]


def test_a_grid_is_measured_once(run: Run, grid: Path, small_folder: Path) -> None:
    command = arguments(grid, small_folder.parent)

    some = run(*command, "--only", "method=none", "--json", "-")
    rest = run(*command)
    listed = run(*command, "--dry-run")

    assert (some.status, json.loads(some.out)["measured"]) == (0, 2), some.err
    assert "2 cells measured, 2 there before" in rest.out
    lines = rest.out.splitlines()
    assert lines[0] == "small, lightgcn, genuine_2pct (1 seed)"
    assert lines[1].split() == ["method", "NDCG@20", "Recall@20", "AUC", "MI-BF", "to", "retrain", "a", "request"]
    assert [line.split()[0] for line in lines[2:4]] == ["graph_swap", "none"]
    assert "small, lightgcn, user (1 seed)" in lines
    assert max(map(len, lines[:-1])) <= 80
    cell = json.loads(next((grid.parent / "results").rglob("*genuine_2pct/none-0.json")).read_text())
    assert lines[3].split()[1] == f"{cell['quality']['overall']['ndcg_at_20']:.4f}"
    assert "4 cells" in rest.err
    assert [line.split()[0] for line in listed.out.splitlines()] == ["measured"] * 4
    assert len(list((grid.parent / "results").rglob("*.json"))) == 4


def test_a_list_measures_nothing(run: Run, grid: Path, small_folder: Path) -> None:
    listed = run(*arguments(grid, small_folder.parent), "--dry-run", "--only", "protocol=user", "--only", "seed=0")

    assert listed.status == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == ["open", "open"]
    assert not (grid.parent / "results").exists()


def test_a_cell_that_fails_is_told_and_the_status_says_so(run: Run, grid: Path, small_folder: Path) -> None:
    grid.write_text(grid.read_text().replace('["none", "graph_swap"]', '["none", "odd"]'))
    (grid.parent / "oddities.py").write_text(
        "from service.evaluation.methods import Method\nMETHODS = {'odd': Method(lambda context: 1 / 0)}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(grid.parent)
        ran = run(*arguments(grid, small_folder.parent), "--methods-from", "oddities", "--only", "protocol=user")

    assert ran.status == 1
    assert "1 cell measured" in ran.out
    assert "small lightgcn user odd seed 0: ZeroDivisionError" in ran.err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--only", "methods=none"], "--only methods=none is not understood"),
        (["--only", "method"], "--only method is not understood"),
        (["--methods-from", "no.such.module"], "offers no METHODS"),
    ],
)
def test_what_cannot_be_done_is_said(run: Run, grid: Path, small_folder: Path, more: list[str], said: str) -> None:
    ran = run(*arguments(grid, small_folder.parent), *more)

    assert ran.status == 2
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_a_grid_that_is_wrong_is_refused_in_a_sentence(run: Run, grid: Path, small_folder: Path) -> None:
    grid.write_text(grid.read_text().replace("graph_swap", "graph_swop"))

    ran = run(*arguments(grid, small_folder.parent))

    assert ran.status == 2
    assert ran.err.startswith("No method is called 'graph_swop'")


def test_an_interruption_leaves_whole_cells_and_says_how_to_go_on(grid: Path, small_folder: Path) -> None:
    grid.write_text(GRID.replace("EPOCHS", "100000, patience = 100000"))
    command = [sys.executable, "-m", "service.cli", *arguments(grid, small_folder.parent)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            deadline = time.monotonic() + WAIT_S
            while not list((grid.parent / "results").rglob("*")) and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            said = process.stderr.read()
            status = process.wait(WAIT_S)
        finally:
            process.kill()

    assert status == 130
    assert "Stopped; 0 of 4 cells are measured. Run the same command again to go on." in said
    assert not [path for path in (grid.parent / "results").rglob("*") if path.is_file()]
