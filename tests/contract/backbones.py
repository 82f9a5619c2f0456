"""What every backbone must keep, built in or a user's own: one function a clause."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from service.recommender.backbones import Backbone, Triples, make_backbone
from service.recommender.graph import InteractionGraph
from service.recommender.ranking import ranking_quality
from service.recommender.sampling import batches, split_validation
from service.recommender.training import Training, TrainingConfig
from tests.unit.learning import blocks, dense_adjacency, random_graph

WIDTH = 6
CPU = torch.device("cpu")
Operator = Callable[[Tensor, Backbone], Tensor]


@dataclass(frozen=True)
class Case:
    """A backbone, its options, and its propagation by the book: a dense matrix made of the dense S."""

    config: dict[str, Any]
    operator: Operator
    recall: float = 0.9

    @property
    def backbone(self) -> Backbone:
        return make_backbone(self.config)


def layer_sum(first: int, layers: int) -> Operator:
    """sum_{l = first..layers} S^l."""
    return lambda s, _: sum((torch.linalg.matrix_power(s, power) for power in range(first, layers + 1)), 0 * s)


def layer_mean(first: int, layers: int) -> Operator:
    """The mean of S^l over the same layers."""
    return lambda s, backbone: layer_sum(first, layers)(s, backbone) / (layers + 1 - first)


def with_isolated_rows() -> InteractionGraph:
    """A random graph in which user 3 and item 5 have nothing."""
    graph = random_graph()
    gone = (graph.edges_of_users(torch.tensor([3])), graph.edges_of_items(torch.tensor([5])))
    return graph.without(torch.cat(gone, dim=1))


def embeddings(graph: InteractionGraph, seed: int = 0) -> Tensor:
    return torch.randn(graph.n_nodes, WIDTH, generator=torch.Generator().manual_seed(seed))


def a_batch(graph: InteractionGraph, seed: int = 0) -> Triples:
    return next(batches(graph, 16, torch.Generator().manual_seed(seed)))


def propagates_by_the_book(case: Case) -> None:
    """Values, linearity and symmetry, in graphs with isolated rows too."""
    backbone = case.backbone
    for graph in (random_graph(), with_isolated_rows()):
        a, b = embeddings(graph, 1), embeddings(graph, 2)
        pa, pb = backbone.propagate(a, graph), backbone.propagate(b, graph)
        book = case.operator(dense_adjacency(graph), backbone)
        torch.testing.assert_close(pa, book @ a, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(backbone.propagate(2 * a - 3 * b, graph), 2 * pa - 3 * pb, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close((a * pb).sum(), (pa * b).sum(), atol=1e-4, rtol=1e-4)


def isolated_rows_touch_nobody(case: Case) -> None:
    """What stands in layer 0 of a row without an interaction reaches no other row, and its readout no other's."""
    graph, backbone = with_isolated_rows(), case.backbone
    isolated = graph.degree == 0
    assert bool(isolated[[3, graph.n_users + 5]].all())
    e0 = embeddings(graph)
    other = torch.where(isolated[:, None], e0 + 100, e0)
    assert torch.equal(backbone.propagate(e0, graph)[~isolated], backbone.propagate(other, graph)[~isolated])
    # A row's own readout is at most a multiple of its own layer 0.
    readout = backbone.propagate(e0, graph)[isolated]
    torch.testing.assert_close(
        readout, case.operator(dense_adjacency(graph), backbone).diagonal()[isolated, None] * e0[isolated]
    )


def gradient_is_the_operator(case: Case) -> None:
    """d <c, P e0> / d e0 = P c, P being symmetric."""
    graph, backbone = random_graph(), case.backbone
    e0, c = embeddings(graph, 1).requires_grad_(), embeddings(graph, 2)
    (backbone.propagate(e0, graph) * c).sum().backward()
    assert e0.grad is not None
    torch.testing.assert_close(e0.grad, backbone.propagate(c, graph), atol=1e-5, rtol=1e-5)


def readout_is_the_callers_own(case: Case) -> None:
    """Who writes to a readout must not change the base's layer 0."""
    graph = random_graph()
    e0 = embeddings(graph)
    before = e0.clone()
    with torch.no_grad():
        case.backbone.propagate(e0, graph).add_(1)
    assert torch.equal(e0, before)


def loss_is_a_function_of_the_batch(case: Case) -> None:
    """A finite scalar, the same for the same batch, with or without a readout at hand; its gradient points uphill."""
    graph, backbone = random_graph(), case.backbone
    e0, batch = embeddings(graph).mul(0.3).requires_grad_(), a_batch(graph)
    loss = backbone.loss(e0, graph, batch)
    loss.backward()
    assert loss.shape == ()
    assert bool(torch.isfinite(loss))
    assert e0.grad is not None
    assert bool(torch.isfinite(e0.grad).all())
    with torch.no_grad():
        assert torch.equal(backbone.loss(e0, graph, batch), loss)
        given = backbone.loss(e0, graph, batch, backbone.propagate(e0, graph))
        torch.testing.assert_close(given, loss.detach())
        downhill = e0 - 1e-2 * e0.grad / e0.grad.norm()
        assert backbone.loss(downhill, graph, batch) < loss


def config_builds_it_again(case: Case) -> None:
    """Plain values, all options, the name first."""
    backbone = case.backbone
    config = backbone.config()
    assert isinstance(backbone, Backbone)
    assert config["name"] == backbone.name == case.config["name"]
    assert make_backbone(config) == backbone
    assert config.items() >= case.config.items()


def works_without_interactions(case: Case) -> None:
    """An empty graph, and one with no nodes, propagate without an error; layer 0 may stay, nothing is mixed in."""
    backbone = case.backbone
    for n_users, n_items in ((4, 3), (0, 0)):
        graph = InteractionGraph(n_users, n_items, torch.zeros(2, 0, dtype=torch.long))
        e0 = embeddings(graph)
        book = case.operator(dense_adjacency(graph), backbone)
        torch.testing.assert_close(backbone.propagate(e0, graph), book @ e0)


def training_learns_communities(case: Case) -> None:
    """Held-out interactions rank far above chance, and above what propagation alone does for random embeddings."""
    graph, validation = split_validation(blocks(), 0.15, seed=0)
    settings = TrainingConfig(embedding_size=16, batch_size=512, learning_rate=2e-2, epochs=12, patience=12)
    run = Training(case.backbone, graph, validation, settings, CPU)
    untrained = run.quality()
    result = run.run()
    held_out = InteractionGraph(graph.n_users, graph.n_items, validation)
    trained = ranking_quality(case.backbone.propagate(result.e0, graph), graph, held_out)
    assert trained.recall > max(case.recall, untrained.recall), (untrained, trained)


CLAUSES = (
    propagates_by_the_book,
    isolated_rows_touch_nobody,
    gradient_is_the_operator,
    readout_is_the_callers_own,
    loss_is_a_function_of_the_batch,
    config_builds_it_again,
    works_without_interactions,
    training_learns_communities,
)
