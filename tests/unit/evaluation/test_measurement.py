"""What a cell holds: the agreed keys, plain values, and figures whose right value is known."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from service.evaluation.cost import measured
from service.evaluation.measurement import plain_values
from tests.unit.evaluation.experiment import QUICK, a_grid, a_runner

PARTS = {"quality", "membership", "distances", "fidelity", "histograms", "relearn_steps", "report", "seconds", "memory"}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("measured")
    methods = ["retrain", "none", "graph_swap", "expunge", "popularity"]
    grid = a_grid(methods, ["genuine_2pct", "single", "stream"])
    outcome = a_runner(grid, folder, methods=QUICK).run()
    assert not outcome.failures
    return {(key.method, key.protocol): json.loads((folder / "results" / key.path).read_text()) for key in grid.cells}


def test_a_cell_has_the_agreed_parts(cells: dict[tuple[str, str], dict[str, Any]]) -> None:
    for method in ("retrain", "none", "expunge", "popularity"):
        cell = cells[method, "genuine_2pct"]
        assert set(cell) >= PARTS
        assert {"request", "oneoff", "train", "steps"} == set(cell["seconds"])
        assert {"request", "oneoff", "train"} == set(cell["memory"])
        assert set(cell["quality"]) == {"overall", "touched", "one_hop", "rest"}
        assert cell["device"] == "cpu"
        assert cell["n_requests"] == 1


def test_doing_nothing_changes_nothing(cells: dict[tuple[str, str], dict[str, Any]]) -> None:
    cell = cells["none", "genuine_2pct"]

    assert cell["membership"]["mi_bf"] == 1
    assert cell["fidelity"]["mean_change"] == 0
    assert cell["relearn_steps"] == 0
    assert cell["histograms"]["before"] == cell["histograms"]["after"]
    touched = cell["distances"]["touched"]
    assert touched["js_to_retrain"] == pytest.approx(touched["js_none"])


def test_the_retrained_model_is_compared_with_the_others_only(cells: dict[tuple[str, str], dict[str, Any]]) -> None:
    retrain, none = (cells[name, "genuine_2pct"]["distances"]["touched"] for name in ("retrain", "none"))

    assert retrain["js_to_retrain"] == pytest.approx(none["js_floor"])  # of two seeds there is one pair
    assert retrain["js_floor"] is None


def test_another_recommender_is_not_compared_with_the_retrained_ones(
    cells: dict[tuple[str, str], dict[str, Any]],
) -> None:
    cell = cells["popularity", "genuine_2pct"]

    assert cell["backbone"] == "none"
    assert cell["distances"] == cell["fidelity"] == {}
    assert cell["relearn_steps"] is None


def test_histograms_count_every_pair(cells: dict[tuple[str, str], dict[str, Any]]) -> None:
    cell = cells["graph_swap", "genuine_2pct"]

    for when in ("before", "after"):
        assert sum(cell["histograms"][when]["erased"]) == cell["n_erased"]
        assert len(cell["histograms"][when]["kept"]) == len(cell["histograms"]["edges"]) - 1


def test_a_stream_ends_like_the_whole_request(cells: dict[tuple[str, str], dict[str, Any]]) -> None:
    stream, whole = cells["graph_swap", "stream"], cells["graph_swap", "genuine_2pct"]

    assert stream["n_requests"] == 200
    assert stream["membership"] == whole["membership"]
    last = stream["stream"]["cumulative"][-1]
    assert (last["batch"], last["share"]) == (200, 1.0)
    assert last["auc_heldout"] == whole["membership"]["auc_heldout"]
    assert len(stream["stream"]["stepwise"]) == 10


def test_single_requests_are_as_many_as_pairs(cells: dict[tuple[str, str], dict[str, Any]]) -> None:
    for method in ("none", "graph_swap", "retrain"):
        cell = cells[method, "single"]
        assert cell["n_requests"] == cell["n_erased"]


def test_doing_nothing_pair_by_pair_is_doing_nothing(cells: dict[tuple[str, str], dict[str, Any]]) -> None:
    cell = cells["none", "single"]

    assert cell["membership"]["mi_bf"] == pytest.approx(1)
    assert cell["distances"]["touched"]["js_to_retrain"] == pytest.approx(cell["distances"]["touched"]["js_none"])
    assert cell["fidelity"]["mean_change"] == pytest.approx(0, abs=1e-5)


def test_what_is_not_finite_becomes_null_and_tensors_numbers() -> None:
    value = {"a": float("nan"), "b": [1, torch.tensor(2.5)], "c": torch.zeros(3), "d": (Path("x"), float("inf"))}

    assert plain_values(value) == {"a": None, "b": [1, 2.5], "d": ["x", None]}


def test_a_short_call_is_repeated_and_gives_its_first_value() -> None:
    calls: list[int] = []

    def call() -> int:
        calls.append(1)
        time.sleep(0.05 if len(calls) == 1 else 0.001)
        return len(calls)

    value, cost = measured(call, CPU, repeat=True)

    assert value == 1
    assert len(calls) == 6
    assert cost.seconds < 0.05


def test_memory_is_what_a_call_needs_beyond_what_was_there() -> None:
    held = torch.ones(5_000_000)  # 20 MB

    _, cost = measured(lambda: torch.ones(50_000_000).sum() + held[0], CPU)  # 200 MB

    if cost.peak_bytes is None:
        pytest.skip("this machine does not tell")
    assert 180e6 < cost.peak_bytes < 260e6
