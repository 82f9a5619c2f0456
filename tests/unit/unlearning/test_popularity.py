"""Popularity as a method that forgets."""

import torch

from service.recommender.backbones import LightGCN
from service.recommender.ranking import top_items
from service.unlearning.popularity import Popularity
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState
from tests.unit.learning import blocks


def test_it_counts_and_an_erasure_is_subtracted() -> None:
    graph = blocks()
    state = TrainedState(graph, graph.edges[:, :0], torch.zeros(graph.n_nodes, 4), LightGCN())
    method = Popularity()
    request = UnlearningRequest.of(state, graph.edges[:, ::9], graph.edges_of_users(torch.tensor([2])))

    result = method.forget(state, request)

    before, after = method.before(state), result.readout
    assert before.shape == after.shape == (graph.n_nodes, 1)
    assert torch.equal(before[graph.n_users :, 0], graph.item_degree.float())
    assert torch.equal(after[graph.n_users :, 0], result.graph.item_degree.float())
    assert after[2] == 0
    assert result.graph.n_edges == graph.n_edges - request.n_edges


def test_the_most_popular_unseen_item_comes_first() -> None:
    graph = blocks()
    state = TrainedState(graph, graph.edges[:, :0], torch.zeros(graph.n_nodes, 4), LightGCN())

    best = int(top_items(Popularity().before(state), graph, torch.tensor([0]), 1))

    unseen = graph.item_degree.clone()
    unseen[graph.edges_of_users(torch.tensor([0]))[1].long()] = -1
    assert graph.item_degree[best] == unseen.max()
