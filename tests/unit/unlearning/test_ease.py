"""EASE and its exact down-date."""

import pytest
import torch
from torch import Tensor

from service.recommender.backbones import LightGCN
from service.recommender.graph import InteractionGraph
from service.recommender.ranking import ranking_quality
from service.recommender.sampling import split_validation
from service.unlearning import ease
from service.unlearning.ease import Ease, downdated, inverse_gram
from service.unlearning.protocol import Guarantee
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState
from tests.unit.learning import blocks, random_graph


def state_of(graph: InteractionGraph) -> TrainedState:
    nothing = torch.zeros(2, 0, dtype=torch.int32)
    return TrainedState(graph, nothing, torch.zeros(graph.n_nodes, 4), LightGCN())


def dense(graph: InteractionGraph) -> Tensor:
    x = torch.zeros(graph.n_users, graph.n_items, dtype=torch.float64)
    users, items = graph.edges.long()
    x[users, items] = 1
    return x


def naive_scores(graph: InteractionGraph, regularisation: float) -> Tensor:
    """X B by Lagrange multipliers, a column of B at a time: the least squares whose own column is left out."""
    x = dense(graph)
    weights = torch.zeros(graph.n_items, graph.n_items, dtype=torch.float64)
    for item in range(graph.n_items):
        others = [other for other in range(graph.n_items) if other != item]
        rest = x[:, others]
        gram = rest.T @ rest + regularisation * torch.eye(len(others), dtype=torch.float64)
        weights[others, item] = torch.linalg.solve(gram, rest.T @ x[:, item])
    return x @ weights


def some(graph: InteractionGraph, n: int, seed: int = 0) -> Tensor:
    order = torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(seed))
    return graph.edges[:, order[:n]]


def test_scores_are_those_of_the_regressions_without_the_item_itself() -> None:
    graph = random_graph()
    readout = Ease(regularisation=3.0).before(state_of(graph))

    assert readout.dtype == torch.float32
    scores = readout[: graph.n_users] @ readout[graph.n_users :].T
    torch.testing.assert_close(scores.double(), naive_scores(graph, 3.0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_a_downdate_is_a_refit(count: int) -> None:
    graph = blocks()
    gone = some(graph, count)

    left = downdated(inverse_gram(graph, 20.0), graph, gone)

    torch.testing.assert_close(left, inverse_gram(graph.without(gone), 20.0), atol=1e-12, rtol=1e-10)


def test_a_downdate_takes_out_whole_users_and_whole_items() -> None:
    graph = blocks()
    gone = torch.cat((graph.edges_of_users(torch.tensor([0, 5])), graph.edges_of_items(torch.tensor([3]))), dim=1)
    gone = graph.common(gone)

    left = downdated(inverse_gram(graph, 20.0), graph, gone)

    torch.testing.assert_close(left, inverse_gram(graph.without(gone), 20.0), atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("share", [0.0, 100.0], ids=["refit", "downdate"])
def test_either_way_the_result_is_that_of_fitting_what_remains(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    monkeypatch.setattr(ease, "REFIT_SHARE", share)
    graph = blocks()
    state, method = state_of(graph), Ease(20.0)
    request = UnlearningRequest.of(state, some(graph, 30), some(graph, 10, seed=1))

    result = method.forget(state, request)

    fresh = Ease(20.0).before(state_of(graph.without(request.edges)))
    torch.testing.assert_close(result.readout, fresh, atol=1e-7, rtol=1e-6)
    assert torch.equal(result.graph.edges, graph.without(request.edges).edges)
    assert (result.readout - method.before(state)).abs().max() > 0.01


def test_requests_are_cumulative() -> None:
    """The same request gives the same bytes whatever was asked before it; an empty one gives the base."""
    graph = blocks()
    state, method = state_of(graph), Ease(20.0)
    method.prepare(state)
    all_of_it = UnlearningRequest.of(state, some(graph, 12))
    alone = method.forget(state, all_of_it).readout
    method.forget(state, UnlearningRequest.of(state, some(graph, 3)))

    assert torch.equal(method.forget(state, all_of_it).readout, alone)
    assert torch.equal(method.forget(state, UnlearningRequest.of(state)).readout, method.before(state))


def test_a_fit_belongs_to_its_base() -> None:
    method, first, second = Ease(20.0), state_of(blocks(seed=0)), state_of(blocks(seed=1))
    method.prepare(first)

    torch.testing.assert_close(method.before(second), Ease(20.0).before(second))


def test_rows_without_an_interaction_are_zero() -> None:
    graph = blocks()
    state = state_of(graph)
    request = UnlearningRequest.of(
        state, torch.cat((graph.edges_of_users(torch.tensor([4])), graph.edges_of_items(torch.tensor([7]))), 1)
    )

    readout = Ease(20.0).forget(state, request).readout

    torch.testing.assert_close(readout[4], torch.zeros(graph.n_items))
    torch.testing.assert_close(readout[graph.n_users + 7], torch.zeros(graph.n_items), atol=1e-12, rtol=0)


def test_it_finds_what_was_held_out() -> None:
    graph, held = split_validation(blocks(), 0.15, seed=0)
    held_out = InteractionGraph(graph.n_users, graph.n_items, held)

    assert ranking_quality(Ease(20.0).before(state_of(graph)), graph, held_out).recall > 0.9


def test_what_it_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "MAX_ITEMS", 50)

    with pytest.raises(ValueError, match="80 items are more than 50"):
        Ease().prepare(state_of(blocks()))
    with pytest.raises(ValueError, match="above 0"):
        Ease(regularisation=0)
    assert Ease.guarantee is Guarantee.EXACT
