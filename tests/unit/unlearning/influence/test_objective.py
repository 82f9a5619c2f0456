"""The closed forms, against autograd and finite differences in float64."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from service.recommender.backbones import Backbone, LightGCN, SimGCL
from service.recommender.graph import InteractionGraph
from service.unlearning.influence.objective import Curvature, FixedTriples, Objective
from tests.unit.learning import dense_adjacency, random_graph

BACKBONES = [
    LightGCN(layers=2, readout="sum", weight_decay=0.03),
    LightGCN(layers=3, readout="mean", weight_decay=0.0),
    SimGCL(layers=2, readout="sum", weight_decay=0.03),
]
D = 3


def _double(graph: InteractionGraph) -> InteractionGraph:
    """The graph with an adjacency in float64, so that derivatives can be compared closely."""
    graph.__dict__["adjacency"] = graph.adjacency.double()
    return graph


def _embeddings(graph: InteractionGraph, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(graph.n_nodes, D, generator=generator, dtype=torch.float64)


def _world(backbone: Backbone, k_neg: int = 2) -> tuple[Objective, Tensor]:
    graph = _double(random_graph())
    return Objective(backbone, FixedTriples.draw(graph, k_neg, seed=0)), _embeddings(graph)


def _dense_loss(objective: Objective, e0: Tensor, graph: InteractionGraph, counted: Tensor, linear: bool) -> Tensor:
    """F by its definition over dense matrices; `linear` gives the margins instead."""
    backbone, triples = objective.backbone, objective.triples
    powers = [torch.eye(graph.n_nodes, dtype=torch.float64)]
    adjacency = dense_adjacency(graph).double()
    for _ in range(backbone.layers):  # type: ignore[attr-defined]
        powers.append(adjacency @ powers[-1])
    used = powers[1:] if isinstance(backbone, SimGCL) else powers
    readout = sum(used) @ e0 / (len(used) if backbone.readout == "mean" else 1)  # type: ignore[attr-defined]
    users = triples.graph.edges[0].long()[counted].repeat_interleave(triples.targets.shape[1] - 1)
    targets = triples.targets[counted] + graph.n_users
    positives = targets[:, 0].repeat_interleave(targets.shape[1] - 1)
    negatives = targets[:, 1:].flatten()
    margins = (readout[users] * (readout[positives] - readout[negatives])).sum(dim=1)
    if linear:
        return margins
    rows = e0[torch.cat((users, positives, negatives))]
    return softplus(-margins).sum() + backbone.weight_decay / 2 * rows.square().sum()  # type: ignore[attr-defined]


def _all(objective: Objective) -> Tensor:
    return torch.ones(objective.triples.graph.n_edges, dtype=torch.bool)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_loss_and_gradient_are_those_of_autograd(backbone: Backbone) -> None:
    """The closed form needs neither a graph of operations nor gathered rows."""
    objective, e0 = _world(backbone)
    graph = objective.triples.graph
    counted = torch.arange(graph.n_edges) % 3 > 0
    leaf = e0.clone().requires_grad_()

    loss = _dense_loss(objective, leaf, graph, counted, linear=False)
    (gradient,) = torch.autograd.grad(loss, leaf)

    assert torch.allclose(objective.loss(e0, graph, counted), loss, rtol=1e-5)
    assert torch.allclose(objective.gradient(e0, graph, counted), gradient, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("gauss_newton", [False, True])
def test_curvature_is_that_of_double_back_propagation(backbone: Backbone, gauss_newton: bool) -> None:
    """Full: the derivative of <grad F, V>. Gauss-Newton: J^T b J V of the margins, plus L2."""
    objective, e0 = _world(backbone)
    graph, counted = objective.triples.graph, _all(objective)
    direction = _embeddings(graph, seed=2)
    leaf = e0.clone().requires_grad_()

    if gauss_newton:
        jacobian = torch.autograd.functional.jacobian(
            lambda x: _dense_loss(objective, x, graph, counted, linear=True), e0
        ).flatten(1)
        margins = _dense_loss(objective, e0, graph, counted, linear=True)
        bends = torch.sigmoid(margins) * torch.sigmoid(-margins)
        expected = (jacobian.T @ (bends * (jacobian @ direction.flatten()))).view_as(e0)
        expected += objective.decay() * direction
    else:
        loss = _dense_loss(objective, leaf, graph, counted, linear=False)
        (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
        (expected,) = torch.autograd.grad((gradient * direction).sum(), leaf)

    product = Curvature(objective, e0, gauss_newton).product(direction)
    assert torch.allclose(product, expected, atol=1e-5)


def test_the_difference_gradient_is_that_of_the_two_losses() -> None:
    """g against central differences of F(S, T) - F(S_r, T_r); its direct part against those of F(S, T_D)."""
    objective, e0 = _world(BACKBONES[0])
    graph = objective.triples.graph
    lost = torch.arange(graph.n_edges) % 5 == 0
    remaining = _double(graph.without(graph.edges[:, lost]))
    direction = _embeddings(graph, seed=3)

    difference = objective.difference(e0, remaining, lost)

    def change(at: Tensor) -> Tensor:
        return objective.loss(at, graph) - objective.loss(at, remaining, ~lost)

    step = 1e-5 * direction
    slope = (change(e0 + step) - change(e0 - step)) / 2e-5
    direct = (objective.loss(e0 + step, graph, lost) - objective.loss(e0 - step, graph, lost)) / 2e-5
    assert float((difference.total * direction).sum()) == pytest.approx(float(slope), rel=1e-5)
    assert float((difference.direct * direction).sum()) == pytest.approx(float(direct), rel=1e-5)
    two = objective.gradient(e0, graph) - objective.gradient(e0, remaining, ~lost)
    assert torch.allclose(difference.total, two, atol=1e-10)


def test_spillover_counts_the_named_interactions_alone() -> None:
    """IFRU's changed data and CEU's neighbourhood are such a choice."""
    objective, e0 = _world(BACKBONES[0])
    graph = objective.triples.graph
    lost = torch.arange(graph.n_edges) == 0
    remaining = _double(graph.without(graph.edges[:, lost]))
    some = torch.arange(graph.n_edges) % 2 == 0

    part = objective.difference(e0, remaining, lost, some).spillover

    kept = some & ~lost
    assert torch.allclose(part, objective.gradient(e0, graph, kept) - objective.gradient(e0, remaining, kept))
    assert torch.equal(objective.difference(e0, remaining, lost, some & False).spillover, torch.zeros_like(e0))


def test_the_mean_diagonal_is_that_of_the_matrix() -> None:
    """Hutchinson's estimate of the trace, on a matrix that is small enough to write down."""
    objective, e0 = _world(BACKBONES[0])
    curvature = Curvature(objective, e0, gauss_newton=True)
    basis = torch.eye(e0.numel(), dtype=torch.float64).view(-1, *e0.shape)
    diagonal = [float((unit * curvature.product(unit)).sum()) for unit in basis]

    assert curvature.mean_diagonal(probes=400) == pytest.approx(sum(diagonal) / e0.numel(), rel=0.1)


def test_triples_are_fixed_and_clear_of_interactions() -> None:
    """The same seed draws the same negatives; none of them is an interaction of the user."""
    graph = random_graph()
    first, again = FixedTriples.draw(graph, 3, seed=4), FixedTriples.draw(graph, 3, seed=4)

    assert torch.equal(first.targets, again.targets)
    assert torch.equal(first.targets[:, 0], graph.edges[1].long())
    users = graph.edges[0].long().repeat_interleave(3)
    assert not graph.contains(torch.stack((users, first.targets[:, 1:].flatten()))).any()
    assert first.n_triples == 3 * graph.n_edges


def test_no_negatives_are_refused() -> None:
    with pytest.raises(ValueError, match="k_neg is 0"):
        FixedTriples.draw(random_graph(), 0)
