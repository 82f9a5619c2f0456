"""`expunge demo`: the whole story on a small data set, and the parts that tell it."""

import io
import json
import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from service.cli.demo.choice import Choice, choose, draw
from service.cli.demo.environment import DemoOptions, RunningService, demo_home, left_aside
from service.cli.demo.measure import most_changed
from service.cli.demo.printing import WIDEST, DemoPrinter
from service.cli.demo.report import (
    Comparison,
    DatasetFacts,
    DemoReport,
    ErasedFacts,
    ErasureFacts,
    ListFacts,
    ManyFacts,
    MembershipFacts,
    PretrainFacts,
    Quality,
    RetrainFacts,
    TrainFacts,
)
from service.cli.demo.run import PRETRAINING, DemoRun
from service.cli.failures import Refusal
from service.cli.terminal import make_console
from service.evaluation.retraining_share import Estimate
from service.recommender.defaults import default_training
from tests.cli.conftest import WAIT_S, Run

QUICK_TRAINING = default_training(1_000, embedding_size=16, batch_size=256, epochs=4)
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

    DemoRun(DemoOptions(data=small_folder, json_file=file), QUICK_TRAINING, QUICK_PRETRAINING).run()

    told, document = capsys.readouterr().out, json.loads(file.read_text())
    assert re.findall(r"^(\d+)\. ", told, re.MULTILINE) == [str(act) for act in range(1, 13)]
    for word in ("a shadow: one more model", "The gate is what", "MI-BF is p erased before"):
        assert word in " ".join(told.split())
    assert_holds(told, 80)
    assert set(document) == {*KEYS, "speedup", "many", "erased"}
    erased = document["erased"]
    assert set(erased) == {"seconds", "base_before", "base_after", "receipt_verified", "residue_present"}
    assert erased["base_after"] > document["many"]["erasure"]["version_after"] > erased["base_before"] == 1
    assert (erased["receipt_verified"], erased["residue_present"]) == (True, 0)
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
    many = document["many"]
    assert set(many["erasure"]) == KEYS["erasure"]
    assert many["erasure"]["matched"] == many["erasure"]["requested"] > 5
    assert many["erasure"]["version_after"] > erasure["version_after"]
    for figures in ("membership", "auc", "share_by_score", "share_by_auc"):
        assert set(many[figures]) == {"before", "after", "retrain", "retrain_again"}
    for model, auc in many["auc"].items():
        assert auc["value"] == pytest.approx(many["membership"][model]["auc_heldout"])
        assert 0 < auc["error"] < 0.2
    assert many["share_by_score"]["before"]["value"] in (0, None)
    assert document["speedup"] == pytest.approx(document["retrain"]["seconds"] / erasure["seconds_apply"])


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_all_that_is_printed_holds(width: int, encoding: str) -> None:
    """Long titles, figures of all sizes: nothing is wrapped in a table, no line is too long or ends with a blank."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = make_console(out, widest=WIDEST)
    console.width = min(width, WIDEST)
    printer = DemoPrinter(console)
    items = [
        {"item_id": str(rank), "rank": rank, "title": f"Æon Flux and a title that does not end before the line {rank}"}
        for rank in range(1, 12)
    ]
    ranks: dict[str, int | None] = {"before": 10, "after": None, "retrain": 3, "retrain_again": None}
    entry = {"seq": 123, "at": "2026-11-25T16:00:00.123456Z", "event": "erasure.forgotten", "leaf_hash": "a" * 64}
    report = _report()

    printer.section("1. A section")
    printer.say("word " * 60)
    printer.titles(items, "Heading")
    printer.moves(items, items[::-1], 10)
    printer.change([(item, ranks) for item in items])
    printer.figures(dict.fromkeys(ranks, Quality(0.1, 0.1)), report.many, 9_428)
    printer.shares(report.many.share_by_score, "Shares")
    printer.audit([entry, {**entry, "version": 12345}])
    store = {"store": "write_ahead_log", "verdict": "NOT_CHECKED", "bytes": 1_234_567_890}
    printer.residue([store, {**store, "store": "columns", "bytes": None}])
    printer.summary(report)

    out.seek(0)
    told = out.read()
    assert_holds(told, min(width, WIDEST))
    assert told.count("forgotten by the model") == 1
    tables = [line for line in told.splitlines() if "Flux" in line and "out:" not in line]
    assert len(tables) == 11 + 10 + 11


def test_shares_are_bars() -> None:
    """Nothing, half, all; too far makes the others shorter, and its figure says how far."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    shares = {"before": Estimate(0.0, 0.0), "after": Estimate(1.5, 0.02), "retrain": Estimate(1.0, 0.0)}

    DemoPrinter(make_console(out)).shares(shares, "Shares")

    out.seek(0)
    lines = out.read().splitlines()[-3:]
    assert lines == [
        f" before     {'.' * 30}    0%",
        f" after      {'#' * 30}  150% ? 2%",
        f" retrained  {'#' * 20}{'.' * 10}  100%",
    ]


