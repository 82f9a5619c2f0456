"""What the correction of mode `forget` is worth, by the shape of the request, on ML-100K: the development data set.

    EXPUNGE_DATA_DIR=... python -m benchmarks.shapes

Retraining (two seeds) is the measure: its mean change of the erased pairs' scores against that of swapping the graph,
of one amplification for all rows, and of the least disturbance: aimed at the quantiles of pairs like them, and at what
a shadow taught, which is what ships. In held-out standard deviations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.cells import cell, data_dir
from service.interactions.readers import read_dataset
from service.recommender.backbones import LightGCN
from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.recommender.sampling import occurrence, split_validation
from service.recommender.training import Training, TrainingConfig
from service.unlearning.amplification import fit_amplification, swap_graph
from service.unlearning.corrector import Corrector
from service.unlearning.pretraining import PretrainingConfig
from service.unlearning.request import UnlearningRequest
from service.unlearning.shadow import Shadow, learn_expectation
from service.unlearning.state import TrainedState

CONFIG = TrainingConfig(embedding_size=128, epochs=40, patience=5)
SEEDS = (1, 2)


def requests(graph: InteractionGraph, readout: Tensor) -> dict[str, Tensor]:
    """Requests of five shapes, about 1 % of the interactions or less; the readout tells which items are alike."""
    generator = torch.Generator().manual_seed(11)

    def of_users(pairs: int, users: int) -> Tensor:
        active = torch.nonzero(graph.user_degree >= 2 * pairs).flatten()
        chosen = active[torch.randperm(active.numel(), generator=generator)[:users]]
        edges = graph.edges_of_users(chosen)
        edges = edges[:, torch.randperm(edges.shape[1], generator=generator)]
        return graph.common(edges[:, occurrence(edges[0]) < pairs])

    def alike(pairs: int, users: int, degrees: tuple[int, int]) -> Tensor:
        fitting = (graph.user_degree >= degrees[0]) & (graph.user_degree <= degrees[1])
        chosen = torch.nonzero(fitting).flatten()
        chosen = chosen[torch.randperm(chosen.numel(), generator=generator)[:users]]
        items = torch.nn.functional.normalize(readout[graph.n_users :], dim=1)
        parts = []
        for user in chosen.tolist():
            own = graph.edges[1][graph.edges[0] == user].long()
            first = own[torch.randint(own.numel(), (1,), generator=generator)]
            nearest = own[torch.topk(items[own] @ items[first[0]], pairs).indices]
            parts.append(torch.stack((torch.full_like(nearest, user), nearest)))
        return torch.cat(parts, dim=1)

    scattered = graph.edges[:, torch.randperm(graph.n_edges, generator=generator)[: graph.n_edges // 100]]
    return {
        "1 % at random": graph.common(scattered),
        "10 of each of 60 users": of_users(10, 60),
        "30 of each of 25": of_users(30, 25),
        "10 alike of each of 40": graph.common(alike(10, 40, (60, 150))),
        "10 alike, about half of each of 30 accounts": graph.common(alike(10, 30, (18, 22))),
    }


def measure() -> dict[str, Any]:
    """Each shape: mean move, correlation with retraining's move, root mean square distance to retraining."""
    dataset = read_dataset(data_dir() / "ml-100k")
    full = InteractionGraph(len(dataset.users), len(dataset.items), torch.from_numpy(dataset.train.T.copy()))
    graph, validation = split_validation(full, 0.03, seed=0)
    backbone = LightGCN()

    def trained(on: InteractionGraph, seed: int) -> TrainedState:
        e0 = Training(backbone, on, validation, replace(CONFIG, seed=seed)).run().e0
        return TrainedState(on, validation, e0, backbone)

    state = trained(graph, 0)
    shadow = Shadow.train(state, CONFIG, PretrainingConfig().shadow_share, seed=0)
    quantiles = Corrector(state)
    shipped = Corrector(state, learn_expectation(state, shadow), quantiles.calibration)
    calibration = quantiles.calibration
    common = fit_amplification(state, calibration, seed=0)
    shapes = {}
    for name, edges in requests(graph, state.readout).items():
        remaining, request = graph.without(edges), UnlearningRequest.of(state, forget=edges)

        def scores(readout: Tensor, edges: Tensor = edges) -> Tensor:
            return pair_scores(readout, graph.n_users, edges[0], edges[1])

        before = scores(state.readout)
        retrained = torch.stack([scores(trained(remaining, seed).readout) for seed in SEEDS]).mean(dim=0)
        swapped = swap_graph(state, remaining)
        pairs = edges[:, remaining.keeps(edges)].long()
        aims = shipped.aims(swapped, remaining, pairs, "forget", edges.long())
        models = {
            "graph swap": scores(swapped),
            "one factor for all rows": scores(state.readout + common * (swapped - state.readout)),
            "least disturbance, quantiles": scores(
                swapped + quantiles.change(swapped, remaining, request, ("forget",))
            ),
            "least disturbance, shadow": scores(swapped + shipped.change(swapped, remaining, request, ("forget",))),
        }
        figures = {key: _figures(after, before, retrained, calibration.spread) for key, after in models.items()}
        wanted = aims - pair_scores(state.readout, graph.n_users, pairs[0], pairs[1])
        moves = {"retrain": float((retrained - before).mean()), "aim": float(wanted.mean())}
        shapes[name] = {"n": edges.shape[1], "methods": figures} | {
            key: value / calibration.spread for key, value in moves.items()
        }
    return {"amplification": common, "shadow_seconds": shadow.seconds, "seeds": list(SEEDS), "shapes": shapes}


def _figures(after: Tensor, before: Tensor, retrained: Tensor, spread: float) -> dict[str, float]:
    both = torch.stack((after - before, retrained - before))
    return {
        "moved": float((after - before).mean()) / spread,
        "correlation": float(torch.corrcoef(both)[0, 1]),
        "distance": float((after - retrained).square().mean().sqrt()) / spread,
    }


if __name__ == "__main__":
    print(cell("shapes-ml-100k", measure))
