"""Reading cells and grouping them over seeds."""

from pathlib import Path

import pytest

from benchmarks.evaluation import measures as m
from benchmarks.evaluation.load import Results, Stat, at, load, ratio
from benchmarks.evaluation.measures import SUMMARY, summary
from tests.unit.benchmarks.synthetic import cell, write


def test_a_figure_over_seeds_is_mean_and_sample_deviation() -> None:
    """Two seeds have a deviation, one has none, no seed has nothing; null counts as not there."""
    assert Stat.of([1.0, 3.0, None]) == Stat(2.0, 2**0.5, 2)
    assert Stat.of([1.0]) == Stat(1.0, None, 1)
    assert Stat.of([None, float("nan")]) == Stat(None, None, 0)


def test_a_path_that_leads_nowhere_is_none() -> None:
    """Missing keys, null and words are no figures, and nothing is divided by zero."""
    found = {"a": {"b": 2.0, "c": None, "d": "word", "zero": 0.0}, "e": None, "flag": True}

    assert at("a.b")(found) == 2.0
    assert [at(path)(found) for path in ("a.c", "a.d", "a.x", "e.b", "x.y", "flag")] == [None] * 6
    assert ratio("a.b", "a.zero")(found) is None
    assert ratio("a.b", "a.b")(found) == 1.0


def test_cells_of_one_method_are_grouped_over_seeds(tmp_path: Path) -> None:
    """A block holds every method of a data set, backbone, protocol and device; seeds lie together."""
    write(tmp_path, *(cell("expunge", seed) for seed in (2, 0, 1)), cell("retrain", 0))

    block = load(tmp_path).block("ml-1m", "lightgcn", "genuine_1pct")

    assert block is not None
    assert list(block.methods) == ["retrain", "expunge"]
    assert [each["seed"] for each in block.methods["expunge"]] == [0, 1, 2]
    assert block.stat("expunge", m.RECALL).mean == pytest.approx(0.231)
    assert block.stat("gif", m.RECALL) == Stat(None, None, 0)


def test_devices_are_never_averaged(tmp_path: Path) -> None:
    """A method measured on two devices makes two blocks and two rows of the summary."""
    cells = (cell("expunge", 0), cell("expunge", 1, device="A GPU"), cell("retrain", 0))

    results = Results(cells)

    assert [block.device for block in results.blocks] == ["A GPU", "cpu"]
    for block in results.blocks:
        assert {each["device"] for cells in block.methods.values() for each in cells} == {block.device}
    assert [row["device"] for row in summary(results) if row["method"] == "expunge"] == ["A GPU", "cpu"]


def test_references_stand_beside_every_backbone() -> None:
    """They have no backbone of their own, are run once and belong to each table of their data set."""
    results = Results((cell("expunge"), cell("expunge", backbone="sgl"), cell("ease_exact")))

    assert [block.backbone for block in results.blocks] == ["lightgcn", "sgl"]
    assert all("ease_exact" in block.methods for block in results.blocks)


def test_distance_to_retrain_is_in_deviations_of_its_seeds() -> None:
    """Unknown with one retraining; no method is compared with another block's."""
    three = Results(tuple(cell(method, seed) for method in ("retrain", "expunge") for seed in (0, 1, 2))).blocks[0]
    one = Results((cell("retrain"), cell("expunge"))).blocks[0]

    assert three.minus_retrain("expunge", m.AUC) == pytest.approx(0.002)
    assert three.in_retrain_sds("expunge", m.AUC) == pytest.approx(2.0)
    assert one.in_retrain_sds("expunge", m.AUC) is None
    assert Results((cell("expunge"),)).blocks[0].over_retrain("expunge", m.RECALL) is None


def test_the_summary_has_every_measure_of_the_contract() -> None:
    """One row a group; measures are mean and deviation, null where nothing was measured."""
    (row,) = summary(Results((cell("ease_exact", 0), cell("ease_exact", 1))))

    assert list(row) == ["dataset", "backbone", "method", "protocol", "device", "n_seeds", *SUMMARY]
    assert row["n_seeds"] == 2
    assert row["js_to_retrain"] == {"mean": None, "sd": None}
    assert row["recall_at_20"]["mean"] == pytest.approx(0.2305)


def test_a_retraining_takes_as_long_as_its_training() -> None:
    """Where a retraining's request has no time of its own."""
    retrained = cell("retrain")
    retrained["seconds"]["request"] = None

    assert m.SECONDS(retrained) == 210.0
    assert m.SECONDS(cell("expunge") | {"seconds": {"train": 210.0}}) is None


def test_no_folder_is_no_cells(tmp_path: Path) -> None:
    """A checkout without results still has a page."""
    assert load(tmp_path / "nowhere").cells == ()


@pytest.mark.parametrize(("text", "says"), [("{", "is no JSON"), ('{"dataset": "ml-1m"}', "lacks backbone, method")])
def test_a_broken_cell_is_named(tmp_path: Path, text: str, says: str) -> None:
    """The message names the file and says what to do."""
    path = tmp_path / "ml-1m" / "lightgcn" / "user" / "gif-0.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)

    with pytest.raises(ValueError, match=f"gif-0.json {says}.*measure the cell again"):
        load(tmp_path)
