import torch

from service.recommender.backbones import LightGCN, Triples, make_backbone
from service.recommender.propagation import product, propagate_sum
from tests.unit.learning import dense_adjacency, random_graph


def test_propagation_is_the_polynomial_of_the_dense_matrix() -> None:
    """sum_l S^l x, sparse as dense."""
    graph, layers = random_graph(), 3
    x, dense = torch.randn(graph.n_nodes, 5), dense_adjacency(graph)

    expected = sum(torch.linalg.matrix_power(dense, power) @ x for power in range(layers + 1))

    assert torch.allclose(propagate_sum(graph.adjacency, x, layers), expected, atol=1e-5)


def test_the_gradient_of_propagation_is_that_of_autograd() -> None:
    """The hand-written backward agrees with the dense product's."""
    graph = random_graph()
    dense, weight = dense_adjacency(graph), torch.randn(graph.n_nodes, 5)
    ours, theirs = (torch.ones(graph.n_nodes, 5, requires_grad=True) for _ in range(2))

    (propagate_sum(graph.adjacency, ours, 2) * weight).sum().backward()
    ((theirs + dense @ theirs + dense @ dense @ theirs) * weight).sum().backward()

    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)


def test_a_product_with_an_asymmetric_matrix_takes_its_transpose_backwards() -> None:
    """product() is used with S'_D, whose two directions are dropped apart."""
    dense = torch.tensor([[0.0, 2.0], [0.0, 1.0]])
    x = torch.randn(2, 3, requires_grad=True)

    product(dense.to_sparse_csr(), x, dense.T.to_sparse_csr()).sum().backward()

    assert x.grad is not None
    assert torch.allclose(x.grad, dense.T @ torch.ones(2, 3))


def test_mean_and_sum_readout_differ_by_the_number_of_layers() -> None:
    """The two conventions rank alike and scale apart."""
    graph, e0 = random_graph(), torch.randn(21, 4)

    mean = LightGCN(layers=3, readout="mean").propagate(e0, graph)
    total = LightGCN(layers=3, readout="sum").propagate(e0, graph)

    assert torch.allclose(mean * 4, total, atol=1e-5)


def test_the_loss_takes_a_readout_that_is_at_hand() -> None:
    """Propagating once or twice gives the same loss."""
    graph, e0 = random_graph(), torch.randn(21, 4)
    batch = Triples(*(torch.tensor(rows) for rows in ([0, 1], [2, 3], [4, 5])))
    backbone = LightGCN()

    assert torch.equal(backbone.loss(e0, graph, batch), backbone.loss(e0, graph, batch, backbone.propagate(e0, graph)))


def test_a_backbone_is_built_again_from_its_configuration() -> None:
    """What a manifest keeps is enough."""
    backbone = LightGCN(layers=2, readout="sum", weight_decay=0.5)

    assert make_backbone(backbone.config()) == backbone


def test_an_unknown_backbone_is_refused_by_name() -> None:
    """The message lists what there is."""
    import pytest

    with pytest.raises(ValueError, match="No backbone is called 'nope'; known are lightgcn"):
        make_backbone({"name": "nope"})
    with pytest.raises(ValueError, match="refuses its options"):
        make_backbone({"name": "lightgcn", "colour": "red"})
