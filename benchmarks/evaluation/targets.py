"""The figures to reach, each read from the cells and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.evaluation import measures as m
from benchmarks.evaluation.formats import MISSING, significant, table
from benchmarks.evaluation.load import Block, Read, Results, ratio
from benchmarks.evaluation.names import BACKBONES, DATASETS, GRAPH_BACKBONES, PROTOCOLS, SHARES, family_of, label_of
from benchmarks.evaluation.published import FULL

OURS: Final = "expunge"
Study = tuple[str, str, str]
"""A data set, a backbone and a protocol."""
ASKED: Final[tuple[Study, ...]] = (
    *(("ml-1m", backbone, "adversarial") for backbone in GRAPH_BACKBONES),
    *((dataset, backbone, "genuine_1pct") for dataset in ("ml-1m", "gowalla") for backbone in GRAPH_BACKBONES),
    *(("ml-1m", "lightgcn", protocol) for protocol in ("single", "user", "item", "stream")),
)
"""What the targets speak of at least."""
STREAM_RETRAIN: Final = "genuine_2pct"
"""The protocol whose retraining a stream ends at: the same pairs."""


@dataclass(frozen=True)
class Verdict:
    """One target on one block."""

    target: str
    block: Block
    method: str
    measured: float | None
    low: float | None
    high: float | None

    @property
    def reached(self) -> bool | None:
        """None where it was not measured."""
        if self.measured is None:
            return None
        return (self.low is None or self.measured >= self.low) and (self.high is None or self.measured <= self.high)

    def row(self) -> dict[str, Any]:
        """As figures.json has it."""
        where = {key: getattr(self.block, key) for key in ("dataset", "backbone", "protocol", "device")}
        bounds = {"at_least": self.low, "at_most": self.high}
        return (
            {"target": self.target, **where, "method": self.method, "measured": self.measured}
            | bounds
            | {"reached": self.reached}
        )


def verdicts(results: Results) -> list[Verdict]:
    """Every target on every block that it speaks of and that was measured, in the order of the issue."""
    return [verdict for judge in _JUDGES for block in results.blocks for verdict in judge(results, block)]


def not_measured(results: Results) -> list[Study]:
    """Data sets, backbones and protocols that the targets speak of and that no cell of ours is there for."""
    there = {(block.dataset, block.backbone, block.protocol) for block in results.blocks}
    return [study for study in ASKED if study not in there]


def figures_table(found: list[Verdict]) -> str:
    """The targets as markdown, missed ones in bold."""
    words = {True: "reached", False: "**missed**", None: MISSING}
    rows = [
        [
            verdict.target,
            DATASETS.get(verdict.block.dataset, verdict.block.dataset),
            BACKBONES.get(verdict.block.backbone, verdict.block.backbone),
            PROTOCOLS.get(verdict.block.protocol, verdict.block.protocol),
            label_of(verdict.method),
            significant(verdict.measured, 4),
            _bounds(verdict),
            words[verdict.reached],
        ]
        for verdict in found
    ]
    head = ("target", "data", "backbone", "request", "method", "measured", "to reach", "")
    return table(head, rows) if rows else "Nothing that a target speaks of was measured yet."


def _bounds(verdict: Verdict) -> str:
    sides = (("≥", verdict.low), ("≤", verdict.high))
    return ", ".join(f"{sign} {bound:g}" for sign, bound in sides if bound is not None)


def _published(results: Results, block: Block) -> Iterator[Verdict]:
    if (block.dataset, block.protocol) != ("ml-1m", "adversarial") or FULL not in block.methods:
        return
    for what, read in (("Recall", m.RECALL), ("NDCG", m.NDCG)):
        yield Verdict(f"UnlearnRec: {what} / Retrain", block, FULL, block.over_retrain(FULL, read), 0.995, None)
    for what, read in (("MI-BF", m.MI_BF), ("MI-NG", m.MI_NG)):
        yield Verdict(f"UnlearnRec: {what} / Retrain", block, FULL, block.over_retrain(FULL, read), 0.8, 1.25)


def _genuine(results: Results, block: Block) -> Iterator[Verdict]:
    if block.protocol not in SHARES or block.dataset not in ("ml-1m", "gowalla") or OURS not in block.methods:
        return
    sds = block.in_retrain_sds(OURS, m.AUC)
    yield Verdict("ours: distance of AUC to Retrain's, in its sd", block, OURS, _abs(sds), None, 2.0)
    yield Verdict("ours: JS / floor, touched", block, OURS, block.stat(OURS, m.JS_OVER_FLOOR).mean, None, 1.05)
    yield Verdict("ours: Recall / Retrain", block, OURS, block.over_retrain(OURS, m.RECALL), 0.995, None)
    yield Verdict("ours: slope of the effect", block, OURS, block.stat(OURS, m.SLOPE).mean, 0.8, 1.2)
    best, others = block.stat(OURS, m.CORRELATION).mean, _best_other(block, m.CORRELATION)
    margin = None if best is None or others is None else best - others
    yield Verdict("ours: correlation of the effect, minus the best other's", block, OURS, margin, 0.0, None)


def _shapes(results: Results, block: Block) -> Iterator[Verdict]:
    if block.protocol not in ("single", "user", "item") or OURS not in block.methods:
        return
    gap = _abs(block.minus_retrain(OURS, m.AUC))
    yield Verdict("ours: distance of AUC to Retrain's", block, OURS, gap, None, 0.01)
    # An erased user has no list left to compare: what is asked for is that nobody else's changed.
    who, read = ("one hop away", m.JS_ONE_HOP_OVER_FLOOR) if block.protocol == "user" else ("touched", m.JS_OVER_FLOOR)
    yield Verdict(f"ours: JS / floor, {who}", block, OURS, block.stat(OURS, read).mean, None, 1.1)


def _stream(results: Results, block: Block) -> Iterator[Verdict]:
    if block.protocol != "stream" or OURS not in block.methods:
        return
    mode = m.STREAM_MODES[0]
    retrain = stream_reference(results, block)
    recall = block.stat(OURS, m.stream(mode, -1, "recall_at_20")).mean
    reference = retrain.stat("retrain", m.RECALL).mean if retrain else None
    over = None if recall is None or not reference else recall / reference
    yield Verdict("stream: Recall in the end / Retrain", block, OURS, over, 0.99, None)
    auc = block.stat(OURS, m.stream(mode, -1, "auc_heldout")).mean
    theirs = retrain.stat("retrain", m.AUC).mean if retrain else None
    gap = None if auc is None or theirs is None else abs(auc - theirs)
    yield Verdict("stream: distance of AUC in the end to Retrain's", block, OURS, gap, None, 0.005)
    first, last = (block.stat(OURS, m.stream_seconds(mode, tenth)).mean for tenth in ("first", "last"))
    slower = None if not first or last is None else last / first
    yield Verdict("stream: time of a batch, last tenth / first tenth", block, OURS, slower, None, 2.0)


def stream_reference(results: Results, block: Block) -> Block | None:
    """The block whose Retrain a stream is compared with: its own, or that of the same pairs asked for at once."""
    if "retrain" in block.methods:
        return block
    return results.block(block.dataset, block.backbone, STREAM_RETRAIN, block.device)


def _speed(results: Results, block: Block) -> Iterator[Verdict]:
    if block.dataset == "ml-1m" and block.protocol == "adversarial":
        for method, least in (("unlearnrec_0", 1000.0), (FULL, 50.0)):
            if method in block.methods:
                faster = _over(block, "retrain", method, m.SECONDS)
                yield Verdict("time of a retraining / of a request", block, method, faster, least, None)
    if block.dataset in ("ml-1m", "gowalla") and block.protocol == "genuine_1pct" and OURS in block.methods:
        times = {name: block.stat(name, m.SECONDS).mean for name in _of_family(block, "influence function")}
        known = {name: value for name, value in times.items() if value is not None}
        fastest = min(known, key=lambda name: known[name], default=None)
        faster = None if fastest is None else _over(block, fastest, OURS, m.SECONDS)
        yield Verdict("time of the fastest influence method / of ours", block, OURS, faster, 5.0, None)


def _memory(results: Results, block: Block) -> Iterator[Verdict]:
    if block.protocol in ("adversarial", "genuine_1pct") and OURS in block.methods:
        over = block.stat(OURS, ratio("memory.request", "memory.train")).mean
        yield Verdict("peak memory of a request / of training", block, OURS, over, None, 1.0)


_JUDGES: Final[tuple[Callable[[Results, Block], Iterator[Verdict]], ...]] = (
    _published,
    _genuine,
    _shapes,
    _stream,
    _speed,
    _memory,
)


def _best_other(block: Block, read: Read) -> float | None:
    found = [block.stat(name, read).mean for name in block.unlearners if name != OURS]
    return max((value for value in found if value is not None), default=None)


def _of_family(block: Block, family: str) -> list[str]:
    return [name for name in block.methods if family_of(name) == family]


def _over(block: Block, above: str, below: str, read: Read) -> float | None:
    one, other = block.stat(above, read).mean, block.stat(below, read).mean
    return None if one is None or not other else one / other


def _abs(value: float | None) -> float | None:
    return None if value is None else abs(value)
