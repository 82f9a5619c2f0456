from dataclasses import replace

import pytest
import torch
from torch import Tensor

from service.evaluation.relearn import RelearnConfig, relearn
from service.recommender.losses import pair_scores
from service.unlearning.state import TrainedState
from tests.unit.learning import trained_blocks

CONFIG = RelearnConfig(batch_size=512, learning_rate=1e-2, max_steps=60)


@pytest.fixture(scope="module")
def state() -> TrainedState:
    """One trained base for this file."""
    return trained_blocks()


@pytest.fixture(scope="module")
def erased(state: TrainedState) -> Tensor:
    """A random 5 %."""
    return state.graph.edges[:, torch.randperm(state.graph.n_edges, generator=torch.Generator().manual_seed(0))[:60]]


@pytest.fixture(scope="module")
def p_before(state: TrainedState, erased: Tensor) -> float:
    """What the base thinks of them."""
    users, items = erased.long()
    return float(pair_scores(state.readout, state.graph.n_users, users, items).sigmoid().mean())


def pushed(state: TrainedState, erased: Tensor, size: float) -> Tensor:
    """Layer 0 of a model that forgot by a step of this size down the erased pairs' scores."""
    e0 = state.e0.detach().clone().requires_grad_()
    readout = state.backbone.propagate(e0, state.graph)
    users, items = erased.long()
    (slope,) = torch.autograd.grad(pair_scores(readout, state.graph.n_users, users, items).mean(), e0)
    return state.e0 - size * slope / slope.norm()


def test_a_model_that_forgot_nothing_knows_at_once(state: TrainedState, erased: Tensor, p_before: float) -> None:
    """Layer 0 was never changed: the edges alone bring it all back."""
    found = relearn(state.backbone, state.e0, state.graph, erased, p_before, config=CONFIG)

    assert found.steps == 0
    assert found.reached
    assert found.p == pytest.approx((p_before,), rel=1e-5)


def test_the_further_away_the_longer_it_takes(state: TrainedState, erased: Tensor, p_before: float) -> None:
    """A model that pushes the pairs down needs more steps than one that is halfway there, and its p rises."""
    near, far = (pushed(state, erased, size) for size in (0.5, 1.5))

    small = relearn(state.backbone, near, state.graph, erased, p_before, config=CONFIG)
    large = relearn(state.backbone, far, state.graph, erased, p_before, config=CONFIG)

    assert 0 < small.steps < large.steps
    assert small.reached
    assert small.p[-1] >= 0.99 * p_before > small.p[-2]
    assert len(small.p) == small.steps + 1


def test_steps_are_bounded_and_repeatable(state: TrainedState, erased: Tensor, p_before: float) -> None:
    """What is out of reach ends at the cap; the same seed gives the same course, and e0 stays as it was."""
    far, config = pushed(state, erased, 1.5), replace(CONFIG, max_steps=3)
    kept = far.clone()

    first = relearn(state.backbone, far, state.graph, erased, 1.0, config=config)

    assert (first.steps, first.reached, len(first.p)) == (3, False, 4)
    assert first == relearn(state.backbone, far, state.graph, erased, 1.0, config=config)
    assert far.equal(kept)
    assert relearn(state.backbone, far, state.graph, erased[:, :0], 0.9).steps == 0


def test_the_way_back_starts_where_the_model_stands(state: TrainedState, erased: Tensor, p_before: float) -> None:
    """Half of the way is sooner done than all of it."""
    far = pushed(state, erased, 1.5)
    start = relearn(state.backbone, far, state.graph, erased, 0.0).p[0]
    half, whole = (
        relearn(state.backbone, far, state.graph, erased, p_before, start, replace(CONFIG, share=share))
        for share in (0.5, 1.0)
    )

    assert 0 < half.steps < whole.steps
    assert half.p[-1] >= (start + p_before) / 2 > half.p[-2]
    assert whole.p[-1] >= p_before > whole.p[-2]


def test_other_graphs_are_refused(state: TrainedState, erased: Tensor) -> None:
    """Edges must be there again, and rows must be nodes."""
    with pytest.raises(ValueError, match="add them again"):
        relearn(state.backbone, state.e0, state.graph.without(erased), erased, 0.9)
    with pytest.raises(ValueError, match="rows"):
        relearn(state.backbone, state.e0[1:], state.graph, erased, 0.9)
