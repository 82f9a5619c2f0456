"""SGL's and SimGCL's views, and the contrast between them, against implementations that spare no cost."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from service.recommender.backbones import SGL, LightGCN, SimGCL, Triples
from service.recommender.graph import InteractionGraph
from service.recommender.losses import bpr_loss, info_nce, l2_loss, view_contrast
from service.recommender.sampling import batches
from tests.unit.learning import dense_adjacency, random_graph

WIDTH = 5


def embeddings(graph: InteractionGraph, seed: int = 0) -> Tensor:
    return torch.randn(graph.n_nodes, WIDTH, generator=torch.Generator().manual_seed(seed))


def a_batch(graph: InteractionGraph, seed: int = 0) -> Triples:
    return next(batches(graph, 16, torch.Generator().manual_seed(seed)))


def gradient(loss: Tensor, e0: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, e0)
    return found


def naive_contrast(first: Tensor, second: Tensor, n_users: int, batch: Triples, temperature: float) -> Tensor:
    """A node at a time: -log of the softmax of its cosines at itself, users and positive items apart."""
    total = torch.zeros(())
    for nodes in (batch.users.tolist(), (batch.positives + n_users).tolist()):
        losses = []
        for node in sorted(set(nodes)):
            cosines = [torch.cosine_similarity(first[node], second[other], dim=0) for other in sorted(set(nodes))]
            own = torch.cosine_similarity(first[node], second[node], dim=0)
            losses.append(torch.logsumexp(torch.stack(cosines) / temperature, dim=0) - own / temperature)
        total = total + torch.stack(losses).mean()
    return total


def test_info_nce_prefers_a_row_s_own_counterpart() -> None:
    """Its value is the formula's; equal views of orthogonal rows are nearly free, swapped ones are dear."""
    first, second = torch.randn(2, 7, WIDTH, generator=torch.Generator().manual_seed(1)).unbind()
    rows = [-torch.log_softmax(torch.cosine_similarity(first[row][None], second) / 0.3, dim=0)[row] for row in range(7)]
    torch.testing.assert_close(info_nce(first, second, 0.3), torch.stack(rows).mean())

    basis = torch.eye(4)
    assert info_nce(basis, 3 * basis, 0.1) < 1e-3
    assert info_nce(basis, basis.roll(1, dims=0), 0.1) > 9


def test_the_contrast_looks_at_each_node_of_the_first_interactions_once() -> None:
    graph = random_graph()
    first, second, batch = embeddings(graph, 1), embeddings(graph, 2), a_batch(graph)

    whole = view_contrast(first, second, graph.n_users, batch, 1_000, 0.2)
    some = view_contrast(first, second, graph.n_users, batch, 6, 0.2)

    torch.testing.assert_close(whole, naive_contrast(first, second, graph.n_users, batch, 0.2))
    head = Triples(batch.users[:6], batch.positives[:6], batch.negatives[:6])
    torch.testing.assert_close(some, naive_contrast(first, second, graph.n_users, head, 0.2))


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_thinned_adjacency_is_that_of_the_thinned_graph(share: float) -> None:
    graph = random_graph()
    keep = torch.rand(graph.n_edges, generator=torch.Generator().manual_seed(3)) >= share

    thinned = graph.thinned(keep)

    remaining = graph.without(graph.edges[:, ~keep])
    torch.testing.assert_close(thinned.to_dense(), remaining.adjacency.to_dense())
    torch.testing.assert_close(thinned.to_dense(), dense_adjacency(remaining))


def naive_sgl(backbone: SGL, e0: Tensor, graph: InteractionGraph, batch: Triples) -> Tensor:
    """The loss on two graphs that really lack the edges."""
    generator, views = torch.Generator().manual_seed(batch.seed), []
    for _ in range(2):
        dropped = torch.rand(graph.n_edges, generator=generator) < backbone.drop
        s = dense_adjacency(graph.without(graph.edges[:, dropped]))
        views.append(sum(torch.linalg.matrix_power(s, power) @ e0 for power in range(backbone.layers + 1)))
    contrast = naive_contrast(views[0], views[1], graph.n_users, batch, backbone.temperature)
    main = LightGCN(backbone.layers, backbone.readout, backbone.weight_decay).loss(e0, graph, batch)
    return main + backbone.contrast_weight * contrast


