"""`expunge train` and `pretrain`: from data to a base that can forget, what they say, and how they are gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import WAIT_S, Run

QUICK = ("--dimension", "8", "--batch-size", "512", "--epochs", "3")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_TORCH_THREADS", "1")


def test_train_makes_a_base_that_can_forget(run: Run, small_folder: Path) -> None:
    """With the test part's figures, and the same figures in text and JSON."""
    assert run("import", "--data", small_folder).status == 0

    made = run("train", *QUICK, "--json", "-")

    assert made.status == 0, made.err
    document = json.loads(made.out)
    assert document["encoder"]["base"] == document["version"] == 1
    assert 0 < document["test"]["ndcg_at_20"] <= 1
    assert 1 <= document["best_epoch"] <= document["epochs"] == 3
    told = run("status")
    assert "forgetting base 1, mode forget" in told.out
    facts = json.loads(run("status", "--json", "-").out)["forgetting"]
    assert (facts["base"], facts["modes"], facts["waits_for"]["code"]) == (1, ["forget"], "no_worker")


def test_what_was_left_out_is_said_and_gone_on_with(run: Run, small_folder: Path) -> None:
    """As after a crash between the two: the next call finds the base, and makes its encoder."""
    assert run("import", "--data", small_folder).status == 0
    bare = run("train", *QUICK, "--no-pretrain")
    assert bare.status == 0
    assert "It cannot forget yet" in bare.out
    assert "Test part of the import: Recall@20 0." in bare.out
    waits = json.loads(run("status", "--json", "-").out)["forgetting"]["waits_for"]
    assert (waits["code"], "`expunge pretrain`" in waits["next_step"]) == ("no_encoder", True)
    assert "Run `expunge pretrain`" in run("status").out

    went_on = run("train", *QUICK, "--json", "-")

    document = json.loads(went_on.out)
    assert "Base 1 is trained already" in went_on.err
    assert (document["version"], document["live"], document["encoder"]["base"]) == (1, True, 1)
    said = next(line for line in bare.out.splitlines() if line.startswith("Validation"))
    assert f"after epoch {document['best_epoch']} of {document['epochs']}" in said
    assert json.loads(run("train", *QUICK, "--no-pretrain", "--json", "-").out)["version"] == 2


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        (["--learning-rate", "1e30"], 1, "The training diverged in epoch 1 of 3: .* learning rate \\(1e\\+30\\)"),
        (["--backbone", "lightgnc"], 2, "No backbone is called 'lightgnc'; .* Did you mean 'lightgcn'\\? `"),
        (["--option", "layer=2"], 2, "it has no 'layer', only layers, .* Did you mean 'layers'"),
        (["--option", "layers=two"], 2, "layers must be a whole number, not 'two'"),
        (["--option", "weight_decay=NaN"], 2, "weight_decay must be a finite number"),
        (["--option", "name=sgl"], 2, "--option name=... is given by an option of its own"),
        (["--layers", "2", "--option", "layers=3"], 2, "--option layers=... is given by an option of its own"),
        (["--option", "layers=2", "--option", "layers=3"], 2, "given twice"),
        (["--final-learning-rate", "-1"], 2, "learning rates"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    run: Run, small_folder: Path, more: list[str], status: int, said: str
) -> None:
    import re

    assert run("import", "--data", small_folder).status == 0

    refused = run("train", *QUICK, *more)

    assert (refused.status, refused.out) == (status, "")
    assert re.search(said, refused.err), refused.err
    assert "Traceback" not in refused.err
    assert run("status").out.count("live       none") == 1


def _epochs(checkpoint: Path) -> int:
    with np.load(checkpoint) as stored:
        return len(json.loads(stored["facts"].tobytes().decode())["history"])


def _interrupted(command: list[str], folder: Path, more_than: int) -> tuple[int, str, int]:
    """Run until the checkpoint holds more than so many epochs, press Ctrl-C; status, what was said, epochs."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            deadline = time.monotonic() + WAIT_S
            while not any(_epochs(path) > more_than for path in folder.glob("*.npz")):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=WAIT_S)
        finally:
            process.kill()
    (checkpoint,) = folder.glob("*.npz")
    return process.returncode, said, _epochs(checkpoint)


def test_ctrl_c_keeps_the_epochs_that_ended(run: Run, small_folder: Path, home: Path) -> None:
    """And the same command goes on from there."""
    assert run("import", "--data", small_folder).status == 0
    endless = ["--dimension", "8", "--epochs", "1000000", "--patience", "1000000"]
    command = [sys.executable, "-m", "service.cli", "--home", str(home), "train", *endless]

    status, said, epochs = _interrupted(command, home / "checkpoints", 0)
    assert status == 130
    assert "Run the same command again to go on from there." in said

    status, _, later = _interrupted(command, home / "checkpoints", epochs)
    assert status == 130
    assert later > epochs
    assert "live       none" in run("status").out
