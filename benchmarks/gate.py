"""How often the gate passes a bad version and holds a good one back, by the shape of the request.

    EXPUNGE_DATA_DIR=... python -m benchmarks.gate

Good versions are what the service makes of simulated requests; bad ones are the same, spoilt on purpose
(`service/evaluation/corruption.py`). Requests are drawn from the training edges by seed; the test part is not looked
at. Thresholds were chosen on these requests, drawn with other seeds; see docs/gate.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import torch
from torch import Generator, Tensor

from benchmarks.cells import cell, data_dir
from benchmarks.experiment import MODELS, encoders_of, recipe_of
from service.evaluation.corruption import CorruptionCase, corruptions
from service.evaluation.encoders import EncoderCache
from service.evaluation.gate import Gate
from service.evaluation.model_cache import ModelCache
from service.evaluation.protocols import Split
from service.interactions.readers import read_dataset
from service.recommender.graph import InteractionGraph
from service.unlearning.pretraining import PretrainingConfig
from service.unlearning.request import UnlearningRequest
from service.unlearning.simulation import share_of_pairs
from service.unlearning.state import TrainedState
from service.unlearning.unlearnrec import UnlearnRec

BASES: Final = {
    "ml-100k": ("ml-100k", "lightgcn", 8),
    "ml-1m": ("ml-1m", "lightgcn", 4),
    "ml-1m-simgcl": ("ml-1m", "simgcl", 4),
    "ml-1m-sgl": ("ml-1m", "sgl", 4),
}
"""By cell: data set, backbone, requests of each shape."""
SEED: Final = 4_242
FIGURES: Final = (
    *("forget_residual", "forget_reach", "recent_forget_residual", "recent_forget_reach"),
    *("quality_ratio", "drift"),
)

Draw = Callable[[InteractionGraph, Generator], Tensor]


def _pairs(count: int) -> Draw:
    def draw(graph: InteractionGraph, generator: Generator) -> Tensor:
        return graph.edges[:, torch.randperm(graph.n_edges, generator=generator)[:count]]

    return draw


def _of_one_user(graph: InteractionGraph, generator: Generator) -> Tensor:
    edges = graph.edges_of_users(_one(graph.user_degree >= 20, generator))
    return edges[:, torch.randperm(edges.shape[1], generator=generator)[:10]]


def _of_heavy_users(count: int) -> Draw:
    """Pairs of the tenth of the users who have most."""

    def draw(graph: InteractionGraph, generator: Generator) -> Tensor:
        edges = graph.edges_of_users(torch.topk(graph.user_degree, graph.n_users // 10).indices)
        return edges[:, torch.randperm(edges.shape[1], generator=generator)[:count]]

    return draw


def _half_of_one_user(graph: InteractionGraph, generator: Generator) -> Tensor:
    edges = graph.edges_of_users(_one(graph.user_degree >= 120, generator))
    return edges[:, torch.randperm(edges.shape[1], generator=generator)[: edges.shape[1] // 2]]


def _user(graph: InteractionGraph, generator: Generator) -> Tensor:
    return graph.edges_of_users(_one(graph.user_degree > 0, generator))


def _item(graph: InteractionGraph, generator: Generator) -> Tensor:
    return graph.edges_of_items(_one(graph.item_degree > 0, generator))


def _one(eligible: Tensor, generator: Generator) -> Tensor:
    rows = torch.nonzero(eligible).flatten()
    return rows[torch.randint(rows.numel(), (1,), generator=generator)]


REQUESTS: Final[dict[str, Draw]] = {
    "one pair": _pairs(1),
    "ten pairs": _pairs(10),
    "ten of one user": _of_one_user,
    "a whole user": _user,
    "a whole item": _item,
    "0.1 % of the pairs": share_of_pairs(0.001),
    "1 %": share_of_pairs(0.01),
    "2 %": share_of_pairs(0.02),
    "one pair of a heavy user": _of_heavy_users(1),
    "half of a heavy user": _half_of_one_user,
}
LAST_OF: Final[dict[str, Draw]] = {
    "the last of 512 single pairs": _pairs(512),
    "the last of 512 of heavy users": _of_heavy_users(512),
}
"""Requests that came one pair each: the batch is the last one, what the gate may judge by its score are all of them."""


def base(dataset: str, backbone: str) -> tuple[TrainedState, UnlearnRec]:
    """The base of the experiment (`benchmarks/grids`), and the method that the service ships, prepared for it."""
    recipe = recipe_of(dataset, backbone)
    split = Split.of(read_dataset(data_dir() / dataset))
    state = ModelCache(MODELS).clean(split, recipe.backbone, recipe.training).state
    encoder, _ = EncoderCache(encoders_of(dataset, backbone)).get(state, PretrainingConfig(), recipe.training)
    method = UnlearnRec({"forget": encoder})
    method.prepare(state)
    return state, method


def cases(state: TrainedState, method: UnlearnRec, draw: Draw, generator: Generator) -> Iterator[CorruptionCase]:
    """One request: the version that the service makes of it, and every way to spoil it."""
    request = UnlearningRequest.of(state, forget=state.graph.common(draw(state.graph, generator)))
    good = method.forget(state, request)
    yield CorruptionCase(request, good)
    for name, corrupt in corruptions(method).items():
        yield CorruptionCase(request, corrupt(state, request, good, generator), name)


def measure(name: str) -> dict[str, Any]:
    """Share of versions that the gate passes, by request and by how they were made, and the figures behind it."""
    dataset, backbone, draws = BASES[name]
    state, method = base(dataset, backbone)
    gate = Gate(state)
    shapes: dict[str, Any] = {}
    for shape, draw in (REQUESTS | LAST_OF).items():
        generator = Generator().manual_seed(SEED)
        passed: dict[str, list[bool]] = defaultdict(list)
        figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for _ in range(draws):
            for case in cases(state, method, draw, generator):
                batch = case.request
                if shape in LAST_OF:
                    batch = UnlearningRequest.of(state, forget=batch.forget[:, -1:])
                report = gate.check(batch, case.result, case.request, case.request)
                made = case.corruption or "good"
                passed[made].append(report.passed)
                for figure in FIGURES:
                    if figure in report.figures:
                        figures[made][figure].append(report.figures[figure])
        shapes[shape] = {
            made: {
                "n": len(outcomes),
                "passed": sum(outcomes) / len(outcomes),
                "figures": {figure: _spread(values) for figure, values in figures[made].items()},
            }
            for made, outcomes in passed.items()
        }
        held = 1 - shapes[shape]["good"]["passed"]
        print(f"  {name}, {shape}: {held:.0%} of the good held back", flush=True)
    return {"thresholds": gate.thresholds.__dict__, "draws": draws, "requests": shapes}


def _spread(values: list[float]) -> dict[str, float]:
    """Median, tenth and ninetieth percentile."""
    if len(values) < 2:
        return {"p10": values[0], "p50": values[0], "p90": values[0]}
    tenths = quantiles(values, n=10, method="inclusive")
    return {"p10": tenths[0], "p50": tenths[4], "p90": tenths[8]}


if __name__ == "__main__":
    for each, (dataset, *_) in BASES.items():
        if Path(data_dir() / dataset).is_dir():
            cell(f"gate-{each}", lambda each=each: measure(each))  # type: ignore[misc]
