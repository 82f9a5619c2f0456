"""How well the model learns and forgets, on ML-1M: the figures about quality and membership.

    EXPUNGE_DATA_DIR=... python -m benchmarks.learning

Trained models are kept in .cache/benchmarks, figures in benchmarks/results/cells: a run that is cut off goes on where
it stopped. Nothing here chooses by looking at the test part: stopping and the choice of an encoder's checkpoint look at
the validation part and at simulated requests, and the settings below were fixed before the cells were measured.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cells import CACHE, cell, data_dir
from service.evaluation.adversarial import adversarial_edges
from service.evaluation.membership import MembershipProbe
from service.interactions.readers import read_dataset
from service.recommender.backbones import LightGCN
from service.recommender.graph import InteractionGraph
from service.recommender.ranking import ranking_quality
from service.recommender.sampling import split_validation
from service.recommender.training import Training, TrainingConfig
from service.unlearning.encoder import InfluenceEncoder
from service.unlearning.pretraining import Pretraining, PretrainingConfig
from service.unlearning.request import UnlearningRequest
from service.unlearning.simulation import SHAPES
from service.unlearning.state import TrainedState, zero_isolated
from service.unlearning.unlearnrec import UnlearnRec

BACKBONE = LightGCN(layers=3, readout="sum", weight_decay=1e-2)
RECIPE = TrainingConfig(embedding_size=128, batch_size=4096, learning_rate=5e-3, epochs=10, patience=3)
VALIDATION_SHARE = 0.02
SHARE = 0.01  # of the edges: adversarial ones added, genuine ones revoked
RETRAIN_SEEDS = (1, 2)
GENUINE_SEEDS = (1, 2, 3)
BASE_SEEDS = (0, 1, 2)
FORGET = PretrainingConfig(mode="forget")
DISLIKE = PretrainingConfig(mode="dislike")
# The published method: no correction, its own learning rate.
PUBLISHED = PretrainingConfig.published()


@cache
def graphs() -> tuple[InteractionGraph, InteractionGraph, Tensor, InteractionGraph]:
    """All interactions, those to train on, the validation edges, the test part."""
    dataset = read_dataset(data_dir() / "ml-1m")
    sizes = (len(dataset.users), len(dataset.items))
    full = InteractionGraph(*sizes, torch.from_numpy(dataset.train.T.copy()))
    test = InteractionGraph(*sizes, torch.from_numpy(dataset.test.T.copy()))
    train, validation = split_validation(full, VALIDATION_SHARE, seed=0)
    return full, train, validation, test


def trained(name: str, graph: InteractionGraph, seed: int) -> tuple[TrainedState, dict[str, Any]]:
    """A model trained on a graph, and how long it took; trained once and kept."""
    _, _, validation, _ = graphs()
    path = CACHE / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        run = Training(BACKBONE, graph, validation, replace(RECIPE, seed=seed))
        result = run.run(lambda epoch: print(f"  {name}: epoch {epoch.epoch}, {epoch.seconds:.0f} s", flush=True))
        seconds = np.array([epoch.seconds for epoch in result.history])
        np.savez(path, e0=result.e0.numpy(), seconds=seconds, best_epoch=result.best_epoch)
    with np.load(path) as stored:
        state = TrainedState(graph, validation, torch.from_numpy(stored["e0"]), BACKBONE)
        facts = {"seconds": float(stored["seconds"].sum()), "epochs": len(stored["seconds"])}
    return state, facts


def ranked(readout: Tensor) -> dict[str, float]:
    """Recall and NDCG at 20 on the test part; every known interaction is masked, the revoked ones too."""
    full, _, _, test = graphs()
    quality = ranking_quality(readout, full, test)
    return {"recall_at_20": quality.recall, "ndcg_at_20": quality.ndcg}


def base(seed: int = 0) -> TrainedState:
    """A model of all interactions."""
    return trained(f"clean-{seed}", graphs()[1], seed)[0]


def attacked_graph() -> tuple[InteractionGraph, Tensor]:
    """The training graph with adversarial edges added, and those edges."""
    full, train, _, test = graphs()
    edges = adversarial_edges(base().readout, train, SHARE, seed=0)
    edges = edges[:, ~full.contains(edges) & ~test.contains(edges)]
    return InteractionGraph(train.n_users, train.n_items, torch.cat((train.edges, edges), dim=1)), edges


def genuine_edges() -> Tensor:
    """A random share of the real training edges."""
    train = graphs()[1]
    order = torch.randperm(train.n_edges, generator=torch.Generator().manual_seed(5))
    return train.edges[:, order[: round(SHARE * train.n_edges)]]


def encoder(name: str, state: TrainedState, config: PretrainingConfig) -> tuple[InfluenceEncoder, dict[str, Any]]:
    """An encoder pre-trained for a base; pre-trained once and kept."""
    path = CACHE / f"{name}.npz"

    def measure() -> dict[str, Any]:
        result = Pretraining(state, config, RECIPE).run(
            lambda at: print(f"  {name}: step {at.step}", flush=True) if at.judgement else None
        )
        tensors: dict[str, Any] = {key: tensor.numpy() for key, tensor in result.encoder.tensors().items()}
        np.savez(path, **tensors)
        return {
            "config": result.encoder.facts(),
            "chosen_step": result.steps,
            "steps": config.steps,
            "seconds": result.seconds,
            "shadow_seconds": result.shadow_seconds,
            "history": [{"step": step, **asdict(judgement)} for step, judgement in result.history],
        }

    facts = cell(name, measure, beside=path)
    with np.load(path) as stored:
        tensors = {key: torch.from_numpy(stored[key]) for key in stored.files}
    return InfluenceEncoder.from_tensors(facts["config"], tensors), facts


def compared(
    state: TrainedState, request: UnlearningRequest, retrained: dict[int, Tensor], methods: dict[str, UnlearnRec]
) -> dict[str, Any]:
    """Every figure of before, retrained (a seed each), swapped graph, and the methods."""
    full, _, _, test = graphs()
    probe = MembershipProbe.of(full, request.edges, test.edges)
    with torch.no_grad():
        remaining = state.graph.without(request.edges)
        swap = zero_isolated(state.backbone.propagate(state.e0, remaining), remaining)
    models = {"before": state.readout, "graph_swap": swap}
    models |= {name: method.forget(state, request).readout for name, method in methods.items()}
    models |= {f"retrain_{seed}": readout for seed, readout in retrained.items()}
    return {
        name: ranked(readout) | asdict(probe.measure(readout, state.readout)) for name, readout in models.items()
    } | {"n_edges": request.n_edges}


def apply_seconds(state: TrainedState, request: UnlearningRequest, method: UnlearnRec, times: int = 7) -> list[float]:
    """Seconds of `forget`, encoder and propagation and the rebuilding of the graph included, each of several runs."""
    method.prepare(state)
    seconds = []
    for _ in range(times + 1):
        started = time.perf_counter()
        method.forget(state, request)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]  # the first warms up


def adversarial() -> dict[str, Any]:
    """1 % adversarial edges, encoder only, mode `dislike` (the published loss)."""

    def measure() -> dict[str, Any]:
        train = graphs()[1]
        attacked, edges = attacked_graph()
        state, _ = trained("attacked-0", attacked, 0)
        retrained = {seed: trained(f"clean-{seed}", train, seed)[0].readout for seed in RETRAIN_SEEDS}
        methods = {
            "unlearned": UnlearnRec({"dislike": encoder("encoder-dislike", state, DISLIKE)[0]}),
            "published": UnlearnRec({"dislike": encoder("encoder-published", state, PUBLISHED)[0]}),
        }
        return compared(state, UnlearningRequest.of(state, dislike=edges), retrained, methods)

    return cell("adversarial", measure)


def genuine() -> dict[str, Any]:
    """1 % real edges, encoder only, mode `forget`, from several bases: one base's seed noise is as large as the effect.

    `before`, `graph_swap` and `unlearned` are means over the bases; `bases` has each.
    """

    def measure() -> dict[str, Any]:
        edges, bases = genuine_edges(), {}
        remaining = graphs()[1].without(edges)
        retrained = {seed: trained(f"genuine-{seed}", remaining, seed)[0].readout for seed in GENUINE_SEEDS}
        for seed in BASE_SEEDS:
            state = base(seed)
            name = "encoder-forget" if seed == 0 else f"encoder-forget-{seed}"
            methods = {"unlearned": UnlearnRec({"forget": encoder(name, state, FORGET)[0]})}
            bases[str(seed)] = compared(state, UnlearningRequest.of(state, forget=edges), retrained, methods)
        return averaged(bases) | {"bases": bases}

    return cell("genuine", measure)


def averaged(bases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The mean over bases of every figure of every model."""
    first = next(iter(bases.values()))
    models = [name for name, figures in first.items() if isinstance(figures, dict)]
    means = {
        name: {key: statistics.mean(each[name][key] for each in bases.values()) for key in first[name]}
        for name in models
    }
    return means | {"n_edges": first["n_edges"]}


