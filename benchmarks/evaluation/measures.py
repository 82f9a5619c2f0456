"""What is read from a cell, by the name that the summary and the tables use."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.evaluation.load import Cell, Read, Results, Stat, at, ratio


def _seconds_request(cell: Cell) -> float | None:
    """Wall time of one request. A retraining's request is its training."""
    request = at("seconds.request")(cell)
    return at("seconds.train")(cell) if request is None and cell["method"] == "retrain" else request


def stream(mode: str, end: int, key: str) -> Read:
    """A figure along the stream.

    Args:
        mode: one of `STREAM_MODES`.
        end: 0 for the first measurement, -1 for the last.
        key: `batch`, `share`, `recall_at_20`, `ndcg_at_20`, `auc_heldout` or `seconds`.
    """

    def read(cell: Cell) -> float | None:
        points = (cell.get("stream") or {}).get(mode) or []
        return at(key)(points[end]) if points else None

    return read


def stream_seconds(mode: str, tenth: str) -> Read:
    """Median seconds of a batch in the `first` or the `last` tenth of a stream."""
    return at(f"stream.seconds.{mode}.{tenth}_tenth")


STREAM_MODES: Final = ("cumulative", "stepwise")
"""Every batch so far from the base, or each batch from the result of the one before."""
RECALL: Final = at("quality.overall.recall_at_20")
NDCG: Final = at("quality.overall.ndcg_at_20")
MI_BF: Final = at("membership.mi_bf")
MI_NG: Final = at("membership.mi_ng")
AUC: Final = at("membership.auc_heldout")
AUC_MATCHED: Final = at("membership.auc_matched")
AUC_ATTACKER: Final = at("membership.auc_attacker")
JS: Final = at("distances.touched.js_to_retrain")
JS_FLOOR: Final = at("distances.touched.js_floor")
JS_OVER_FLOOR: Final = ratio("distances.touched.js_to_retrain", "distances.touched.js_floor")
JS_ONE_HOP_OVER_FLOOR: Final = ratio("distances.one_hop.js_to_retrain", "distances.one_hop.js_floor")
JS_NONE_OVER_FLOOR: Final = ratio("distances.touched.js_none", "distances.touched.js_floor")
SLOPE: Final = at("fidelity.slope")
CORRELATION: Final = at("fidelity.correlation")
SECONDS: Final[Read] = _seconds_request
SECONDS_ONEOFF: Final = at("seconds.oneoff")
MEMORY: Final = at("peak_memory_bytes")
MEMORY_REQUEST: Final = at("memory.request")
MEMORY_TRAIN: Final = at("memory.train")

SUMMARY: Final[dict[str, Read]] = {
    "recall_at_20": RECALL,
    "ndcg_at_20": NDCG,
    "mi_bf": MI_BF,
    "mi_ng": MI_NG,
    "auc_heldout": AUC,
    "p_erased": at("membership.p_erased"),
    "p_heldout": at("membership.p_heldout"),
    "p_negative": at("membership.p_negative"),
    "js_to_retrain": JS,
    "js_floor": JS_FLOOR,
    "effect_slope": SLOPE,
    "effect_correlation": CORRELATION,
    "seconds_request": SECONDS,
    "seconds_oneoff": SECONDS_ONEOFF,
    "peak_memory_bytes": MEMORY,
}
"""The measures of docs/results/summary.json."""


def summary(results: Results) -> list[dict[str, Any]]:
    """One row a data set, backbone, method, protocol and device: how many seeds, and each measure's mean and sd."""
    return [
        {key: group[0][key] for key in ("dataset", "backbone", "method", "protocol", "device")}
        | {"n_seeds": len({cell["seed"] for cell in group})}
        | {name: Stat.of(map(read, group)).row() for name, read in SUMMARY.items()}
        for group in results.groups
    ]