@pytest.mark.parametrize("readout", ["sum", "mean"])
def test_sgl_is_lightgcn_plus_the_contrast_of_two_thinned_graphs(readout: str) -> None:
    """Loss and gradient."""
    backbone = SGL(layers=2, readout=readout, drop=0.3, contrast_weight=0.5)  # type: ignore[arg-type]
    graph = random_graph()
    e0, batch = embeddings(graph).requires_grad_(), a_batch(graph)

    ours, naive = backbone.loss(e0, graph, batch), naive_sgl(backbone, e0, graph, batch)

    torch.testing.assert_close(ours, naive)
    torch.testing.assert_close(gradient(ours, e0), gradient(naive, e0), atol=1e-5, rtol=1e-4)


def test_sgl_draws_two_views_a_batch_and_none_where_nothing_is_dropped() -> None:
    """Without drop both views are the graph itself, and the seed of a batch does not matter."""
    graph = random_graph()
    e0, batch = embeddings(graph), a_batch(graph)
    other = replace(batch, seed=batch.seed + 1)
    thinning, whole = SGL(drop=0.3, contrast_weight=1.0), SGL(drop=0.0, contrast_weight=1.0)

    readout = whole.propagate(e0, graph)
    same = view_contrast(readout, readout, graph.n_users, batch, 1_000, whole.temperature)

    expected = LightGCN().loss(e0, graph, batch) + same
    torch.testing.assert_close(whole.loss(e0, graph, batch), expected)
    assert torch.equal(whole.loss(e0, graph, batch), whole.loss(e0, graph, other))
    assert not torch.equal(thinning.loss(e0, graph, batch), thinning.loss(e0, graph, other))


def naive_simgcl(backbone: SimGCL, e0: Tensor, graph: InteractionGraph, batch: Triples) -> Tensor:
    """Two noisy propagations, each with a backward of its own, layer by layer as the paper writes them."""
    s, generator = dense_adjacency(graph), torch.Generator().manual_seed(batch.seed)
    states, sums = [e0, e0], [torch.zeros_like(e0), torch.zeros_like(e0)]
    for _ in range(backbone.layers):
        uniform = torch.rand((graph.n_nodes, 2, WIDTH), generator=generator)
        for view in range(2):
            propagated = s @ states[view]
            states[view] = propagated + backbone.noise * propagated.sign() * normalize(uniform[:, view], dim=-1)
            sums[view] = sums[view] + states[view]
    readout = sum(torch.linalg.matrix_power(s, power) @ e0 for power in range(1, backbone.layers + 1))
    if backbone.readout == "mean":
        readout = readout / backbone.layers
    ranking = bpr_loss(readout, graph.n_users, batch) + backbone.weight_decay * l2_loss(e0, graph.n_users, batch)
    contrast = naive_contrast(sums[0], sums[1], graph.n_users, batch, backbone.temperature)
    return ranking + backbone.contrast_weight * contrast


@pytest.mark.parametrize("readout", ["sum", "mean"])
@pytest.mark.parametrize("layers", [1, 3])
def test_simgcl_is_the_paper_s_two_noisy_propagations(readout: str, layers: int) -> None:
    """Loss and gradient, though the views share one backward."""
    backbone = SimGCL(layers, readout, noise=0.3, contrast_weight=0.5)  # type: ignore[arg-type]
    graph = random_graph()
    e0, batch = embeddings(graph).requires_grad_(), a_batch(graph)

    ours, naive = backbone.loss(e0, graph, batch), naive_simgcl(backbone, e0, graph, batch)

    torch.testing.assert_close(ours, naive, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient(ours, e0), gradient(naive, e0), atol=1e-5, rtol=1e-4)


def test_simgcl_without_noise_contrasts_the_clean_readout_with_itself() -> None:
    graph = random_graph()
    e0, batch = embeddings(graph), a_batch(graph)
    quiet = SimGCL(noise=0.0, contrast_weight=1.0)
    readout = quiet.propagate(e0, graph)

    expected = bpr_loss(readout, graph.n_users, batch) + quiet.weight_decay * l2_loss(e0, graph.n_users, batch)
    expected = expected + view_contrast(readout, readout, graph.n_users, batch, 1_000, quiet.temperature)

    torch.testing.assert_close(quiet.loss(e0, graph, batch), expected)
    other = replace(batch, seed=batch.seed + 1)
    assert not torch.equal(SimGCL().loss(e0, graph, batch), SimGCL().loss(e0, graph, other))
