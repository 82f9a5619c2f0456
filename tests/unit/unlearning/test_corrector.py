from typing import get_args

import pytest
import torch
from torch import Tensor

from service.recommender.losses import pair_scores
from service.unlearning import correction
from service.unlearning.amplification import swap_graph
from service.unlearning.corrector import DISLIKE_DEPTH, Corrector
from service.unlearning.expectation import FEATURES, Expectation
from service.unlearning.request import MODES, Mode, UnlearningRequest
from service.unlearning.state import TrainedState, zero_isolated
from tests.unit.learning import some_edges, trained_tastes


@pytest.fixture(scope="module")
def state() -> TrainedState:
    """One trained base for all tests of this file; nothing here changes it."""
    return trained_tastes()


@pytest.fixture(scope="module")
def quantiles(state: TrainedState) -> Corrector:
    """What serves without a shadow."""
    return Corrector(state)


@pytest.fixture(scope="module")
def learnt(state: TrainedState) -> Corrector:
    """A corrector that expects a forgotten pair to score half of what it scores without its edge, minus a half."""
    features = torch.randn(4_000, len(FEATURES), generator=torch.Generator().manual_seed(0)) * 3
    return Corrector(state, Expectation.fit(features, 0.5 * features[:, 1] - 0.5))


def _scores(state: TrainedState, readout: Tensor, edges: Tensor) -> Tensor:
    return pair_scores(readout, state.graph.n_users, edges[0].long(), edges[1].long())


def _corrected(corrector: Corrector, request: UnlearningRequest) -> Tensor:
    state = corrector.state
    remaining = state.graph.without(request.edges)
    swapped = swap_graph(state, remaining)
    return zero_isolated(swapped + corrector.change(swapped, remaining, request, MODES), remaining)


def _missed(corrector: Corrector, request: UnlearningRequest, *modes: Mode) -> float:
    """How far the mean of the pairs of these modes, relative to held-out ones, ends from its aim: a share of the way
    there.
    """
    state = corrector.state
    remaining = state.graph.without(request.edges)
    swapped, after = swap_graph(state, remaining), _corrected(corrector, request)
    pairs = torch.cat([request.of_mode(mode) for mode in modes], dim=1)
    aims = [
        corrector.aims(swapped, remaining, request.of_mode(mode).long(), mode, request.edges.long()) for mode in modes
    ]
    aim = torch.cat(aims).mean() - _scores(state, state.readout, state.validation).mean()
    reached, start = (
        _scores(state, readout, pairs).mean() - _scores(state, readout, state.validation).mean()
        for readout in (after, swapped)
    )
    assert abs(aim - start) > 0.05, "the case asks for a change"
    return float(abs(reached - aim) / abs(start - aim))


def test_both_modes_are_known() -> None:
    """`MODES` lists what `Mode` allows."""
    assert get_args(Mode) == MODES


@pytest.mark.parametrize("count", [1, 5, 40])
@pytest.mark.parametrize("name", ["quantiles", "learnt"])
def test_the_mean_meets_its_aim(state: TrainedState, name: str, count: int, request: pytest.FixtureRequest) -> None:
    """Mode `forget`: relative to held-out pairs and however many pairs, a single one included."""
    corrector: Corrector = request.getfixturevalue(name)
    asked = UnlearningRequest.of(state, forget=some_edges(state.graph, count, seed=4))

    assert _missed(corrector, asked, "forget") < 0.15