def test_shares_that_cannot_be_told_are_not_drawn() -> None:
    """A bar of nothing would say that nothing was forgotten."""
    out = io.StringIO()

    DemoPrinter(make_console(out)).shares(dict.fromkeys(("before", "after"), Estimate(math.nan, math.nan)), "Shares")

    assert out.getvalue() == ""


def assert_holds(told: str, width: int) -> None:
    """Lines of at most so many columns, without blanks at their ends, without control characters."""
    lines = told.split("\n")
    assert lines[0].strip()
    assert max(len(line) for line in lines) <= width
    assert [line for line in lines if line != line.rstrip()] == []
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", told)


def _report() -> DemoReport:
    facts = MembershipFacts(0.5, 0.9, 0.9, 0.6, 1.0, 0.6)
    erasure = ErasureFacts("id", 12_345, 12_345, 0.02, 0.7, 0.02, 1, 2, 0)
    models = ("before", "after", "retrain", "retrain_again")
    share = dict.fromkeys(models, Estimate(0.93, 0.02))
    many = ManyFacts(
        erasure,
        453,
        dict.fromkeys(models, facts),
        dict.fromkeys(models, Estimate(0.5, 0.01)),
        share,
        share,
        ListFacts(9.4, 6.7, 6.7, 6.7),
    )
    comparison = Comparison(
        dict.fromkeys(models, Quality(0.1, 0.1)), dict.fromkeys(models, facts), RetrainFacts(20_000.0)
    )
    return DemoReport(
        DatasetFacts("name", 1, 1, 1, 1),
        TrainFacts(4_000.0, 40, 0.1, 0.1),
        PretrainFacts(4_000.0, 400),
        erasure,
        comparison,
        many,
        ErasedFacts(40.0, 1, 4, True, 0),
    )


def test_a_random_share_is_drawn_beside_what_was_chosen() -> None:
    """One in a hundred, of few two, never a pair that was chosen, the same every time."""
    users, items = np.divmod(np.arange(100_000), 500)
    edges = np.stack((users, items))
    chosen = Choice(3, np.arange(5), 500)

    drawn = draw(edges, chosen)

    assert drawn.shape == (2, 1_000)
    assert len(np.unique(drawn[0])) > 100
    assert not ((drawn[0] == 3) & (drawn[1] < 5)).any()
    assert (draw(edges, chosen) == drawn).all()
    assert draw(edges[:, :1_000], chosen).shape == (2, 20)


def test_the_list_that_changed_most_is_found() -> None:
    """Whose first items lost most; of two, of whom more was erased."""

    class Evaluator:
        """Lists as they are given."""

        def first_items(self, readout: torch.Tensor, users: torch.Tensor, n: int) -> torch.Tensor:
            return readout[users][:, :n]

    lists = torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 2]])
    after = torch.tensor([[0, 2, 1], [0, 3, 4], [3, 4, 0]])
    pairs = np.array([[0, 0, 0, 1, 2, 2], [9, 8, 7, 9, 9, 8]])

    user, items = most_changed(Evaluator(), {"before": lists, "after": after}, pairs, 3)  # type: ignore[arg-type]

    assert user == 2
    assert items == [
        (0, {"before": 1, "after": 3}),
        (1, {"before": 2, "after": None}),
        (2, {"before": 3, "after": None}),
        (3, {"before": None, "after": 1}),
        (4, {"before": None, "after": 2}),
    ]


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