def timings() -> dict[str, Any]:
    """Seconds of one retraining and of applying both requests, measured in one go on a quiet machine."""

    def measure() -> dict[str, Any]:
        state, edges = base(), genuine_edges()
        attacked, added = attacked_graph()
        poisoned, _ = trained("attacked-0", attacked, 0)
        validation = graphs()[2]
        run = Training(BACKBONE, graphs()[1], validation, replace(RECIPE, seed=4)).run()
        dislike = UnlearnRec({"dislike": encoder("encoder-dislike", poisoned, DISLIKE)[0]})
        forget = UnlearnRec({"forget": encoder("encoder-forget", state, FORGET)[0]})
        return {
            "retrain_seconds": run.seconds,
            "epochs": run.epochs,
            "epoch_seconds": statistics.median(epoch.seconds for epoch in run.history),
            "apply_adversarial_seconds": apply_seconds(
                poisoned, UnlearningRequest.of(poisoned, dislike=added), dislike
            ),
            "apply_genuine_seconds": apply_seconds(state, UnlearningRequest.of(state, forget=edges), forget),
        }

    return cell("timings", measure)


def training() -> dict[str, Any]:
    """Quality of the base on the test part."""

    def measure() -> dict[str, Any]:
        state, facts = trained("clean-0", graphs()[1], 0)
        return ranked(state.readout) | {"epochs": facts["epochs"], "shapes": sorted(SHAPES)}

    return cell("training", measure)


if __name__ == "__main__":
    print(training())
    print(adversarial())
    print(genuine())
