"""Simulated requests made of what the base itself finds least plausible."""

import pytest
import torch

from service.recommender.graph import InteractionGraph
from service.unlearning.simulation import simulate, unlikely_pairs


@pytest.fixture
def world() -> tuple[torch.Tensor, InteractionGraph]:
    """Random embeddings of 40 users and 30 items, and 300 random interactions."""
    generator = torch.Generator().manual_seed(3)
    flat = torch.randperm(40 * 30, generator=generator)[:300]
    graph = InteractionGraph(40, 30, torch.stack((flat // 30, flat % 30)).int())
    return torch.randn(70, 8, generator=generator), graph


def drawn_often(readout: torch.Tensor, graph: InteractionGraph) -> set[tuple[int, int]]:
    generator, shape = torch.Generator().manual_seed(0), unlikely_pairs(readout, graph)
    requests = [simulate(shape, graph, generator) for _ in range(400)]
    return {(int(user), int(item)) for request in requests for user, item in request.T}


def test_unlikely_pairs_are_the_lowest_of_a_user_or_of_an_item(
    world: tuple[torch.Tensor, InteractionGraph],
) -> None:
    readout, graph = world
    scores = (readout[:40] @ readout[40:].T).masked_fill(~_dense(graph), torch.inf)
    wanted = {(user, int(scores[user].argmin())) for user in range(40) if graph.user_degree[user]}
    wanted |= {(int(scores[:, item].argmin()), item) for item in range(30) if graph.item_degree[item]}
    assert drawn_often(readout, graph) == wanted


def test_a_request_for_unlikely_pairs_is_at_most_one_hundredth_of_the_graph(
    world: tuple[torch.Tensor, InteractionGraph],
) -> None:
    readout, graph = world
    request = simulate(unlikely_pairs(readout, graph), graph, torch.Generator().manual_seed(1))
    assert request.shape == (2, 3)
    assert bool(graph.contains(request).all())


def test_the_same_seed_gives_the_same_unlikely_pairs(world: tuple[torch.Tensor, InteractionGraph]) -> None:
    readout, graph = world
    first, second = (
        simulate(unlikely_pairs(readout, graph), graph, torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first, second)


def test_unlikely_pairs_come_from_an_empty_graph_as_nothing() -> None:
    graph = InteractionGraph(3, 2, torch.zeros(2, 0, dtype=torch.int32))
    assert simulate(unlikely_pairs(torch.ones(5, 4), graph), graph, torch.Generator()).shape == (2, 0)


def _dense(graph: InteractionGraph) -> torch.Tensor:
    known = torch.zeros(graph.n_users, graph.n_items, dtype=torch.bool)
    known[graph.edges[0].long(), graph.edges[1].long()] = True
    return known
