"""The learning code on a GPU: how fast, and equal to the CPU.

    python -m benchmarks.gpu prepare ml-1m.npz      (where the data sets are; writes one file)
    python -m benchmarks.gpu measure ml-1m.npz      (where the GPU is; writes benchmarks/results/gpu.json)

`measure` imports torch, numpy, scipy and the three science packages, nothing else.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from service.recommender.backbones import LightGCN
from service.recommender.graph import InteractionGraph
from service.recommender.ranking import top_items
from service.recommender.sampling import batches
from service.recommender.training import Training, TrainingConfig
from service.unlearning.pretraining import Pretraining, PretrainingConfig
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState
from service.unlearning.unlearnrec import UnlearnRec

RESULT = Path(__file__).parent / "results" / "gpu.json"
BACKBONE = LightGCN(layers=3, readout="sum", weight_decay=1e-2)
REPEATS = 20
# Relative differences, in units of the CPU result's standard deviation: sums of float32 in another order.
TOLERANCES = {"propagate": 1e-4, "train_step": 1e-3, "apply": 1e-3}
MIN_OVERLAP = 0.999  # of top-20 lists: ties and near-ties may swap


def prepare(path: Path) -> None:
    """Writes the arrays that `measure` needs."""
    from benchmarks.learning import graphs

    _, train, validation, _ = graphs()
    np.savez(
        path,
        sizes=np.array([train.n_users, train.n_items]),
        edges=train.edges.numpy(),
        validation=validation.numpy(),
    )


def load(path: Path) -> tuple[InteractionGraph, torch.Tensor]:
    """The training graph and the validation edges."""
    with np.load(path, allow_pickle=False) as stored:
        n_users, n_items = stored["sizes"].tolist()
        graph = InteractionGraph(n_users, n_items, torch.from_numpy(stored["edges"]))
        return graph, torch.from_numpy(stored["validation"])


def seconds(run: Callable[[], object], device: torch.device, times: int = REPEATS) -> float:
    """Median seconds of a call, after one to warm up, the device waited for."""
    taken = []
    for _ in range(times + 1):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def measure(path: Path, device: torch.device) -> dict[str, Any]:
    """Speed on the device, and how far its results are from the CPU's."""
    graph, validation = load(path)
    config = TrainingConfig(embedding_size=128, batch_size=4096, epochs=3, patience=3)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    run = Training(BACKBONE, graph, validation, config, device)
    trained = run.run()
    state = TrainedState(run.graph, validation.to(device), trained.e0, BACKBONE)
    pretraining = Pretraining(state, PretrainingConfig(steps=40, judge_every=1_000), config).run()
    method = UnlearnRec({"forget": pretraining.encoder})
    order = torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(5))
    request = UnlearningRequest.of(state, forget=graph.edges[:, order[: graph.n_edges // 100]])
    method.prepare(state)
    propagation = seconds(lambda: BACKBONE.propagate(state.e0, state.graph), device)
    figures = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "seconds_per_epoch": statistics.median(epoch.seconds for epoch in trained.history),
        "seconds_of_shadow": pretraining.shadow_seconds,
        "seconds_per_pretraining_step": (pretraining.seconds - pretraining.shadow_seconds) / 40,
        "seconds_per_request": seconds(lambda: method.forget(state, request), device),
        "seconds_per_propagation": propagation,
        "seconds_per_top20_of_1000_users": seconds(
            lambda: top_items(state.readout, state.graph, torch.arange(1_000, device=device), 20), device
        ),
        "bandwidth_share": bytes_moved(state) / propagation / copy_bandwidth(device),
        "peak_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }
    return figures | {"differences": differences(state, method, request), "tolerances": TOLERANCES}


def bytes_moved(state: TrainedState) -> float:
    """The floor of one propagation: per layer each edge's index and weight, twice, the dense input read and output
    written once (perfect reuse of rows in cache)."""
    entries = 2 * state.graph.n_edges
    return BACKBONE.layers * (entries * 8 + 3 * state.e0.numel() * 4)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written, that a plain copy reaches on this device."""
    source = torch.empty(64 * 2**20, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / seconds(lambda: target.copy_(source), device)


def differences(state: TrainedState, method: UnlearnRec, request: UnlearningRequest) -> dict[str, float]:
    """Largest absolute difference to the CPU over the CPU result's standard deviation; the share of equal top-20s."""
    cpu = torch.device("cpu")
    there, here = state.to(cpu), state
    moved = UnlearnRec({mode: _on_cpu(encoder) for mode, encoder in method.encoders.items()})
    on_cpu = moved.forget(there, UnlearningRequest.of(there, forget=request.forget.cpu()))
    on_device = method.forget(here, request)
    users = torch.arange(1_000)
    lists = [
        top_items(result.readout, result.graph, users.to(result.readout.device), 20).cpu()
        for result in (on_cpu, on_device)
    ]
    equal = (lists[0][:, :, None] == lists[1][:, None, :]).any(dim=2).double().mean()
    return {
        "propagate": _apart(BACKBONE.propagate(there.e0, there.graph), BACKBONE.propagate(here.e0, here.graph)),
        "train_step": _apart(_gradient(there), _gradient(here)),
        "apply": _apart(on_cpu.readout, on_device.readout),
        "top20_overlap": float(equal),
    }


def _on_cpu(encoder: Any) -> Any:
    return type(encoder).from_tensors(encoder.facts(), encoder.tensors())


def _gradient(state: TrainedState) -> torch.Tensor:
    e0 = state.e0.detach().clone().requires_grad_()
    graph = state.graph.to("cpu")
    batch = next(batches(graph, 4096, torch.Generator().manual_seed(0)))
    sides = {name: getattr(batch, name).to(e0.device) for name in ("users", "positives", "negatives")}
    moved = replace(batch, **sides)
    BACKBONE.loss(e0, state.graph, moved).backward()  # type: ignore[no-untyped-call]
    assert e0.grad is not None
    return e0.grad


def _apart(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((expected - found.cpu()).abs().max() / expected.std())


def main(arguments: list[str]) -> int:
    """Runs `prepare` or `measure`; returns the exit status."""
    if len(arguments) != 2 or arguments[0] not in ("prepare", "measure"):
        print(__doc__, file=sys.stderr)
        return 2
    if arguments[0] == "prepare":
        prepare(Path(arguments[1]))
        return 0
    if not torch.cuda.is_available():
        print("No GPU is at hand, so there is nothing to measure and no file is written.", file=sys.stderr)
        return 1
    figures = measure(Path(arguments[1]), torch.device("cuda"))
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(RESULT.read_text())
    far = [name for name, limit in TOLERANCES.items() if figures["differences"][name] > limit]
    if figures["differences"]["top20_overlap"] < MIN_OVERLAP:
        far.append("top20_overlap")
    if far:
        print(f"Further from the CPU than stated: {', '.join(far)}.", file=sys.stderr)
    return 1 if far else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
