"""The figures of `benchmarks/results/main.json`: from which cell each comes, how, and what it is to reach."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Value:
    """What was measured: the figure, how many measurements stand behind it, and everything beside it."""

    value: float
    n: int
    detail: dict[str, Any]


@dataclass(frozen=True)
class Target:
    """The bounds that a figure is to keep; None: no bound on that side."""

    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:
        """Whether a value keeps them."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def facts(self) -> dict[str, float]:
        """The bounds that there are."""
        bounds = {"at_least": self.at_least, "at_most": self.at_most}
        return {name: bound for name, bound in bounds.items() if bound is not None}


@dataclass(frozen=True)
class Figure:
    """One figure: the cell that it is read from, its unit, its target, and how it is read."""

    name: str
    cell: str
    unit: str
    target: Target
    read: Callable[[Cell], Value]


def _seeds(cell: Cell, key: str) -> dict[str, float]:
    """A figure of each retrained model, by seed."""
    prefix = "retrain_"
    return {name.removeprefix(prefix): cell[name][key] for name in sorted(cell) if name.startswith(prefix)}


def _beside(cell: Cell, key: str) -> dict[str, Any]:
    """The same figure of every other model of a comparison."""
    retrained = _seeds(cell, key)
    others = {name: cell[name][key] for name in ("before", "graph_swap", "published") if name in cell}
    spread = statistics.stdev(retrained.values()) if len(retrained) > 1 else 0.0
    mean = statistics.mean(retrained.values())
    facts = {"unlearned": cell["unlearned"][key], "retrain": retrained, "retrain_mean": mean, "retrain_sd": spread}
    bases = {"bases": {seed: each["unlearned"][key] for seed, each in cell["bases"].items()}} if "bases" in cell else {}
    return facts | others | bases | {"n_edges": cell["n_edges"]}


def _ratio(key: str, cell: Cell) -> Value:
    """Ours over the mean of the retrained ones."""
    detail = _beside(cell, key)
    mean = detail["retrain_mean"]
    detail["ratios"] = {
        name: detail[name] / mean for name in ("before", "graph_swap", "published") if name in detail
    } | {"retrain_sd": detail["retrain_sd"] / mean}
    return Value(detail["unlearned"] / mean, len(detail["retrain"]), detail)


def _auc_gap(cell: Cell) -> Value:
    detail = _beside(cell, "auc_heldout")
    mean = detail["retrain_mean"]
    detail["gaps"] = {name: detail[name] - mean for name in ("before", "graph_swap")}
    return Value(detail["unlearned"] - mean, len(detail["retrain"]), detail)


def _retrain_over_apply(cell: Cell) -> Value:
    seconds = cell["apply_adversarial_seconds"]
    real = cell["apply_genuine_seconds"]
    detail = {
        "retrain_seconds": cell["retrain_seconds"],
        "retrain_epochs": cell["epochs"],
        "apply_adversarial_median_seconds": statistics.median(seconds),
        "apply_adversarial_seconds": seconds,
        "apply_genuine_median_seconds": statistics.median(real),
        "apply_genuine_seconds": real,
        "retrain_over_apply_genuine": cell["retrain_seconds"] / statistics.median(real),
    }
    return Value(cell["retrain_seconds"] / statistics.median(seconds), len(seconds), detail)


def _forgotten(key: str, cell: Cell) -> Value:
    return Value(cell[key], cell["n"], {name: value for name, value in cell.items() if name != "n"})


def _over(reference: str, cell: Cell) -> Value:
    detail = {name: value for name, value in cell.items() if name not in ("n", "half_load")}
    return Value(cell["over"][reference], cell["n"], detail)


def _half_load(cell: Cell) -> Value:
    load = cell["half_load"]
    return Value(load["p99_ms"], load["n"], {name: value for name, value in load.items() if name != "n"})


def _memory(process: str, cell: Cell) -> Value:
    """The highest that the process ever had: what its limit must allow."""
    mine = {name: value for name, value in cell.items() if name.startswith(process)}
    return Value(cell[process]["peak_bytes"], 1, mine | {"pairs_at_once": cell["pairs_at_once"]})


def _train_quality(key: str, cell: Cell) -> Value:
    return Value(cell[key], 1, {"epochs": cell["epochs"], "dataset": "ml-1m", "embedding_size": 128})


def _train_seconds(cell: Cell) -> Value:
    return Value(cell["retrain_seconds"], 1, {"epochs": cell["epochs"], "epoch_seconds": cell["epoch_seconds"]})


def _receipt(cell: Cell) -> Value:
    detail = {name: value for name, value in cell.items() if name != "n"}
    return Value(cell["milliseconds"]["one_target"]["p50"], cell["n"], detail)


def _inclusion(cell: Cell) -> Value:
    return Value(cell["milliseconds"]["p50"], cell["n"], {name: value for name, value in cell.items() if name != "n"})


