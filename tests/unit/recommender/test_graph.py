import pytest
import torch

from service.recommender.graph import InteractionGraph
from tests.unit.learning import dense_adjacency, random_graph


def test_edges_are_sorted_and_unique() -> None:
    """Repeats are merged and the order does not depend on the input's."""
    graph = InteractionGraph(3, 4, torch.tensor([[2, 0, 2, 0], [1, 3, 1, 0]]))

    assert graph.edges.tolist() == [[0, 0, 2], [0, 3, 1]]
    assert graph.edges.dtype == torch.int32
    assert graph.user_degree.tolist() == [2, 0, 1]
    assert graph.item_degree.tolist() == [1, 1, 0, 1]


def test_adjacency_is_the_normalised_matrix_of_the_definition() -> None:
    """S = D^-1/2 A D^-1/2, isolated rows zero."""
    graph = random_graph()

    assert torch.allclose(graph.adjacency.to_dense(), dense_adjacency(graph), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_graph_without_edges_is_the_graph_built_without_them(seed: int) -> None:
    """`without` re-normalises as a rebuild would, whatever is taken out."""
    graph = random_graph(seed=seed)
    gone = graph.edges[:, torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(seed))[:15]]

    remaining = graph.without(gone)

    rebuilt = InteractionGraph(graph.n_users, graph.n_items, graph.edges[:, ~_among(graph, gone)])
    assert torch.equal(remaining.edges, rebuilt.edges)
    assert torch.equal(remaining.adjacency.to_dense(), rebuilt.adjacency.to_dense())
    assert torch.equal(remaining.by_item, rebuilt.by_item)


def test_edges_that_are_not_in_the_graph_are_passed_over() -> None:
    """Unknown edges neither fail nor change anything."""
    graph = InteractionGraph(3, 3, torch.tensor([[0, 1], [0, 1]]))

    remaining = graph.without(torch.tensor([[2, 0], [2, 0]]))

    assert remaining.edges.tolist() == [[1], [1]]
    assert graph.contains(torch.tensor([[0, 2], [0, 2]])).tolist() == [True, False]


def test_a_graph_can_lose_its_last_edge() -> None:
    """Nothing left is a graph too."""
    graph = InteractionGraph(2, 2, torch.tensor([[0], [1]]))

    empty = graph.without(graph.edges)

    assert empty.n_edges == 0
    assert not empty.adjacency.to_dense().any()
    assert not empty.contains(torch.tensor([[0], [1]])).any()
    assert empty.without(graph.edges).n_edges == 0


def test_edges_of_users_and_items() -> None:
    """All edges of a row, and of nothing else."""
    graph = InteractionGraph(3, 3, torch.tensor([[0, 0, 1, 2], [0, 2, 2, 1]]))

    assert graph.edges_of_users(torch.tensor([0])).tolist() == [[0, 0], [0, 2]]
    assert graph.edges_of_items(torch.tensor([2])).tolist() == [[0, 1], [2, 2]]


def test_rows_out_of_range_are_refused() -> None:
    """An edge that points nowhere is an error, not a crash later."""
    with pytest.raises(ValueError, match="outside 2 users x 2 items"):
        InteractionGraph(2, 2, torch.tensor([[0], [2]]))
    with pytest.raises(ValueError, match=r"expected \(2, m\)"):
        InteractionGraph(2, 2, torch.tensor([0, 1]))


def _among(graph: InteractionGraph, edges: torch.Tensor) -> torch.Tensor:
    return InteractionGraph(graph.n_users, graph.n_items, edges).contains(graph.edges)


@pytest.mark.parametrize("step", [25, 2], ids=["few gone, the pattern is shared", "half gone, it is not"])
def test_thinning_what_is_left_of_a_graph(step: int) -> None:
    """Its pattern may be the whole graph's: what is thinned must be told in the right edges."""
    whole = random_graph(30, 20, 300, 1)
    rest = whole.without(whole.edges[:, ::step])
    keep = torch.rand(rest.n_edges, generator=torch.Generator().manual_seed(0)) > 0.3
    kept = InteractionGraph(30, 20, rest.edges[:, keep])

    thinned = rest.thinned(keep).to_dense()

    torch.testing.assert_close(thinned, kept.adjacency.to_dense())


def test_a_chain_of_deletions_is_one_deletion() -> None:
    whole = random_graph(30, 20, 300, 1)
    first, second = whole.edges[:, ::30], whole.edges[:, 5::30]

    rest = whole.without(first).without(second)
    at_once = whole.without(torch.cat((first, second), dim=1))

    assert torch.equal(rest.edges, at_once.edges)
    assert torch.equal(rest.degree, at_once.degree)
    torch.testing.assert_close(rest.adjacency.to_dense(), at_once.adjacency.to_dense())
