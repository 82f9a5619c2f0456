"""Cells as the runner writes them, with figures that are known."""

import json
from pathlib import Path
from typing import Any

METHODS = {
    # method: p of erased pairs, JS over floor, slope, seconds, MB
    "retrain": (0.70, 1.00, 1.00, 200.0, 900),
    "none": (0.95, 0.98, 0.00, 0.0, 0),
    "graph_swap": (0.90, 0.97, 3.00, 0.1, 100),
    "amplified_swap": (0.72, 0.99, 1.10, 0.2, 120),
    "expunge": (0.71, 1.01, 1.05, 0.15, 150),
    "unlearnrec_0": (0.85, 1.02, 2.50, 0.12, 160),
    "unlearnrec_3": (0.60, 1.30, 0.60, 12.0, 700),
    "gif": (0.93, 1.20, 4.00, 9.0, 800),
    "gif_cg": (0.92, 1.15, 3.50, 8.0, 800),
    "receraser": (0.75, 2.50, 0.40, 120.0, 2500),
    "ease_exact": (0.70, None, None, 1.5, 400),
}
EDGES = [-4.0, -2.0, 0.0, 2.0, 4.0]


def cell(
    method: str = "expunge",
    seed: int = 0,
    *,
    dataset: str = "ml-1m",
    backbone: str = "lightgcn",
    protocol: str = "genuine_1pct",
    device: str = "cpu",
) -> dict[str, Any]:
    """One cell; figures move by .001 with the seed."""
    p, js, slope, seconds, megabytes = METHODS[method]
    shift = 0.001 * seed
    compared = js is not None
    quality = {"recall_at_20": 0.23 + shift, "ndcg_at_20": 0.35 + shift, "n_users": 6000}
    distances = {
        f"{kind}_{what}": value
        for kind in ("js", "activation", "overlap")
        for what, value in (("to_retrain", 0.01 * js if js else None), ("floor", 0.01), ("none", 0.0098))
    }
    return {
        "dataset": dataset,
        "backbone": "none" if method == "ease_exact" else backbone,
        "method": method,
        "protocol": protocol,
        "seed": seed,
        "device": device,
        "n_erased": 8000,
        "n_requests": 1,
        "quality": dict.fromkeys(("overall", "touched", "one_hop", "rest"), quality),
        "membership": {
            "auc_heldout": 0.5 + (p - 0.7) / 5 + shift,
            "auc_matched": 0.5,
            "auc_attacker": None,
            "p_erased": p,
            "p_erased_before": 0.95,
            "p_heldout": 0.7,
            "p_negative": 0.4,
            "p_kept": 0.96,
            "mi_bf": 0.95 / p,
            "mi_ng": 0.4 / p,
        },
        "distances": dict.fromkeys(("touched", "one_hop", "rest"), distances) if compared else None,
        "fidelity": {"slope": slope, "correlation": None if slope is None else 1 / (1 + abs(slope - 1))},
        "relearn_steps": None,
        "seconds": {"request": seconds, "oneoff": 3.0, "train": 210.0, "steps": {}},
        "peak_memory_bytes": megabytes * 1_000_000,
        "memory": {"request": megabytes * 1_000_000, "oneoff": None, "train": 900_000_000},
        "histograms": {
            "edges": EDGES,
            "before": {"erased": [0, 1, 5, 9], "kept": [0, 1, 5, 9], "negative": [5, 5, 1, 0]},
            "after": {"erased": [1, 4, 6, 4], "kept": [0, 1, 5, 9], "negative": [5, 5, 1, 0]},
        },
        "report": {},
        "_measured": {"at": "2026-11-21T10:00:00+00:00", "commit": "0123456789", "machine": "Linux", "seconds": 1.0},
    }


def stream_cell(method: str, seed: int) -> dict[str, Any]:
    """A cell of the stream: two measurements a way of applying it, the last batch half as slow again as the first."""
    points = [
        {"batch": 20, "share": 0.1, "recall_at_20": 0.23, "ndcg_at_20": 0.35, "auc_heldout": 0.51, "seconds": 0.1},
        {"batch": 200, "share": 1.0, "recall_at_20": 0.2295, "ndcg_at_20": 0.35, "auc_heldout": 0.5, "seconds": 0.15},
    ]
    seconds = {mode: {"first_tenth": 0.1, "last_tenth": 0.15} for mode in ("cumulative", "stepwise")}
    stream = {"cumulative": points, "stepwise": points, "seconds": seconds}
    return cell(method, seed, protocol="stream") | {"stream": stream}


def write(folder: Path, *cells: dict[str, Any]) -> None:
    """Puts cells where the runner puts them."""
    for each in cells:
        name = f"{each['method']}-{each['seed']}.json"
        path = folder / each["dataset"] / each["backbone"] / each["protocol"] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(each))


def write_experiment(folder: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """A small experiment: two backbones, three protocols of pairs and a stream."""
    for backbone in ("lightgcn", "simgcl"):
        for protocol in ("genuine_1pct", "genuine_2pct", "adversarial"):
            for method in METHODS:
                write(folder, *(cell(method, seed, backbone=backbone, protocol=protocol) for seed in seeds))
    write(folder, *(stream_cell(method, seed) for method in ("expunge", "graph_swap") for seed in seeds))
