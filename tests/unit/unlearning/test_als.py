"""ALS as a method that forgets by being fitted anew; skipped where the benchmarks' packages are not installed."""

import pytest
import torch

pytest.importorskip("implicit", reason="needs the packages of the group `benchmarks`")

from benchmarks.references import Als
from service.recommender.backbones import LightGCN
from service.recommender.graph import InteractionGraph
from service.recommender.ranking import ranking_quality
from service.recommender.sampling import split_validation
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState
from tests.unit.learning import blocks


def state_of(graph: InteractionGraph) -> TrainedState:
    return TrainedState(graph, graph.edges[:, :0], torch.zeros(graph.n_nodes, 1), LightGCN())


def test_it_finds_what_was_held_out_and_repeats_itself() -> None:
    graph, held = split_validation(blocks(), 0.15, seed=0)
    held_out = InteractionGraph(graph.n_users, graph.n_items, held)

    readout = Als(factors=8).before(state_of(graph))

    assert readout.shape == (graph.n_nodes, 8)
    assert ranking_quality(readout, graph, held_out).recall > 0.9
    assert torch.equal(readout, Als(factors=8, threads=1).before(state_of(graph)))


def test_forgetting_is_fitting_what_remains() -> None:
    graph = blocks()
    state, method = state_of(graph), Als(factors=8)
    request = UnlearningRequest.of(state, graph.edges[:, ::7], graph.edges_of_users(torch.tensor([3])))

    result = method.forget(state, request)

    remaining = graph.without(request.edges)
    assert torch.equal(result.graph.edges, remaining.edges)
    assert torch.equal(result.readout, Als(factors=8).before(state_of(remaining)))
    assert not result.readout[3].any()
    assert not torch.equal(result.readout, method.before(state))
