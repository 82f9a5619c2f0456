"""The runner: cell by cell, each whole or not at all, the same on repeat, and blind until it measures."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import service.evaluation.runner as runner_module
from service.evaluation.grid import CellKey
from service.evaluation.group import CellGroup
from service.evaluation.measurement import PreparedMethod
from service.evaluation.methods import METHODS, Method, MethodContext
from service.evaluation.model_cache import ModelCache
from service.evaluation.protocols import Split, scenario
from service.evaluation.runner import CellStatus, Progress, Runner
from service.unlearning.baselines import NoForgetting
from service.unlearning.protocol import ForgetResult, Unlearner
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState
from tests.unit.evaluation.experiment import QUICK, a_grid, a_runner, tiny, without_cost


class Broken(NoForgetting):
    """Fails when asked."""

    def forget(self, state: TrainedState, request: UnlearningRequest) -> ForgetResult:
        """Never returns."""
        msg = "it broke"
        raise ArithmeticError(msg)


class Interrupted(NoForgetting):
    """Somebody presses Ctrl-C while it works."""

    def forget(self, state: TrainedState, request: UnlearningRequest) -> ForgetResult:
        """Never returns."""
        raise KeyboardInterrupt


def made(unlearner: type[Unlearner]) -> Method:
    return Method(lambda _context: unlearner())


def cells_of(folder: Path) -> dict[str, Any]:
    return {str(path.relative_to(folder)): json.loads(path.read_text()) for path in sorted(folder.rglob("*.json"))}


def test_a_run_leaves_one_file_a_cell_and_nothing_else(tmp_path: Path) -> None:
    grid = a_grid(["none", "retrain"], ["genuine_2pct"])

    outcome = a_runner(grid, tmp_path).run()

    assert (outcome.measured, outcome.failures) == (2, ())
    files = {path.relative_to(tmp_path / "results") for path in (tmp_path / "results").rglob("*") if path.is_file()}
    assert files == {key.path for key in grid.cells}


def test_a_second_run_measures_only_what_is_missing(tmp_path: Path) -> None:
    grid = a_grid(["none", "graph_swap"], ["genuine_2pct"])
    a_runner(grid, tmp_path).run()
    gone, kept = (tmp_path / "results" / key.path for key in grid.cells)
    gone.unlink()
    before = kept.stat().st_mtime_ns

    outcome = a_runner(grid, tmp_path).run()

    assert (outcome.measured, outcome.found) == (1, 1)
    assert gone.exists()
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize("protocol", ["genuine_2pct", "adversarial", "user", "single", "stream"])
def test_a_cell_measured_twice_differs_in_cost_only(tmp_path: Path, protocol: str) -> None:
    methods = ["retrain", "expunge", "unlearnrec_0"]
    if protocol == "genuine_2pct":
        methods += ["sisa", "amplified_swap", "popularity", "ease_exact"]
    grid = a_grid(methods, [protocol])
    for results, models in (("first", "models-1"), ("second", "models-2")):
        outcome = Runner(grid, tiny, tmp_path / results, tmp_path / models, QUICK).run()
        assert not outcome.failures

    first, second = cells_of(tmp_path / "first"), cells_of(tmp_path / "second")
    assert len(first) == len(methods)
    assert without_cost(first) == without_cost(second)


def test_a_cell_does_not_depend_on_those_measured_before_it(tmp_path: Path) -> None:
    alone, among = a_grid(["graph_swap"], ["user"]), a_grid(["graph_swap"], ["genuine_1pct", "single", "user"])

    a_runner(among, tmp_path, "among").run()
    a_runner(alone, tmp_path, "alone").run()

    path = alone.cells[0].path
    one, other = (json.loads((tmp_path / name / path).read_text()) for name in ("alone", "among"))
    assert without_cost(one) == without_cost(other)


def test_a_cell_that_fails_is_told_and_stops_no_other(tmp_path: Path) -> None:
    methods = {**METHODS, "broken": made(Broken)}
    grid = a_grid(["broken", "none"], ["genuine_2pct"], more=methods)

    outcome = a_runner(grid, tmp_path, methods=methods).run()

    assert outcome.measured == 1
    assert [(failed.key.method, failed.reason) for failed in outcome.failures] == [
        ("broken", "ArithmeticError: it broke")
    ]


def test_an_interruption_leaves_whole_cells_only(tmp_path: Path) -> None:
    methods = {**METHODS, "zz": made(Interrupted)}
    grid = a_grid(["none", "zz"], ["genuine_2pct"], more=methods)

    with pytest.raises(KeyboardInterrupt):
        a_runner(grid, tmp_path, methods=methods).run()

    files = [path.name for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert files == ["none-0.json"]


def test_a_cell_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    runner = a_runner(a_grid(["none"], ["genuine_2pct"]), tmp_path)
    monkeypatch.setattr(Path, "replace", lambda *_: full())
    monkeypatch.setattr(runner, "_cell", lambda _key: {"seed": 0})

    outcome = runner.run()

    assert len(outcome.failures) == 1
    assert not [path for path in (tmp_path / "results").rglob("*") if path.is_file()]


def _hold(path: str, held: Any, done: Any) -> None:
    with runner_module._locked(Path(path)) as mine:
        assert mine
        held.set()
        done.wait(30)


def test_what_another_process_measures_is_left_to_it(tmp_path: Path) -> None:
    grid = a_grid(["none"], ["genuine_2pct"])
    runner = a_runner(grid, tmp_path)
    path = tmp_path / "results" / grid.cells[0].path
    path.parent.mkdir(parents=True)
    claim = path.with_name(f"{path.name}.claim")
    spawn = multiprocessing.get_context("fork")
    held, done = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_hold, args=(str(claim), held, done))
    other.start()
    assert held.wait(30)

    assert [status for _, status in runner.statuses()] == [CellStatus.CLAIMED]
    assert runner.run().left == 1
    done.set()
    other.join(30)
    assert claim.exists()  # it did not clean up: the claim is stale
    assert [status for _, status in runner.statuses()] == [CellStatus.OPEN]
    assert runner.run().measured == 1
    assert not claim.exists()


def test_progress_says_how_far_it_is_and_what_is_left(tmp_path: Path) -> None:
    told: list[Progress] = []
    grid = a_grid(["none"], ["genuine_2pct", "genuine_1pct", "user"])
    a_runner(grid, tmp_path, report=told.append).run()

    starts = {progress.done: progress for progress in reversed(told)}
    assert starts[0].seconds_left is None
    assert starts[2].seconds_left is not None
    assert starts[2].seconds_left > 0
    assert told[-1] == Progress(3, 3, None, 0.0, "")
    assert any("epoch" in progress.note for progress in told)


def test_time_left_comes_from_the_median_of_the_method_or_of_all() -> None:
    keys = tuple(CellKey("d", "b", method, "single", seed) for method in ("fast", "new", "slow") for seed in (0, 1, 2))
    known = dict.fromkeys(keys) | {keys[0]: 1.0, keys[6]: 100.0, keys[7]: 100.0}
    estimate = runner_module._TimeEstimate(keys, known)

    assert estimate.left(0) == 2 * 1 + 3 * 100 + 1 * 100
    assert estimate.left(8) == 100


class Sealed:
    """Stands for a value that may not be looked at while `closed` says so."""

    def __init__(self, value: Any, seal: dict[str, bool]) -> None:
        self._value, self._seal = value, seal

    def __getattr__(self, name: str) -> Any:
        if self._seal["closed"]:
            msg = f"{name} was looked at before the method was prepared"
            raise AssertionError(msg)
        return getattr(self._value, name)


@pytest.mark.parametrize("name", ["amplified_swap", "expunge", "expunge_dislike", "unlearnrec_0", "sisa", "receraser"])
def test_nothing_that_chooses_sees_the_test_part_or_the_request(tmp_path: Path, name: str) -> None:
    seal = {"closed": True}
    split = Split.of(tiny())
    drawn = scenario("genuine_2pct", split, lambda: torch.empty(0))
    blind = replace(split, test=Sealed(split.test, seal))  # type: ignore[arg-type]
    asked = replace(drawn, edges=Sealed(drawn.edges, seal))  # type: ignore[arg-type]
    recipe = a_grid(["none"], ["single"]).recipe("tiny", "lightgcn")
    group = CellGroup(blind, asked, recipe, ModelCache(tmp_path), (0, 1))

    context = MethodContext(recipe.training, 0, tmp_path, lambda: group.retrained(0))
    prepared = PreparedMethod.of(QUICK[name], context, group.base(0).state)  # trains, judges and chooses

    with pytest.raises(AssertionError, match="before"):
        _ = group.probe
    seal["closed"] = False
    edges = drawn.edges
    result = prepared.unlearner.forget(
        prepared.state, UnlearningRequest.of(prepared.state, **{QUICK[name].mode: edges})
    )
    assert result.readout.shape[0] == split.train.n_nodes
    assert not any(value in (blind, asked, group) for value in vars(context).values())
