"""`expunge demo`: the whole story on a small data set, and the parts that tell it."""

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from service.cli.demo.choice import choose
from service.cli.demo.environment import DemoOptions, RunningService, demo_home, left_aside
from service.cli.demo.printing import DemoPrinter
from service.cli.demo.run import PRETRAINING, TRAINING, DemoRun
from service.cli.failures import Refusal
from tests.cli.conftest import WAIT_S, Run

QUICK_TRAINING = replace(TRAINING, embedding_size=16, batch_size=256, epochs=4)
QUICK_PRETRAINING = replace(PRETRAINING, steps=3)

KEYS = {
    "dataset": {"name", "n_users", "n_items", "n_train", "n_test"},
    "train": {"seconds", "epochs", "recall_at_20", "ndcg_at_20"},
    "pretrain": {"seconds", "steps"},
    "erasure": {
        "id",
        "requested",
        "matched",
        "seconds_accept",
        "seconds_forgotten",
        "seconds_apply",
        "version_before",
        "version_after",
        "fine_tune_epochs",
    },
    "quality": {"before", "after", "retrain"},
    "membership": {"before", "after", "retrain"},
    "retrain": {"seconds"},
}
FIGURES = {"auc_heldout", "p_erased", "p_heldout", "p_negative", "mi_bf", "mi_ng"}


@pytest.mark.timeout(300)
def test_the_story_is_told_and_measured(
    small_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every act takes place, the document has exactly its keys, and the figures agree with each other."""
    monkeypatch.setenv("EXPUNGE_TORCH_THREADS", "1")
    file = tmp_path / "demo.json"

    DemoRun(DemoOptions(data=small_folder, json_file=file), QUICK_TRAINING, QUICK_PRETRAINING).tell()

    told, document = capsys.readouterr().out, json.loads(file.read_text())
    for act in ("1. Data", "2. A recommender", "3. The service", "4. Ten", "5. User", "6. Forgotten", "7. Is it gone"):
        assert act in told
    assert all(len(line) <= 80 for line in told.splitlines())
    assert "\x1b" not in told
    assert set(document) == {*KEYS, "speedup"}
    for name, keys in KEYS.items():
        assert set(document[name]) == keys
    for model in ("before", "after", "retrain"):
        assert set(document["quality"][model]) == {"recall_at_20", "ndcg_at_20"}
        assert set(document["membership"][model]) == FIGURES
    erasure = document["erasure"]
    assert erasure["matched"] == erasure["requested"] == 5
    assert erasure["version_after"] > erasure["version_before"]
    assert 0 < erasure["seconds_accept"] < erasure["seconds_forgotten"]
    assert 0 < erasure["seconds_apply"] < erasure["seconds_forgotten"]
    assert document["membership"]["before"]["mi_bf"] == pytest.approx(1.0)
    assert document["quality"]["before"]["ndcg_at_20"] == document["train"]["ndcg_at_20"]
    assert document["speedup"] == pytest.approx(document["retrain"]["seconds"] / erasure["seconds_apply"])


def test_a_home_in_use_is_left_alone(run: Run) -> None:
    """The demonstration makes and erases data, so it takes no home that has any."""
    run("db", "upgrade")

    ran = run("demo")

    assert ran.status == 1
    assert "is in use" in ran.err


def test_a_temporary_home_is_gone_at_the_end() -> None:
    """Unless it is to be kept, nothing stays behind."""
    with demo_home(DemoOptions()) as folder:
        assert folder.is_dir()

    assert not folder.exists()


def test_settings_of_another_service_are_left_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that points to a production database does not lead the demonstration there."""
    monkeypatch.setenv("EXPUNGE_DATABASE_URL", "postgresql://production")
    monkeypatch.setenv("EXPUNGE_DATA_DIR", "/data")

    names = left_aside()

    assert names == ("EXPUNGE_DATABASE_URL",)
    assert "EXPUNGE_DATABASE_URL" not in os.environ
    assert os.environ["EXPUNGE_DATA_DIR"] == "/data"


def test_a_service_that_ends_at_once_is_told_with_its_last_words(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches learns why, without opening a log."""
    monkeypatch.setenv("EXPUNGE_REDIS_URL", "nonsense")

    with pytest.raises(Refusal, match="EXPUNGE_REDIS_URL must begin with"):
        RunningService(home).start()


def test_the_choice_is_a_group_that_belongs_together() -> None:
    """Of two groups of items in a user's history, the tight one is taken, never another user's."""
    random = np.random.default_rng(1)
    tight = np.array([1.0, 0.0]) + 0.01 * random.standard_normal((5, 2))
    loose = random.standard_normal((20, 2))
    items = np.concatenate((tight, loose)).astype(np.float32)
    edges = np.stack((np.zeros(25, np.int64), np.arange(25)))

    choice = choose(edges, items, n_users=2)

    assert choice.user == 0
    assert choice.n_interactions == 25
    assert len(choice.items) == 5
    directions = items[choice.items] / np.linalg.norm(items[choice.items], axis=1, keepdims=True)
    assert (directions @ directions.T).min() > 0.9


def test_the_choice_makes_do_with_few_interactions() -> None:
    """Tiny data sets have their story, too."""
    edges = np.array([[0, 0, 1], [0, 1, 0]])

    choice = choose(edges, np.eye(2, dtype=np.float32), n_users=2)

    assert choice.user == 0
    assert sorted(choice.items.tolist()) == [0, 1]


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [(4, 1, "↑ 3"), (1, 4, "↓ 3"), (2, 2, "="), (41, 9, "↑ from 41"), (None, 9, "↑ from beyond 100")],
)
def test_moves_are_arrows(before: int | None, now: int, text: str) -> None:
    """One glance tells what the erasure did to the list."""
    show = DemoPrinter(Console(file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8")))

    assert show.move(before, now).plain == text


def test_moves_are_plain_where_the_terminal_is() -> None:
    """An ASCII terminal gets signs that it has."""
    show = DemoPrinter(Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii")))

    assert show.move(4, 1).plain == "+3"
    assert show.move(1, 4).plain == "-3"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_story_that_is_broken_off_leaves_nothing_behind(
    small_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C while the service runs: it is stopped, and the temporary home is gone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "demo", "--data", str(small_folder)],
        env={**os.environ, "TMPDIR": str(tmp_path), "EXPUNGE_HOME": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        next(line for line in process.stdout if "From here on" in line)
        process.send_signal(number)
        process.stdout.read()

        assert process.wait(WAIT_S) == 130
    assert list(tmp_path.glob("expunge-demo-*")) == []