def test_the_mean_meets_its_aim_despite_the_slack(
    state: TrainedState, quantiles: Corrector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a large slack leaves of the way is made up for; `dislike`, which is not stretched, falls short."""
    monkeypatch.setattr(correction, "SLACK", 0.7)
    edges = some_edges(state.graph, 40, seed=4)

    assert _missed(quantiles, UnlearningRequest.of(state, forget=edges), "forget") < 0.15
    assert _missed(quantiles, UnlearningRequest.of(state, dislike=edges), "dislike") > 0.25


@pytest.mark.parametrize("count", [1, 5, 40])
def test_disliked_pairs_come_near_their_aim(state: TrainedState, quantiles: Corrector, count: int) -> None:
    """The slack leaves some of the way."""
    asked = UnlearningRequest.of(state, dislike=some_edges(state.graph, count, seed=4))

    assert _missed(quantiles, asked, "dislike") < 0.4


def test_a_request_of_both_modes_meets_the_aims_of_each(state: TrainedState, learnt: Corrector) -> None:
    """The disliked pairs end well below the forgotten ones, and both near where they should."""
    edges = some_edges(state.graph, 40, seed=2)
    asked = UnlearningRequest.of(state, forget=edges[:, :20], dislike=edges[:, 20:])

    after = _corrected(learnt, asked)

    assert _missed(learnt, asked, "forget") < 0.4
    assert _missed(learnt, asked, "dislike") < 0.4
    forgotten, disliked = (_scores(state, after, asked.of_mode(mode)) for mode in MODES)
    assert disliked.mean() < forgotten.mean() - learnt.calibration.spread


def test_each_mode_has_aims_of_its_own(state: TrainedState, quantiles: Corrector, learnt: Corrector) -> None:
    """`forget`: the expectation where there is one, else quantiles; `dislike`: below that, down to a floor."""
    edges = some_edges(state.graph, 6).long()
    remaining = state.graph.without(edges)
    swapped = swap_graph(state, remaining)

    def aims(corrector: Corrector, mode: Mode) -> Tensor:
        return corrector.aims(swapped, remaining, edges, mode, edges)

    expected = 0.5 * _scores(state, swapped, edges) - 0.5
    assert (aims(learnt, "forget") - expected).abs().max() < 1.0
    assert torch.equal(aims(quantiles, "forget"), quantiles.calibration.targets(state, edges))
    for corrector in (quantiles, learnt):
        forgotten, disliked = aims(corrector, "forget"), aims(corrector, "dislike")
        deep = forgotten - DISLIKE_DEPTH * corrector.calibration.spread
        floors = corrector.calibration.floors(state, edges)
        assert (disliked <= forgotten).all()
        assert (torch.isclose(disliked, deep) | torch.isclose(disliked, floors) | (forgotten <= floors)).all()
        assert (disliked >= deep).all()
        assert ((disliked >= floors) | (forgotten <= floors)).all()


def test_a_disliked_pair_never_aims_above_a_forgotten_one(state: TrainedState) -> None:
    """Also where a forgotten pair should score less than the floor of the catalogue."""
    features = torch.randn(500, len(FEATURES), generator=torch.Generator().manual_seed(0))
    low = Corrector(state, Expectation.fit(features, torch.full((500,), -100.0)))
    edges = some_edges(state.graph, 6).long()
    remaining = state.graph.without(edges)

    aims = low.aims(swap_graph(state, remaining), remaining, edges, "dislike", edges)

    assert (aims <= -99).all()


def test_only_the_modes_that_were_asked_for_are_corrected(state: TrainedState, quantiles: Corrector) -> None:
    """An encoder of the published method beside a corrected one is left alone."""
    edges = some_edges(state.graph, 8)
    asked = UnlearningRequest.of(state, forget=edges[:, :4], dislike=edges[:, 4:])
    remaining = state.graph.without(asked.edges)
    swapped = swap_graph(state, remaining)

    change = quantiles.change(swapped, remaining, asked, ("dislike",))

    rows = torch.zeros(state.graph.n_nodes, dtype=torch.bool)
    rows[asked.dislike[0].long()] = rows[asked.dislike[1].long() + state.graph.n_users] = True
    assert torch.equal(change.abs().sum(dim=1) > 0, rows)


def test_a_pair_whose_row_is_reset_is_left_alone(state: TrainedState, quantiles: Corrector, learnt: Corrector) -> None:
    """All of a user: the row is zeroed anyway, and the items that it liked do not pay for it."""
    asked = UnlearningRequest.of(state, forget=state.graph.edges_of_users(torch.tensor([3])))
    remaining = state.graph.without(asked.edges)
    swapped = swap_graph(state, remaining)

    for corrector in (quantiles, learnt):
        assert not corrector.change(swapped, remaining, asked, MODES).any()


def test_a_reset_row_beside_others(state: TrainedState, learnt: Corrector) -> None:
    """Pairs that keep their rows are corrected, and nothing is infinite."""
    whole = state.graph.edges_of_users(torch.tensor([3]))
    asked = UnlearningRequest.of(state, forget=torch.cat((whole, some_edges(state.graph, 10, seed=1)), dim=1))
    remaining = state.graph.without(asked.edges)

    change = learnt.change(swap_graph(state, remaining), remaining, asked, MODES)

    assert torch.isfinite(change).all()
    assert change.any()
    assert not change[3].any()


def test_nothing_and_everything(state: TrainedState, learnt: Corrector) -> None:
    """Neither an empty request nor one of all interactions has a pair to correct."""
    for edges in (state.graph.edges[:, :0], state.graph.edges):
        asked = UnlearningRequest.of(state, forget=edges)
        remaining = state.graph.without(asked.edges)
        assert not learnt.change(swap_graph(state, remaining), remaining, asked, MODES).any()


@pytest.mark.P6
def test_the_same_request_gives_the_same_bytes(state: TrainedState, learnt: Corrector) -> None:
    """Also from another corrector of the same base, and in another order."""
    edges = some_edges(state.graph, 30)
    again = Corrector(state, learnt.expectation)

    first = _corrected(learnt, UnlearningRequest.of(state, forget=edges))
    second = _corrected(again, UnlearningRequest.of(state, forget=edges.flip(1)))

    assert torch.equal(first, second)


def test_erased_pairs_fall_and_others_hardly_move(state: TrainedState, quantiles: Corrector) -> None:
    """What the correction does to held-out pairs is small beside what it does to the erased ones."""
    asked = UnlearningRequest.of(state, forget=some_edges(state.graph, 20))
    swapped = swap_graph(state, state.graph.without(asked.edges))

    after = _corrected(quantiles, asked)

    erased = (_scores(state, after, asked.forget) - _scores(state, swapped, asked.forget)).mean()
    others = (_scores(state, after, state.validation) - _scores(state, swapped, state.validation)).mean()
    assert erased < 0
    assert abs(others) < 0.2 * abs(erased)
