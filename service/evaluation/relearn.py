"""Relearn time: how soon a model that forgot knows the erased pairs again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from service.recommender.backbones import Backbone, Triples
from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.recommender.sampling import sample_negatives


@dataclass(frozen=True)
class RelearnConfig:
    """How the model is trained on."""

    max_steps: int = 200
    """Where it stops at the latest, >= 0."""
    batch_size: int = 4096
    """Interactions in a step, >= 2; at most half of them erased ones."""
    learning_rate: float = 1e-3
    """Of Adam; a fifth of the training's, so that the steps tell methods apart."""
    share: float = 0.99
    """Of the way back, in (0, 1]."""
    seed: int = 0


@dataclass(frozen=True)
class Relearnt:
    """`steps` that it took, `max_steps` where `reached` is false; `p` is the mean sigmoid before each step and after
    the last.
    """

    steps: int
    reached: bool
    p: tuple[float, ...]


def relearn(
    backbone: Backbone,
    e0: Tensor,
    graph: InteractionGraph,
    erased: Tensor,
    p_before: float,
    p_after: float = 0.0,
    config: RelearnConfig | None = None,
) -> Relearnt:
    """Counts steps of plain fine-tuning until the erased pairs' mean sigmoid is back (methods.md section 6.4).

    A model that only hides what it knows is back at once, with 0 steps where the edges alone bring it back; Retrain's
    count is the one to compare with. Each batch is half of erased pairs (all of them where they are fewer), half of
    random interactions.

    Args:
        backbone: whose loss is trained.
        e0: (n_nodes, d) layer 0 of the model that forgot; not changed.
        graph: with the erased edges added again.
        erased: (2, m) integer edges, all in `graph`.
        p_before: mean sigmoid of their scores when still known, in (0, 1).
        p_after: the same of the forgetting model: the start of the way back.
        config: of the fine-tuning.

    Raises:
        ValueError: e0 has another number of rows than the graph has nodes, or an edge is missing in the graph.

    Cost: a training step each step; the check costs nothing beyond the propagation.
    """
    if e0.shape[0] != graph.n_nodes:
        msg = f"e0 has {e0.shape[0]} rows; the graph has {graph.n_nodes} nodes."
        raise ValueError(msg)
    if not bool(graph.contains(erased).all()):
        msg = "Erased edges are missing in the graph; add them again first."
        raise ValueError(msg)
    config = config or RelearnConfig()
    generator = Generator(graph.device).manual_seed(config.seed)
    users, items = erased.long()
    target = p_after + config.share * (p_before - p_after)
    parameters = e0.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([parameters], lr=config.learning_rate)
    curve: list[float] = []
    with torch.enable_grad():
        for step in range(config.max_steps + 1):
            readout = backbone.propagate(parameters, graph)
            scores = pair_scores(readout.detach(), graph.n_users, users, items)
            curve.append(float(torch.sigmoid(scores.double()).mean()) if scores.numel() else p_before)
            if curve[-1] >= target or step == config.max_steps:
                break
            optimiser.zero_grad()
            loss = backbone.loss(parameters, graph, _batch(graph, erased, config, step, generator), readout)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return Relearnt(len(curve) - 1, curve[-1] >= target, tuple(curve))


def _batch(graph: InteractionGraph, erased: Tensor, config: RelearnConfig, step: int, generator: Generator) -> Triples:
    """Erased pairs and random interactions, each with a fresh negative."""
    half = config.batch_size // 2
    chosen = torch.randperm(erased.shape[1], generator=generator, device=graph.device)[:half]
    drawn = torch.randint(graph.n_edges, (half,), generator=generator, device=graph.device)
    users, positives = torch.cat((erased[:, chosen], graph.edges[:, drawn]), dim=1).long()
    negatives = sample_negatives(graph, users, generator)
    return Triples(users, positives, negatives, seed=config.seed + step)