def _erased_over_training(cell: Cell) -> Value:
    """DELETE to `erased` over what the same command line needs to train and pre-train once."""
    once, erased = cell["train"]["seconds"], cell["erased"]
    whole = once["training"] + once["pretraining"]
    detail = {"train_seconds": once["training"], "pretrain_seconds": once["pretraining"], "dataset": cell["dataset"]}
    return Value(erased["seconds"] / whole, 1, detail | {"erased_seconds": erased["seconds"], "steps": erased["steps"]})


def _compacting_over_idle(kind: str, cell: Cell) -> Value:
    """The worse of the two: while it trains, and while it purges and searches."""
    idle, busy = cell["idle"][kind], {name: cell[name][kind] for name in ("training", "purging")}
    worst = max(each["p99_ms"] for each in busy.values())
    detail = {"idle": idle, **busy, "rates": [cell["recommendations_a_second"], cell["erasures_a_second"]]}
    return Value(worst / idle["p99_ms"], int(idle["n"]), detail)


NO_TARGET = Target()

FIGURES = (
    Figure("recall_ratio_adversarial", "adversarial", "ratio", Target(0.99), partial(_ratio, "recall_at_20")),
    Figure("ndcg_ratio_adversarial", "adversarial", "ratio", Target(0.99), partial(_ratio, "ndcg_at_20")),
    Figure("mi_bf_ratio_adversarial", "adversarial", "ratio", Target(0.5, 1.25), partial(_ratio, "mi_bf")),
    Figure("mi_ng_ratio_adversarial", "adversarial", "ratio", Target(0.5, 1.25), partial(_ratio, "mi_ng")),
    Figure("retrain_over_apply", "timings", "ratio", Target(1000.0), _retrain_over_apply),
    Figure("auc_gap_genuine", "genuine", "difference", Target(None, 0.01), _auc_gap),
    Figure("recall_ratio_genuine", "genuine", "ratio", Target(0.99), partial(_ratio, "recall_at_20")),
    Figure("forgotten_p50_s", "forgotten", "s", Target(None, 1.5), partial(_forgotten, "p50_s")),
    Figure("forgotten_p99_s", "forgotten", "s", Target(None, 4.0), partial(_forgotten, "p99_s")),
    Figure("accept_over_insert_endpoint", "accept", "ratio", Target(0.5), partial(_over, "insert")),
    Figure("recommend_over_fixed_endpoint", "recommend", "ratio", Target(0.5), partial(_over, "fixed")),
    Figure("recommend_p99_ms", "recommend", "ms", Target(None, 15.0), _half_load),
    Figure("rss_api_bytes", "rss", "bytes", Target(None, 250e6), partial(_memory, "api")),
    Figure("rss_worker_bytes", "rss", "bytes", Target(None, 1e9), partial(_memory, "worker")),
    Figure("train_recall_at_20", "training", "ratio", Target(0.224), partial(_train_quality, "recall_at_20")),
    Figure("train_ndcg_at_20", "training", "ratio", Target(0.345), partial(_train_quality, "ndcg_at_20")),
    Figure("erased_over_training", "compacting", "ratio", Target(None, 1.15), _erased_over_training),
    Figure(
        "recommend_p99_compacting_over_idle",
        "compacting",
        "ratio",
        Target(None, 2.0),
        partial(_compacting_over_idle, "recommend"),
    ),
    Figure(
        "accept_p99_compacting_over_idle",
        "compacting",
        "ratio",
        Target(None, 2.0),
        partial(_compacting_over_idle, "accept"),
    ),
    Figure("train_seconds", "timings", "s", NO_TARGET, _train_seconds),
    Figure("receipt_verify_ms", "receipt", "ms", Target(None, 10.0), _receipt),
    Figure("inclusion_proof_ms", "inclusion", "ms", Target(None, 5.0), _inclusion),
)
CELLS = tuple(dict.fromkeys(figure.cell for figure in FIGURES))


def document(
    machine: dict[str, Any], commit: str, stored: Callable[[str], Cell | None], provenance: Callable[[str], Cell]
) -> dict[str, Any]:
    """The content of main.json: every figure whose cell was measured, in the order of `FIGURES`.

    Args:
        machine: what this run is on.
        commit: what is checked out.
        stored: the result of a cell.
        provenance: when, where and at which commit it was measured.
    """
    figures: dict[str, Any] = {}
    for figure in FIGURES:
        cell = stored(figure.cell)
        if cell is None:
            continue
        read, measured = figure.read(cell), dict(provenance(figure.cell))
        if measured.get("machine") == machine:
            del measured["machine"]  # the document says it once
        detail = read.detail | {"target": figure.target.facts(), "measured": measured}
        figures[figure.name] = {"value": read.value, "unit": figure.unit, "n": read.n, "detail": detail}
    return {"machine": machine, "commit": commit, "figures": figures}
