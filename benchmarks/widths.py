"""Which width of the embeddings, and which batch and course of the learning rate, by size of the data.

    EXPUNGE_DATA_DIR=... python -m benchmarks.widths ml-100k [ml-1m ...]

Trains LightGCN as `expunge train` does, with its split, for every setting and several seeds, and writes
benchmarks/results/widths/<data set>.json after each training: a run that is cut off goes on where it stopped. The
validation part alone judges; the test part is not even read. What came out is the rule of
service/recommender/defaults.py.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import asdict, replace
from typing import Any

import torch

from benchmarks.cells import RESULTS, commit, data_dir, machine, write_json
from service.interactions.readers import read_dataset
from service.recommender.backbones import LightGCN
from service.recommender.graph import InteractionGraph
from service.recommender.sampling import split_validation
from service.recommender.training import Training, TrainingConfig
from service.worker.training import BaseConfig

LEVEL = TrainingConfig(embedding_size=128, batch_size=4096, learning_rate=5e-3, final_learning_rate=5e-3)
FALLING = replace(LEVEL, batch_size=2048, final_learning_rate=1e-3)
"""Half the batch, and the rate falls to a fifth over 40 epochs."""

Settings = dict[str, tuple[TrainingConfig, tuple[int, ...]]]
SETTINGS: dict[str, Settings] = {
    "ml-100k": {"level": (LEVEL, (32, 64, 128, 256)), "falling": (FALLING, (32, 64, 128, 256))},
    "ml-1m": {"level": (LEVEL, (64, 128))},
}
SEEDS = {"ml-100k": 8, "ml-1m": 3}
"""How many: one decides split, start and order, and moves the NDCG of a small data set by more than the width does."""


def measure(dataset: str) -> None:
    """Trains what is missing of a data set, the settings of one seed after those of the one before."""
    path = RESULTS / "widths" / f"{dataset}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["trainings"] if path.exists() else []
    done = {(row["setting"], row["width"], row["seed"]) for row in rows}
    data = read_dataset(data_dir() / dataset)
    full = InteractionGraph(len(data.users), len(data.items), torch.from_numpy(data.train.T.copy()))
    for seed in range(SEEDS[dataset]):
        for setting, (config, widths) in SETTINGS[dataset].items():
            for width in widths:
                if (setting, width, seed) not in done:
                    row = one(full, replace(config, embedding_size=width, seed=seed))
                    rows.append({"setting": setting, "width": width, "seed": seed, **row})
                    facts = {"dataset": dataset, "n_interactions": full.n_edges, "commit": commit()}
                    settings = {name: asdict(each) for name, (each, _) in SETTINGS[dataset].items()}
                    write_json(path, {**facts, "machine": machine(), "settings": settings, "trainings": rows})
                    print(dataset, rows[-1], flush=True)


def one(full: InteractionGraph, config: TrainingConfig) -> dict[str, Any]:
    """One training: the best validation NDCG and Recall at 20, epochs, and seconds of this process's processor time."""
    recipe = BaseConfig(LightGCN(), config)
    train, validation = split_validation(full, recipe.share_of(full.n_edges), config.seed)
    started = time.process_time()
    result = Training(recipe.backbone, train, validation, config).run()
    return {
        "validation_ndcg_at_20": result.validation.ndcg,
        "validation_recall_at_20": result.validation.recall,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def table(dataset: str) -> str:
    """A line a setting: mean and standard deviation over the seeds, and the mean of the paired differences to 128."""
    rows = json.loads((RESULTS / "widths" / f"{dataset}.json").read_text())["trainings"]
    kinds = sorted({(row["setting"], row["width"]) for row in rows})
    of = {kind: {row["seed"]: row for row in rows if (row["setting"], row["width"]) == kind} for kind in kinds}
    level = of.get(("level", 128), {})
    lines = []
    for (setting, width), found in of.items():
        ndcg = [row["validation_ndcg_at_20"] for row in found.values()]
        gain = [
            row["validation_ndcg_at_20"] / level[seed]["validation_ndcg_at_20"] - 1
            for seed, row in found.items()
            if seed in level
        ]
        error = statistics.stdev(gain) / len(gain) ** 0.5 if len(gain) > 1 else 0.0
        spread = statistics.stdev(ndcg) if len(ndcg) > 1 else 0.0
        cpu = statistics.mean(row["cpu_seconds"] for row in found.values())
        gained = f"{statistics.mean(gain):+.1%} ± {error:.1%}" if gain else "?"
        lines.append(
            f"{setting:8} {width:4} n={len(ndcg)} NDCG@20 {statistics.mean(ndcg):.4f} sd {spread:.4f} "
            f"{gained:>13} to level 128, {cpu:.0f} s"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    for each in sys.argv[1:] or ("ml-100k", "ml-1m"):
        measure(each)
        print(table(each))
