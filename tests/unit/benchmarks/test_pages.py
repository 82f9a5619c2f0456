"""Tables, targets and sentences of docs/results, from synthetic cells."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evaluation import findings, plots, tables
from benchmarks.evaluation.formats import number, seconds, signed, significant, table
from benchmarks.evaluation.load import Block, Results, load
from benchmarks.evaluation.main import main
from benchmarks.evaluation.names import family_of, label_of, place_of
from benchmarks.evaluation.page import pages
from benchmarks.evaluation.published import TABLE_2
from benchmarks.evaluation.stories import stories
from benchmarks.evaluation.targets import figures_table, verdicts
from tests.unit.benchmarks.synthetic import METHODS, cell, write, write_experiment


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A small experiment of which every figure is known."""
    folder = tmp_path_factory.mktemp("cells")
    write_experiment(folder)
    return load(folder)


def block(*methods: str, seeds: tuple[int, ...] = (0, 1, 2), **where: str) -> Block:
    """A block of these methods."""
    return Results(tuple(cell(method, seed, **where) for method in methods for seed in seeds)).blocks[0]


def row_of(text: str, name: str) -> dict[str, str]:
    """A row of a markdown table, by heading."""
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in text.splitlines()]
    found = next(line for line in lines if line[0] == name)
    return dict(zip(lines[0], found, strict=True))


def test_methods_stand_in_the_order_of_their_families() -> None:
    """Retraining first, then by family; a variant follows its method; nobody is left out."""
    shown = tables.quality(block("gif_cg", "expunge", "ease_exact", "receraser", "gif", "retrain", "none"))
    names = [line.split("|")[1].strip() for line in shown.splitlines()[2:]]

    assert names == ["Retrain", "untouched", "**Expunge**", "GIF", "GIF, cg", "RecEraser", "EASE, exact"]
    assert family_of("unlearnrec_0_sum0") == "influence encoder"
    assert label_of("something_new") == "something new"
    assert place_of("something_new") > place_of("ease_exact")


def test_a_row_says_how_far_a_method_is_from_retraining() -> None:
    """Ratio, difference and deviations come from the cells of the same block."""
    row = row_of(tables.quality(block("retrain", "expunge")), "**Expunge**")

    assert row["Recall@20"] == "0.2310 ± 0.0010"
    assert row["Recall / Retrain"] == "100.0 %"
    assert row["minus Retrain"] == "+0.0020"
    assert row["in sd"] == "+2.0"


def test_what_nobody_measured_has_no_column() -> None:
    """A column without a figure is left out; a missing figure beside others is a dash."""
    shown = tables.quality(block("retrain", "expunge"))
    effect = tables.effect(block("retrain", "ease_exact"))

    assert "AUC attacker" not in shown
    assert row_of(effect, "EASE, exact")["JS / floor"] == "–"


def test_published_figures_stand_beside_ours() -> None:
    """The paper's figure and ours in neighbouring columns, ours missing where it was not measured."""
    shown = tables.published_2(block("retrain", "gif", protocol="adversarial"))

    assert shown is not None
    assert row_of(shown, "GIF")["Recall, published"] == "0.2111"
    assert row_of(shown, "CEU")["ours"] == "–"
    assert tables.published_2(block("gif", dataset="ml-100k", protocol="adversarial")) is None


def test_published_figures_were_copied_right() -> None:
    """Ratios that the paper's text states come out of its copied table."""
    kept = {
        backbone: TABLE_2["ml-1m", backbone]["unlearnrec_3"].recall / TABLE_2["ml-1m", backbone]["retrain"].recall
        for backbone in ("lightgcn", "simgcl", "sgl")
    }
    forgotten = TABLE_2["gowalla", "sgl"]["retrain"]

    assert [round(kept[each], 3) for each in ("lightgcn", "simgcl", "sgl")] == [0.998, 1.0, 0.996]
    assert round(forgotten.mi_bf / forgotten.mi_ng, 3) == 1.974


def test_time_is_told_in_requests_a_retraining_is_worth(experiment: Results) -> None:
    """Each row compares with its own Retrain."""
    row = row_of(tables.published_4(experiment), "ML-1M, ours, LightGCN, cpu")

    assert row["UnlearnRec (0)"] == "120 ms (1,670×)"
    assert row["Retrain"] == "200 s"


def test_targets_are_judged_by_the_cells(experiment: Results) -> None:
    """What misses its bound is said to be missed, in the table and in the sentence."""
    found = verdicts(experiment)
    by_target = {(each.target, each.method): each for each in found}

    assert by_target["time of a retraining / of a request", "unlearnrec_0"].reached
    missed = by_target["time of a retraining / of a request", "unlearnrec_3"]
    assert missed.measured == pytest.approx(200 / 12)
    assert missed.reached is False
    assert "**missed**" in figures_table(found)
    said = findings.targets(found, experiment)
    assert "missed somewhere: time of a retraining / of a request" in said
    assert "Not measured yet: ML-1M SGL adversarial pairs" in said


def test_best_of_all_methods_looks_at_all_of_them() -> None:
    """A correlation that another method beats misses its target."""
    found = {each.target: each for each in verdicts(Results(tuple(cell(m) for m in METHODS)))}
    beaten = cell("amplified_swap")
    beaten["fidelity"]["correlation"] = 0.99
    worse = {each.target: each for each in verdicts(Results((cell("expunge"), beaten)))}
    name = "ours: correlation of the effect, minus the best other's"

    assert found[name].reached is True
    assert worse[name].reached is False


