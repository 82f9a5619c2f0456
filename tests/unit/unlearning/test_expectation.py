import math

import pytest
import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.unlearning.amplification import swap_graph
from service.unlearning.expectation import CLIP, FEATURES, Expectation, PairFeatures
from service.unlearning.metric import ReadoutMetric
from service.unlearning.state import TrainedState
from tests.unit.learning import random_state, some_edges


def _described(state: TrainedState, revoked: Tensor, edges: Tensor) -> Tensor:
    remaining = state.graph.without(revoked)
    features = PairFeatures(state, ReadoutMetric.of(state))
    return features(swap_graph(state, remaining), remaining, edges, revoked)


def _revoked(state: TrainedState, count: int = 10) -> tuple[Tensor, Tensor]:
    """A request, and its pairs whose rows keep an interaction."""
    revoked = some_edges(state.graph, count).long()
    return revoked, revoked[:, state.graph.without(revoked).keeps(revoked)]


def _naive(state: TrainedState, revoked: Tensor, u: int, i: int) -> list[float]:
    """The features of one pair by their names, a loop each."""
    graph, n_users, metric = state.graph, state.graph.n_users, ReadoutMetric.of(state)
    gone = {tuple(pair) for pair in revoked.T.tolist()}
    kept = [pair for pair in map(tuple, graph.edges.T.tolist()) if pair not in gone]
    remaining = InteractionGraph(n_users, graph.n_items, torch.tensor(kept).T)
    base, swapped, layer0 = state.readout, swap_graph(state, remaining), state.e0
    node = n_users + i
    score, own = float(swapped[u] @ swapped[node]), float(layer0[u] @ layer0[node])
    user_degree, item_degree = sum(a == u for a, _ in kept), sum(b == i for _, b in kept)
    surprise = 1 / (1 + math.exp(score))
    return [
        float(base[u] @ base[node]),
        score,
        math.log(1 + user_degree),
        math.log(1 + item_degree),
        own,
        float(layer0[u] @ swapped[node]) - own,
        float(layer0[node] @ swapped[u]) - own,
        float(swapped[u].norm()),
        float(swapped[node].norm()),
        float(layer0[u].norm()),
        float(layer0[node].norm()),
        surprise * float(swapped[node] @ metric.items_inverse @ swapped[node]) / (user_degree + 1),
        surprise * float(swapped[u] @ metric.users_inverse @ swapped[u]) / (item_degree + 1),
        sum(float(swapped[u] @ base[n_users + j]) for j in range(graph.n_items)) / graph.n_items,
        sum(float(swapped[node] @ base[v]) for v in range(n_users)) / n_users,
        sum(float(base[u] @ base[n_users + b]) for a, b in kept if a == u) / user_degree,
        sum(float(base[a] @ base[node]) for a, b in kept if b == i) / item_degree,
    ]


def test_each_feature_is_what_its_name_says() -> None:
    """Against loops over a tiny world."""
    state = random_state()
    revoked, edges = _revoked(state)

    found = _described(state, revoked, edges)

    expected = torch.tensor([_naive(state, revoked, u, i) for u, i in edges.T.tolist()])
    assert found.shape == (edges.shape[1], len(FEATURES))
    assert torch.allclose(found, expected, atol=1e-3, rtol=1e-3)


def test_features_go_with_their_pairs() -> None:
    """Neither the order of the pairs to describe nor that of the request matters."""
    state = random_state()
    revoked, edges = _revoked(state)
    order = torch.randperm(edges.shape[1], generator=torch.Generator().manual_seed(1))

    once = _described(state, revoked, edges)
    again = _described(state, revoked.flip(1), edges[:, order])

    assert torch.allclose(once[order], again, atol=1e-5)


def test_the_numbering_of_nodes_says_nothing() -> None:
    """The same world with users and items numbered otherwise has the same features."""
    state = random_state()
    revoked, edges = _revoked(state)
    graph, generator = state.graph, torch.Generator().manual_seed(1)
    user, item = (torch.randperm(size, generator=generator) for size in (graph.n_users, graph.n_items))

    def renamed(pairs: Tensor) -> Tensor:
        return torch.stack((user[pairs[0].long()], item[pairs[1].long()]))

    e0 = torch.empty_like(state.e0)
    e0[torch.cat((user, item + graph.n_users))] = state.e0
    other = TrainedState(
        InteractionGraph(graph.n_users, graph.n_items, renamed(graph.edges)),
        renamed(state.validation).int(),
        e0,
        state.backbone,
    )

    found = _described(other, renamed(revoked), renamed(edges))

    assert torch.allclose(found, _described(state, revoked, edges), atol=1e-4, rtol=1e-3)


SCALES = torch.tensor([1.0, 2.0, 0.1, 3.0])
WITHOUT_EDGE = FEATURES.index("score without the edge")


def _quadratic(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Four features of unlike scales, and scores: without the edge, plus a function of second degree."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 4, generator=generator) * SCALES + 2
    a, b, c, _ = ((features - 2) / SCALES).T
    return features, features[:, WITHOUT_EDGE] + 1.5 + a - 2 * b + a * b - 0.5 * c**2


def test_a_quadratic_function_is_recovered() -> None:
    """On pairs that were not seen, whatever the scale of the features, up to what the ridge takes."""
    expectation = Expectation.fit(*_quadratic(4_000, seed=0))
    features, scores = _quadratic(500, seed=1)

    error = expectation(features) - scores

    to_come = scores - features[:, WITHOUT_EDGE]
    assert error.std() < 0.1 * to_come.std()
    assert abs(float(error.mean())) < 0.1


def test_features_without_information_give_the_mean() -> None:
    """Constant features, as of a single pair, are no reason to fail: the graph's own effect and a constant remain."""
    expectation = Expectation.fit(torch.ones(1, 4), torch.tensor([2.5]))

    assert torch.allclose(expectation(torch.ones(3, 4)), torch.full((3,), 2.5))


def test_what_is_not_known_is_left_to_the_graph() -> None:
    """Where the shadow says nothing but noise, pairs fall by their score without the edge and one step for all."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4_000, 4, generator=generator)
    scores = features[:, WITHOUT_EDGE] - 1 + 0.1 * torch.randn(4_000, generator=generator)

    found = Expectation.fit(features, scores)(features)

    assert torch.allclose(found, features[:, WITHOUT_EDGE] - 1, atol=0.05)


def test_a_pair_unlike_all_others_is_treated_like_the_nearest() -> None:
    """What is still to come is cut at CLIP standard deviations of each feature, so no score runs away."""
    expectation = Expectation.fit(*_quadratic(4_000, seed=0))
    edge = expectation.mean + CLIP * expectation.scale
    beyond = expectation.mean + 100 * CLIP * expectation.scale

    far, near, mean = (float(expectation(each[None]) - each[WITHOUT_EDGE]) for each in (beyond, edge, expectation.mean))
    assert far == pytest.approx(near, abs=0.01)
    assert abs(near - mean) > 1


def test_it_survives_being_stored() -> None:
    """Three small tensors, bit for bit; None where nothing was stored."""
    expectation = Expectation.fit(*_quadratic(400, seed=0))
    features, _ = _quadratic(10, seed=1)

    again = Expectation.from_tensors(expectation.tensors())

    assert again is not None
    assert torch.equal(again(features), expectation(features))
    assert Expectation.from_tensors({"h0": features}) is None
