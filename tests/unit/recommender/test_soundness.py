"""What may serve: the scores of a model, its ranking beside popularity's, and trainings that go the wrong way."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from service.recommender.backbones import LightGCN
from service.recommender.sampling import split_validation
from service.recommender.soundness import Diverged, Unsound, flaw, judge, largest_score
from service.recommender.training import EpochReport, Training, TrainingConfig
from service.unlearning.state import TrainedState
from tests.unit.learning import TASTES, TASTES_BACKBONE, blocks, tastes, trained_blocks

CAUSE = "The cause is a test."


def _alike_items(readout: Tensor, n_users: int) -> Tensor:
    return torch.cat((readout[:n_users], readout[n_users:].mean(dim=0).expand_as(readout[n_users:])))


def _alike_users(readout: Tensor, n_users: int) -> Tensor:
    return torch.cat((readout[:n_users].mean(dim=0).expand_as(readout[:n_users]), readout[n_users:]))


def _one_nan(readout: Tensor, n_users: int) -> Tensor:
    return readout.index_fill(0, torch.tensor([3]), float("nan"))


@cache
def _state() -> TrainedState:
    return trained_blocks(epochs=3)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda r, _: r * 1e20, "beyond what float32 can hold"),
        (_one_nan, "not finite"),
        (lambda r, _: r * float("inf"), "not finite"),
        (lambda r, _: r * 0, "the same for every item"),
        (lambda r, _: r * 1e-30, "the same for every item"),  # the products are below float32
        (_alike_items, "the same for every item"),
        (_alike_users, "the same for every user"),
    ],
)
def test_a_model_that_must_not_serve_is_found_out(spoil: Callable[[Tensor, int], Tensor], why: str) -> None:
    state = _state()

    assert flaw(state.readout, state.graph) is None
    assert why in str(flaw(spoil(state.readout, state.graph.n_users), state.graph))


def test_the_bound_holds_for_a_folded_in_user_too() -> None:
    """Whose vector is the sum of many items' over the root of their number."""
    readout = torch.full((2 + 100, 4), 1e17)
    readout[:2] = 1e-3

    folded = readout[2:].double().sum(dim=0) / 100**0.5
    assert largest_score(readout, 2) >= float(folded @ readout[2].double()) * (1 - 1e-9)


def test_a_model_that_ranks_far_worse_than_popularity_is_refused() -> None:
    """It is finite and tells items apart; only the ranking shows it."""
    graph, validation = split_validation(tastes(), 0.15, seed=0)
    result = Training(TASTES_BACKBONE, graph, validation, replace(TASTES, epochs=3)).run()
    readout = TASTES_BACKBONE.propagate(result.e0, graph)
    found = judge(readout, graph, validation, CAUSE)
    assert found.model.ndcg > found.popularity

    reversed_ = torch.cat((readout[: graph.n_users], -readout[graph.n_users :]))
    with pytest.raises(Unsound, match=rf"far worse than popularity .*{CAUSE}"):
        judge(reversed_, graph, validation, CAUSE)


@pytest.mark.parametrize("rate", [1e30, 1e4, 5.0])
def test_a_training_that_diverges_stops_and_names_the_learning_rate(rate: float, tmp_path: Path) -> None:
    """Long before its last epoch, and without leaving a checkpoint from which it would diverge again."""
    graph, validation = split_validation(blocks(), 0.1, seed=0)
    config = TrainingConfig(16, 512, learning_rate=rate, final_learning_rate=rate, epochs=50, patience=50)
    seen: list[EpochReport] = []
    checkpoint = tmp_path / "run.npz"

    with pytest.raises(Diverged, match=r"diverged in epoch \d+ of 50: .* learning rate \(") as refused:
        Training(LightGCN(layers=2), graph, validation, config).run(seen.append, checkpoint)

    assert f"({rate:g})" in str(refused.value)
    assert len(seen) < 5
    assert not checkpoint.exists()


def test_settings_that_are_no_numbers_are_refused() -> None:
    for value in (float("nan"), float("inf"), 0.0):
        with pytest.raises(ValueError, match="learning rates"):
            replace(TrainingConfig(), learning_rate=value)