def test_a_target_without_figures_is_neither_reached_nor_missed() -> None:
    """One retraining has no deviation to measure with."""
    found = {each.target: each for each in verdicts(Results((cell("retrain"), cell("expunge"))))}

    assert found["ours: distance of AUC to Retrain's, in its sd"].reached is None


def test_a_distance_that_the_untouched_model_meets_is_called_so() -> None:
    """The page warns where a measure cannot tell forgetting from doing nothing."""
    assert "not forgetting from none" in findings.untouched(block("retrain", "expunge"))


def test_the_fastest_near_retraining_must_have_forgotten() -> None:
    """The graph swap is faster and as near by JS, and its AUC gives it away."""
    said = findings.pareto(block("retrain", "graph_swap", "expunge", "amplified_swap"))

    assert "Expunge is the fastest" in said
    assert "of 1 methods" in said


def test_sentences_survive_without_figures() -> None:
    """With a method alone, nothing is made up."""
    alone = block("gif", seeds=(0,))

    for sentence in (findings.nearest, findings.pareto, findings.beside_published):
        assert sentence(alone) == findings.NOT_MEASURED


def test_pages_of_nothing_say_so() -> None:
    """Before the first cell there is a page, and every section says that nothing was measured."""
    found = pages(Results(()), None)

    assert set(found) == {"README.md", "summary.json", "figures.json"}
    assert json.loads(found["summary.json"]) == []
    assert found["README.md"].count("Not measured yet.") >= 8


def test_every_cell_is_on_a_page(experiment: Results) -> None:
    """Each study has a page of its own, linked from the first one."""
    found = pages(experiment, None)

    assert {"ml-1m-lightgcn.md", "ml-1m-simgcl.md"} <= set(found)
    assert "](ml-1m-simgcl.md)" in found["README.md"]
    assert all(f"](plots/{plot.name}.svg)" in found["README.md"] for plot in plots.every(experiment))


def test_pages_need_no_matplotlib(experiment: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only drawing does: who tests has no plots to draw."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    assert "plots/pareto-ml-1m-cpu.png" in pages(experiment, None)["README.md"]


def test_writing_twice_changes_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """`--check` tells a current folder from one that is not; pages of cells that are gone go, too."""
    cells, docs = tmp_path / "cells", tmp_path / "docs"
    write(cells, cell("retrain"), cell("expunge"))
    arguments = ["--cells", str(cells), "--docs", str(docs), "--no-plots"]

    assert main([*arguments, "--check"]) == 1
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    (docs / "gowalla-sgl.md").write_text("old")
    assert main([*arguments, "--check"]) == 1
    assert main(arguments) == 0
    assert not (docs / "gowalla-sgl.md").exists()


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="the extra `benchmarks` is not installed")
def test_plots_are_the_same_bytes_again(tmp_path: Path) -> None:
    """A plot that did not change makes no commit."""
    results = Results(tuple(cell(method) for method in ("retrain", "expunge", "gif")))
    for name in ("once", "twice"):
        plots.write([*plots.pareto(results), *plots.memory(results)], tmp_path / name)

    once = {path.name: path.read_bytes() for path in (tmp_path / "once").iterdir()}

    assert {"pareto-ml-1m-cpu.png", "pareto-ml-1m-cpu.svg", "memory-ml-1m-cpu.png"} <= set(once)
    assert once == {path.name: path.read_bytes() for path in (tmp_path / "twice").iterdir()}


def story() -> dict[str, Any]:
    """A case as cases.py writes it."""
    film: dict[str, Any] = {"title": "A film (1999)", "rank": {"before": 3, "after": 40, "retrained": 35}}
    film |= {"change_after": -0.5, "change_retrained": -0.4}
    change = {"after": -0.1, "retrained": -0.08}
    case: dict[str, Any] = {
        "name": "One film",
        "user": 1,
        "n_interactions": 50,
        "erased": [film],
        "left": [film],
        "came": [],
    }
    case |= {"stayed": [film], "left_retrained": 2, "left_both": 1, "similar": [film], "change_similar": change}
    case |= {"change_rest": {"after": 0.0, "retrained": 0.001}}
    return {
        "dataset": "ml-1m",
        "backbone": "lightgcn",
        "method": "expunge",
        "n_seeds": 3,
        "length": 20,
        "cases": [case],
    }


def test_a_story_says_what_left_and_what_stayed() -> None:
    """Titles, ranks before and after, and what retraining does."""
    text = "\n".join(stories(story()))

    assert "changes 1; 1 of those films leave Retrain's, too" in text
    assert "Films like it move by -0.100 (Retrain -0.080), all others by 0.000 (Retrain +0.001)" in text
    assert (
        row_of(text[text.index("| left") :].split("\n\n")[0].split("\n|  ")[0], "A film (1999)")["rank, Retrain"]
        == "35"
    )
    assert "1 films stayed: A film (1999)." in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(-0.00001), "0.0000"),
        (number(None), "–"),
        (signed(0.01, 2), "+0.01"),
        (signed(-0.0001, 2), "0.00"),
        (seconds(0.0123), "12.3 ms"),
        (seconds(1208.354), "1,210 s"),
        (significant(0.09996, 3), "0.100"),
        (table(("a", "b", "c"), [["x", "–", "1"]]), "| a | c |\n| --- | ---: |\n| x | 1 |"),
    ],
)
def test_figures_are_short(text: str, expected: str) -> None:
    """Few digits, no minus zero, no empty column."""
    assert text == expected
