"""Write the measured figures into the docs: `python -m benchmarks.report` fills the marked places, `--check` compares.

The figures come from benchmarks/results/main.json and gpu.json and from nowhere else: nobody edits them by hand.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import tables

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("README.md", "docs/figures.md", "docs/learning.md", "docs/gate.md")
COMMAND = "make benchmark"

Figures = Mapping[str, Mapping[str, Any]]

LABELS = {
    "recall_ratio_adversarial": "Recall@20, 1 % adversarial edges forgotten, over retraining",
    "ndcg_ratio_adversarial": "NDCG@20, the same",
    "mi_bf_ratio_adversarial": "MI-BF, the same",
    "mi_ng_ratio_adversarial": "MI-NG, the same",
    "retrain_over_apply": "time of a retraining over that of the unlearning step",
    "auc_gap_genuine": "AUC(erased, held-out), 1 % real edges forgotten, minus retraining's",
    "recall_ratio_genuine": "Recall@20, the same, over retraining",
    "forgotten_p50_s": "one DELETE until the model has forgotten, median",
    "forgotten_p99_s": "the same, 99th percentile",
    "accept_over_insert_endpoint": "accepted erasures a second, over an endpoint that inserts one row",
    "recommend_over_fixed_endpoint": "recommendations a second, over an endpoint that returns a fixed list",
    "recommend_p99_ms": "recommendations, 99th percentile at half load",
    "rss_api_bytes": "memory of an API replica, peak",
    "rss_worker_bytes": "memory of the worker, peak",
    "train_recall_at_20": "Recall@20 of the base",
    "train_ndcg_at_20": "NDCG@20 of the base",
    "train_seconds": "training of the base",
    "receipt_verify_ms": "a final receipt checked offline, median",
    "inclusion_proof_ms": "an entry of a log of ten million proven, median",
    "erased_over_training": "one DELETE until it is erased, on demand, over one training and pre-training",
    "recommend_p99_compacting_over_idle": "recommendations, 99th percentile beside a compaction over without",
    "accept_p99_compacting_over_idle": "accepted erasures, the same",
}
"""What each figure says, for people; all on ML-1M."""


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or with `--check` say whether they are current (exit status 1 if not)."""
    stale = []
    for name in PAGES:
        page = ROOT / name
        before = page.read_text()
        after = filled(before, blocks())
        if before != after:
            stale.append(name)
            if "--check" not in arguments:
                page.write_text(after)
    if stale and "--check" in arguments:
        sys.stderr.write(f"{', '.join(stale)} out of date: run `python -m benchmarks.report` and commit.\n")
        return 1
    return 0


def blocks() -> dict[str, str]:
    """The text of each marked place, by the name in its marker."""
    main_results, gpu_results = _read("main.json"), _read("gpu.json")
    return {"figures": figures_table(main_results), "gpu": gpu_table(gpu_results)} | tables.blocks()


def filled(text: str, by_name: Mapping[str, str]) -> str:
    """A page with what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` replaced, for each name it has.

    Raises:
        ValueError: a marker is opened and not closed.
    """
    for name, block in by_name.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if begin not in text:
            continue
        head, _, rest = text.partition(begin)
        _, found, tail = rest.partition(end)
        if not found:
            msg = f"{begin} is not closed by {end}."
            raise ValueError(msg)
        text = f"{head}{begin}\n{block}\n{end}{tail}"
    return text


def figures_table(results: Mapping[str, Any] | None) -> str:
    """The table of main.json, with when and where it was measured."""
    if results is None or not results["figures"]:
        return f"Not measured yet; `{COMMAND}` measures them."
    figures: Figures = results["figures"]
    rows = [_row(name, figure) for name, figure in figures.items()]
    table = ["| figure | measured | at least / at most | n |", "|---|---:|---:|---:|", *rows]
    return "\n".join((*table, "", f"{_provenance(results)} `{COMMAND}` measures them anew."))


def gpu_table(results: Mapping[str, Any] | None) -> str:
    """Every plain figure of gpu.json."""
    if results is None:
        return "Not measured yet: no GPU was at hand."
    rows = [f"| {_words(name)} | {_plain(value)} |" for name, value in _leaves(results)]
    return "\n".join(("| figure | measured |", "|---|---:|", *rows))


def readable(value: float, unit: str) -> str:
    """A figure with its unit and about four digits."""
    if unit == "bytes":
        return f"{value / 1e6:,.0f} MB"
    digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:,.{min(digits, 4)}f}"
    return text if unit in ("ratio", "difference") else f"{text} {unit}"


def _row(name: str, figure: Mapping[str, Any]) -> str:
    value, unit = float(figure["value"]), str(figure["unit"])
    target: Mapping[str, float] = figure.get("detail", {}).get("target", {})
    least, most = target.get("at_least", -math.inf), target.get("at_most", math.inf)
    missed = "" if least <= value <= most else " **missed**"
    bounds = [f"≥ {readable(target['at_least'], unit)}"] if "at_least" in target else []
    bounds += [f"≤ {readable(target['at_most'], unit)}"] if "at_most" in target else []
    return f"| {LABELS.get(name, name)} | {readable(value, unit)}{missed} | {', '.join(bounds)} | {figure['n']:,} |"


def _provenance(results: Mapping[str, Any]) -> str:
    machine: Mapping[str, Any] = results["machine"]
    measured = [figure.get("detail", {}).get("measured", {}) for figure in results["figures"].values()]
    days = sorted({str(each["at"])[:10] for each in measured if "at" in each})
    when = f", {' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""
    cores = machine.get("cores") or machine.get("cpus")
    what = machine.get("cpu") or machine.get("processor") or machine.get("machine") or "one machine"
    return f"ML-1M, {what}{f', {cores} cores' if cores else ''}{when}, commit `{str(results['commit'])[:10]}`."


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path} {name}".strip())
    elif isinstance(value, int | float | str) and not isinstance(value, bool):
        yield path, value


def _words(name: str) -> str:
    return name.replace("_", " ")


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def _read(name: str) -> dict[str, Any] | None:
    path = RESULTS / name
    if not path.exists():
        return None
    document: dict[str, Any] = json.loads(path.read_text())
    return document


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
