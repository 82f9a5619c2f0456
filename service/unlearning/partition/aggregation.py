"""How the sub-models of a partition become one readout whose inner products are the aggregated scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from service.recommender.backbones.base import Backbone
from service.recommender.graph import InteractionGraph
from service.recommender.losses import bpr_loss, pair_scores
from service.recommender.ranking import ranking_quality
from service.recommender.sampling import batches, sample_negatives


def side_by_side(parts: Sequence[Tensor], weights: Tensor) -> Tensor:
    """K readouts as one: its scores are the weighted sums sum_k w_k y^k_ui.

    Args:
        parts: K tensors (n, d).
        weights: (K,) >= 0; each part is scaled by the root of its weight, once on either side of a score.

    Returns:
        (n, K d).
    """
    return torch.cat([part * root for part, root in zip(parts, weights.sqrt().tolist(), strict=True)], dim=1)


def uniform_weights(parts: Sequence[Tensor]) -> Tensor:
    """(K,) the weights of the mean."""
    return torch.full((len(parts),), 1 / len(parts), device=parts[0].device)


@dataclass(frozen=True)
class WeightConfig:
    """How GraphEraser's shard weights are learnt (LBAggr, methods.md section 5.3)."""

    triples: int = 10_000
    """Training interactions that are looked at, >= 1; each gets one negative."""
    steps: int = 200
    """Of Adam over all of them, K numbers."""
    learning_rate: float = 5e-2
    ridge: float = 1.0
    """Weight of |alpha|_2, which keeps the shards even."""


def fit_weights(readouts: Sequence[Tensor], graph: InteractionGraph, config: WeightConfig, seed: int) -> Tensor:
    """alpha = argmin mean softplus(-sum_k alpha_k (y^k_ui - y^k_uj)) + ridge |alpha|_2 over alpha >= 0, sum alpha = 1.

    Args:
        readouts: K tensors (n_nodes, d), constants.
        graph: interactions to learn from; none that is to be forgotten.
        config: settings.
        seed: decides which triples.

    Returns:
        (K,) float32.

    Cost: O(K d triples + K triples steps).
    """
    generator = torch.Generator(graph.device).manual_seed(seed)
    chosen = torch.randperm(graph.n_edges, generator=generator, device=graph.device)[: config.triples]
    users, items = graph.edges[:, chosen].long()
    others = sample_negatives(graph, users, generator)
    margins = [
        pair_scores(part, graph.n_users, users, items) - pair_scores(part, graph.n_users, users, others)
        for part in readouts
    ]
    margin = torch.stack(margins, dim=1)  # (triples, K)
    # A softmax keeps to the simplex; the published code clamps and renormalises after each step.
    logits = torch.zeros(len(readouts), device=graph.device, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=config.learning_rate)
    for _ in range(config.steps if graph.n_edges else 0):
        optimiser.zero_grad()
        alpha = torch.softmax(logits, dim=0)
        loss = softplus(-margin @ alpha).mean() + config.ridge * alpha.norm()
        loss.backward()
        optimiser.step()
    return torch.softmax(logits.detach(), dim=0)


@dataclass(frozen=True)
class AttentionConfig:
    """How RecEraser's aggregator is trained (methods.md section 5.2)."""

    learning_rate: float = 5e-3
    epochs: int = 10
    """At most so many; the paper's 50 are of steps with a fifth of this rate."""
    patience: int = 3
    """Stop after so many epochs in a row without a better validation NDCG, >= 1."""


class Attention:
    """For rows of one kind (users, or items): e' = W_k e^k + b_k, e = sum_k alpha_k e'^k.

    alpha = softmax_k(h . ReLU(A e'^k + a)), over the shards that know the row: elsewhere its vector is no information.
    W starts as the identity and alpha near even, so the first e is the mean.

    Shapes: vectors (K, n, d), known (K, n) bool -> weights (K, n), vectors (n, d).
    """

    def __init__(self, shards: int, size: int, generator: Generator, device: torch.device) -> None:
        hidden = max(1, size // 2)
        self.transform = torch.eye(size).repeat(shards, 1, 1).to(device)  # W^T, (K, d, d)
        self.offset = torch.zeros(shards, 1, size, device=device)  # b
        self.inner = (torch.randn(size, hidden, generator=generator) / size**0.5).to(device)  # A^T
        self.inner_offset = torch.zeros(hidden, device=device)  # a
        self.outer = torch.full((hidden,), 0.01, device=device)  # h

    @property
    def parameters(self) -> list[Tensor]:
        """All that is learnt."""
        return [self.transform, self.offset, self.inner, self.inner_offset, self.outer]

    def __call__(self, vectors: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """The weights and the aggregated vectors; a row that no shard knows gets an even mean that means nothing."""
        transformed = torch.baddbmm(self.offset, vectors, self.transform)  # (K, n, d)
        logits = torch.relu(transformed @ self.inner + self.inner_offset) @ self.outer  # (K, n)
        weights = torch.softmax(logits.masked_fill(~known, torch.finfo(logits.dtype).min), dim=0)
        return weights, (weights[..., None] * transformed).sum(dim=0)


def fit_attention(
    parts: Sequence[Tensor],
    known: Sequence[Tensor],
    backbone: Backbone,
    graph: InteractionGraph,
    validation: Tensor,
    config: AttentionConfig,
    batch_size: int,
    seed: int,
) -> Tensor:
    """RecEraser's aggregator from scratch: BPR on the readout of the aggregated layer-0 vectors.

    Args:
        parts: K tensors (n_nodes, d), layer 0 of the sub-models, constants.
        known: K tensors (n_nodes,) bool, the rows that each sub-model knows.
        backbone: propagates the aggregated vectors over the whole graph.
        graph: interactions to propagate over and learn from; none that is to be forgotten.
        validation: (2, k) held-out edges that decide which epoch counts; with none, the last.
        config: settings.
        batch_size: interactions in a step.
        seed: of the start and of the batches.

    Returns:
        (n_nodes, d) float32 aggregated layer-0 vectors.

    Cost: a step takes one propagation over the whole graph, O(N K d^2) time and O(N K d) memory.
    """
    vectors, flags = torch.stack(list(parts)), torch.stack(list(known))
    shards, _, size = vectors.shape
    users, items = slice(0, graph.n_users), slice(graph.n_users, None)
    start = torch.Generator().manual_seed(seed)
    generator = torch.Generator(graph.device).manual_seed(seed)
    of_users, of_items = (Attention(shards, size, start, vectors.device) for _ in range(2))
    learnt = [part.requires_grad_() for part in (*of_users.parameters, *of_items.parameters)]
    optimiser = torch.optim.Adam(learnt, lr=config.learning_rate)
    held_out = InteractionGraph(graph.n_users, graph.n_items, validation)

    def aggregated() -> Tensor:
        _, user_rows = of_users(vectors[:, users], flags[:, users])
        _, item_rows = of_items(vectors[:, items], flags[:, items])
        return torch.cat((user_rows, item_rows))

    with torch.no_grad():
        best, best_ndcg, waited = aggregated(), -1.0, 0
    for _ in range(config.epochs if graph.n_edges else 0):
        for batch in batches(graph, batch_size, generator):
            optimiser.zero_grad()
            loss = bpr_loss(backbone.propagate(aggregated(), graph), graph.n_users, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            e0 = aggregated()
            quality = ranking_quality(backbone.propagate(e0, graph), graph, held_out)
        waited += 1
        if quality.ndcg > best_ndcg or not quality.n_users:
            best, best_ndcg, waited = e0, quality.ndcg, 0
        if waited >= config.patience:
            break
    return best
