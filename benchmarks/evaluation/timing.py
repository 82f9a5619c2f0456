"""How long methods take for the same request, one after another in one quiet process: the ratios of the speed targets.

    EXPUNGE_DATA_DIR=... python -m benchmarks.evaluation.timing

Cells of the grid are measured while others run beside them; their seconds are good for orders of magnitude. This is
measured apart, with all cores, on the protocol genuine_1pct of ML-1M with LightGCN.
"""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median
from typing import Any, Final

import torch

from benchmarks.cells import cell, data_dir
from benchmarks.experiment import MODELS, encoders_of, recipe_of
from service.evaluation.methods import METHODS, MethodContext
from service.evaluation.model_cache import ModelCache
from service.evaluation.protocols import Split, scenario
from service.interactions.readers import read_dataset
from service.recommender.training import Training
from service.unlearning.request import UnlearningRequest

TIMED: Final = ("graph_swap", "amplified_swap", "expunge", "unlearnrec_0", "unlearnrec_3", "scif")
EPOCHS: Final = 2
REPEATS: Final = 5


def measure() -> dict[str, Any]:
    """Seconds: of a whole retraining (some epochs, times their number), and of a request by method."""
    recipe = recipe_of("ml-1m")
    split = Split.of(read_dataset(data_dir() / "ml-1m"))
    model_cache = ModelCache(MODELS)
    state = model_cache.clean(split, recipe.backbone, recipe.training).state
    asked = scenario("genuine_1pct", split, lambda: state.readout)
    run = Training(recipe.backbone, asked.remaining, split.validation, replace(recipe.training, epochs=EPOCHS))
    seconds = [epoch.seconds for epoch in run.run().history]
    retrain = median(seconds) * recipe.training.epochs
    print(f"  retraining: {retrain:.1f} s", flush=True)
    context = MethodContext(
        recipe.training,
        0,
        encoders_of("ml-1m"),
        lambda: model_cache.retrained(split, asked, recipe.backbone, recipe.training, 0),
    )
    return {
        "threads": torch.get_num_threads(),
        "n_erased": asked.edges.shape[1],
        "retrain": {"seconds": retrain, "epochs": recipe.training.epochs, "timed_epochs": seconds},
        "methods": {name: _timed(name, context, state, asked.edges) for name in TIMED},
    }


def _timed(name: str, context: MethodContext, state: Any, edges: torch.Tensor) -> dict[str, Any]:
    method = METHODS[name]
    unlearner = method.make(context)
    unlearner.prepare(state)
    request = UnlearningRequest.of(state, **{method.mode: edges})
    seconds: list[float] = []
    while len(seconds) < REPEATS and sum(seconds) < 60:
        started = time.perf_counter()
        unlearner.forget(state, request)
        seconds.append(time.perf_counter() - started)
    # The first call warms caches; where there is another it does not count.
    counted = seconds[1:] or seconds
    print(f"  {name}: {median(counted):.3f} s", flush=True)
    return {"seconds": median(counted), "repeats": len(counted), "all": seconds}


if __name__ == "__main__":
    cell("timing-ml-1m", measure)
