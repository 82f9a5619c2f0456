"""What a forgotten pair should score: several ways to say it, against what retraining gives, on ML-100K.

    EXPUNGE_DATA_DIR=... python -m benchmarks.aims

The development data set: here the way that ships was chosen. 2 % of the pairs, three bases, six retrainings; for each
way the correlation of (aim - score in the base) with retraining's mean change, and the slope of the latter on the
former.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import mean
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.cells import cell, data_dir
from benchmarks.experiment import MODELS, recipe_of
from service.evaluation.model_cache import ModelCache
from service.evaluation.protocols import Split, scenario
from service.interactions.readers import read_dataset
from service.recommender.losses import pair_scores
from service.unlearning.amplification import fit_amplification, swap_graph
from service.unlearning.calibration import Calibration
from service.unlearning.corrector import Corrector
from service.unlearning.expectation import FEATURES, Expectation, PairFeatures
from service.unlearning.metric import ReadoutMetric
from service.unlearning.pretraining import PretrainingConfig
from service.unlearning.shadow import Shadow, learn_expectation
from service.unlearning.state import TrainedState

BASES: Final = (0, 1, 2)
RETRAINED: Final = range(6)
PROTOCOL: Final = "genuine_2pct"
SUBSETS: Final = {
    "shadow, score alone": 1,
    "shadow, scores with and without the edge": 2,
    "shadow, and degrees": 4,
    "shadow, and layer 0": 7,
    "shadow, all features": len(FEATURES),
}
"""Linear regressions on the first so many features."""
FEWER: Final = (50, 100, 200, 400, 800, 1_600)
"""Pairs of the shadow that a smaller base would have."""


def measure() -> dict[str, Any]:
    """By way: correlation and slope, a value for each base; and what retraining's own seeds allow."""
    recipe = recipe_of("ml-100k")
    split = Split.of(read_dataset(data_dir() / "ml-100k"))
    model_cache = ModelCache(MODELS)
    asked = scenario(PROTOCOL, split, lambda: split.train.edges)
    edges = asked.edges[:, asked.remaining.keeps(asked.edges)].long()
    models = [model_cache.retrained(split, asked, recipe.backbone, recipe.training, seed).state for seed in RETRAINED]
    retrained = torch.stack([_scores(model, model.readout, edges) for model in models])
    ways: dict[str, dict[str, list[float]]] = {}
    ceiling = []
    for seed in BASES:
        state = model_cache.clean(split, recipe.backbone, recipe.training, seed).state
        before = _scores(state, state.readout, edges)
        truth = retrained.mean(dim=0) - before
        for number, one in enumerate(retrained.unbind()):
            ceiling.append(_correlation(one - before, _others(retrained, number) - before))
        shadow = Shadow.train(state, recipe.training, PretrainingConfig().shadow_share, seed)
        for name, aims in _ways(state, asked.remaining, edges, shadow).items():
            way = ways.setdefault(name, {"correlation": [], "slope": []})
            way["correlation"].append(_correlation(aims - before, truth))
            way["slope"].append(_slope(truth, aims - before))
        print(f"  base {seed} done", flush=True)
    return {"pairs": edges.shape[1], "ceiling": mean(ceiling), "ways": ways}


def _ways(state: TrainedState, remaining: Any, edges: Tensor, shadow: Shadow) -> dict[str, Tensor]:
    swapped = swap_graph(state, remaining)
    calibration = Calibration.of(state)
    factor = fit_amplification(state, calibration, 0)
    features = PairFeatures(state, ReadoutMetric.of(state))
    without = state.graph.without(shadow.edges)
    known = features(swap_graph(state, without), without, shadow.edges, shadow.edges)
    wanted = features(swapped, remaining, edges, edges)

    def shipped(learnt_from: Shadow) -> Tensor:
        corrector = Corrector(state, learn_expectation(state, learnt_from, calibration), calibration)
        aims = corrector.aims(swapped, remaining, edges, "forget", edges)
        return _scores(state, swapped + corrector.meet(swapped, remaining, edges, aims), edges)

    return {
        "graph swap": _scores(state, swapped, edges),
        "one factor for all rows": _scores(state, torch.lerp(state.readout, swapped, factor), edges),
        "quantiles of held-out pairs like it": calibration.targets(state, edges),
        **{name: _linear(known[:, :count], shadow.scores)(wanted[:, :count]) for name, count in SUBSETS.items()},
        "shadow, all features and their products": Expectation.fit(known, shadow.scores)(wanted),
        "what ships: with level and correction": shipped(shadow),
        **{f"the same, learnt from {count} pairs": shipped(_fewer(shadow, count)) for count in FEWER},
    }


def _fewer(shadow: Shadow, count: int) -> Shadow:
    return replace(shadow, edges=shadow.edges[:, :count], scores=shadow.scores[:count])


def _linear(features: Tensor, scores: Tensor) -> Callable[[Tensor], Tensor]:
    middle, scale = features.mean(dim=0), features.std(dim=0)
    terms = ((features - middle) / scale).double()
    normal = terms.T @ terms + 1e-3 * terms.shape[0] * torch.eye(terms.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(normal, terms.T @ (scores - scores.mean()).double()).float()
    return lambda asked: ((asked - middle) / scale) @ weight + scores.mean()


def _scores(state: TrainedState, readout: Tensor, edges: Tensor) -> Tensor:
    return pair_scores(readout, state.graph.n_users, edges[0], edges[1])


def _others(rows: Tensor, but: int) -> Tensor:
    return rows[[number for number in range(rows.shape[0]) if number != but]].mean(dim=0)


def _correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((first, second)))[0, 1])


def _slope(truth: Tensor, moved: Tensor) -> float:
    centred = moved - moved.mean()
    return float((centred * (truth - truth.mean())).sum() / centred.square().sum())


if __name__ == "__main__":
    cell("aims-ml-100k", measure)
