"""The tables of docs/results, as markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from benchmarks.evaluation import measures as m
from benchmarks.evaluation.formats import (
    MISSING,
    megabytes,
    number,
    percent,
    seconds,
    signed,
    significant,
    spread,
    table,
)
from benchmarks.evaluation.load import Block, Read, Results, at, ratio
from benchmarks.evaluation.names import BACKBONES, DATASETS, SHARES, label_of, place
from benchmarks.evaluation.published import FULL, TABLE_2, TABLE_3, TABLE_4, TABLE_5, Row

Column = tuple[str, Callable[[Block, str], str]]

REGIONS: Final = {"touched": "touched", "one_hop": "one hop away", "rest": "the rest"}
"""Users of an erased pair; those who share an item with one; everybody else."""
ABLATIONS: Final = {
    "no_unlearning_loss": ("without the unlearning loss", f"{FULL}_no_unlearning_loss"),
    "no_preserving_loss": ("without the preserving loss", f"{FULL}_no_preserving_loss"),
    "no_contrast_loss": ("without the contrast loss", f"{FULL}_no_contrast_loss"),
    "no_fine_tuning": ("without fine-tuning", "unlearnrec_0"),
    "full": ("full", FULL),
}
"""Rows of Table 3: how the page calls each, and which of our methods it is."""


def quality(block: Block) -> str:
    """Ranking quality, forgetting and membership of every method."""
    return _methods(
        block,
        ("seeds", lambda b, name: str(len(b.methods[name]))),
        ("Recall@20", _spread(m.RECALL)),
        ("NDCG@20", _spread(m.NDCG)),
        ("Recall / Retrain", _over_retrain(m.RECALL)),
        ("NDCG / Retrain", _over_retrain(m.NDCG)),
        ("MI-BF", _mean(m.MI_BF, 3)),
        ("MI-NG", _mean(m.MI_NG, 3)),
        ("AUC held-out", _spread(m.AUC)),
        ("minus Retrain", lambda b, name: signed(b.minus_retrain(name, m.AUC))),
        ("in sd", lambda b, name: signed(b.in_retrain_sds(name, m.AUC), 1)),
        ("AUC matched", _mean(m.AUC_MATCHED)),
        ("AUC attacker", _mean(m.AUC_ATTACKER)),
    )


def effect(block: Block) -> str:
    """Distance to Retrain, fidelity of the effect and cost of every method."""
    return _methods(
        block,
        ("JS / floor", _spread(m.JS_OVER_FLOOR, 3)),
        ("untouched JS / floor", _mean(m.JS_NONE_OVER_FLOOR, 3)),
        ("slope", _spread(m.SLOPE, 2)),
        ("correlation", _spread(m.CORRELATION, 3)),
        ("slope, other bases", _mean(at("fidelity.slope_other_bases"), 2)),
        ("correlation, other bases", _mean(at("fidelity.correlation_other_bases"), 3)),
        ("noise ceiling", _mean(at("fidelity.noise_ceiling"), 3)),
        ("relearn steps", _mean(at("relearn_steps"), 0)),
        ("request", lambda b, name: seconds(b.stat(name, m.SECONDS).mean)),
        ("one-off", lambda b, name: seconds(b.stat(name, m.SECONDS_ONEOFF).mean)),
        ("peak memory", lambda b, name: megabytes(b.stat(name, m.MEMORY).mean)),
    )


def probabilities(block: Block) -> str:
    """Mean probability of each kind of pair, before and after."""
    names = {
        "erased, before": "p_erased_before",
        "erased": "p_erased",
        "held-out": "p_heldout",
        "negative": "p_negative",
        "kept": "p_kept",
    }
    return _methods(block, *((head, _mean(at(f"membership.{key}"))) for head, key in names.items()))


def regions(block: Block) -> str:
    """Quality and distance, by how near a user is to the request."""
    columns: list[Column] = []
    for region, word in REGIONS.items():
        columns += [
            (f"Recall / Retrain, {word}", _over_retrain(at(f"quality.{region}.recall_at_20"))),
            (f"JS / floor, {word}", _over_floor(region, "js", 3)),
            (f"activation / floor, {word}", _over_floor(region, "activation", 3)),
            (f"overlap / floor, {word}", _over_floor(region, "overlap", 3)),
        ]
    return _methods(block, *columns)


def headline(block: Block) -> str:
    """One narrow row a method: what a reader compares first."""
    return _methods(
        block,
        ("Recall@20", _spread(m.RECALL)),
        ("/ Retrain", _over_retrain(m.RECALL)),
        ("AUC − Retrain's", lambda b, name: signed(b.minus_retrain(name, m.AUC))),
        ("in sd", lambda b, name: signed(b.in_retrain_sds(name, m.AUC), 1)),
        ("JS / floor", _mean(m.JS_OVER_FLOOR, 3)),
        ("slope", _mean(m.SLOPE, 2)),
        ("correlation", _mean(m.CORRELATION, 3)),
        ("request", lambda b, name: seconds(b.stat(name, m.SECONDS).mean)),
        ("peak memory", lambda b, name: megabytes(b.stat(name, m.MEMORY).mean)),
    )


def published_2(block: Block) -> str | None:
    """Table 2 of the paper, ours beside it; None where the paper has no such data set and backbone."""
    rows = TABLE_2.get((block.dataset, block.backbone))
    return None if rows is None else _beside((label_of(name), theirs, block, name) for name, theirs in rows.items())


def published_3(results: Results) -> str:
    """Table 3, the ablation on SimGCL, for the data sets that were measured."""
    rows = []
    for dataset, theirs in TABLE_3.items():
        block = results.block(dataset, "simgcl", "adversarial")
        if block is not None:
            name = DATASETS[dataset]
            rows += [
                (f"{name}, {label}", theirs[key], block, method)
                for key, (label, method) in ABLATIONS.items()
                if method in block.methods
            ]
    return _beside(rows) if rows else ""


def published_4(results: Results) -> str:
    """Table 4: seconds a request, and how many requests one retraining is worth."""
    methods = list(next(iter(TABLE_4.values())))
    rows = []
    for dataset, theirs in TABLE_4.items():
        blocks = [b for b in results.blocks if b.dataset == dataset and b.protocol == "adversarial"]
        if not blocks:
            continue
        rows.append([f"{DATASETS[dataset]}, published (RTX 3090)", *_timed(theirs, methods)])
        for block in blocks:
            ours = {name: block.stat(name, m.SECONDS).mean for name in methods}
            where = f"{BACKBONES.get(block.backbone, block.backbone)}, {block.device}"
            rows.append([f"{DATASETS[dataset]}, ours, {where}", *_timed(ours, methods)])
    return table(["", *map(label_of, methods)], rows) if rows else ""


def published_5(results: Results) -> str:
    """Table 5, the ratio study: quality and MI by how much is erased."""
    shares = list(TABLE_5)
    head = ["", *(f"{share:g} %" for share in shares)]
    rows = [
        ["published, Recall", *(number(TABLE_5[share].recall) for share in shares)],
        ["published, NDCG", *(number(TABLE_5[share].ndcg) for share in shares)],
        ["published, MI-BF", *(number(TABLE_5[share].mi_bf, 3) for share in shares)],
        ["published, MI-NG", *(number(TABLE_5[share].mi_ng, 3) for share in shares)],
    ]
    ours = []
    for dataset, backbone in ratio_studies(results):
        by_share = {share: results.block(dataset, backbone, name) for name, share in SHARES.items()}
        for method in ("retrain", FULL, "expunge"):
            for word, read, digits in _FOUR:
                cells = [
                    MISSING if block is None else number(block.stat(method, read).mean, digits)
                    for block in (by_share.get(share) for share in shares)
                ]
                if any(cell != MISSING for cell in cells):
                    ours.append([f"{_where(dataset, backbone)}, {label_of(method)}, {word}", *cells])
    return table(head, rows + ours) if ours else ""


def ratio_studies(results: Results) -> list[tuple[str, str]]:
    """Data sets and backbones on which at least two shares of genuine pairs were measured."""
    found: dict[tuple[str, str], set[str]] = {}
    for block in results.blocks:
        if block.protocol in SHARES:
            found.setdefault((block.dataset, block.backbone), set()).add(block.protocol)
    several = [key for key, protocols in found.items() if len(protocols) > 1]
    return sorted(several, key=lambda key: (place(key[0], DATASETS), place(key[1], BACKBONES)))


def stream(block: Block) -> str:
    """The first and the last measurement of each way to apply a stream."""
    rows = []
    for name in block.methods:
        for mode in m.STREAM_MODES:
            first, last = (block.stat(name, m.stream_seconds(mode, tenth)).mean for tenth in ("first", "last"))
            batches, *figures = (
                block.stat(name, m.stream(mode, -1, key)).mean
                for key in ("batch", "recall_at_20", "ndcg_at_20", "auc_heldout")
            )
            if batches is not None:
                times = (seconds(first), seconds(last))
                rows.append([f"{label_of(name)}, {mode}", number(batches, 0), *map(number, figures), *times])
    head = ("method", "last batch", "Recall@20", "NDCG@20", "AUC held-out", "a batch, first tenth", "last tenth")
    return table(head, rows) if rows else ""


def memory(block: Block) -> str:
    """Peak memory for a request, for the one-off cost, and over that of training."""
    over = ratio("memory.request", "memory.train")
    return _methods(
        block,
        ("request", lambda b, name: megabytes(b.stat(name, m.MEMORY_REQUEST).mean)),
        ("one-off", lambda b, name: megabytes(b.stat(name, at("memory.oneoff")).mean)),
        ("training", lambda b, name: megabytes(b.stat(name, m.MEMORY_TRAIN).mean)),
        ("request / training", lambda b, name: significant(b.stat(name, over).mean)),
    )


_FOUR: Final[tuple[tuple[str, Read, int], ...]] = (
    ("Recall", m.RECALL, 4),
    ("NDCG", m.NDCG, 4),
    ("MI-BF", m.MI_BF, 3),
    ("MI-NG", m.MI_NG, 3),
)


def _where(dataset: str, backbone: str) -> str:
    return f"{DATASETS.get(dataset, dataset)} {BACKBONES.get(backbone, backbone)}"


def _beside(rows: Iterable[tuple[str, Row, Block, str]]) -> str:
    """Published and own figures in turns. Rows: label, published, block and method of ours."""
    lines: list[list[str]] = []
    for label, theirs, block, method in rows:
        cells: list[str] = []
        figures = (theirs.recall, theirs.ndcg, theirs.mi_bf, theirs.mi_ng)
        for published, (_, read, digits) in zip(figures, _FOUR, strict=True):
            cells += [number(published, digits), number(block.stat(method, read).mean, digits)]
        lines.append([label, *cells])
    head = [cell for word, _, _ in _FOUR for cell in (f"{word}, published", "ours")]
    return table(["", *head], lines)


def _timed(times: Mapping[str, float | None], methods: Sequence[str]) -> list[str]:
    reference = times.get("retrain")
    cells = []
    for name in methods:
        value = times.get(name)
        faster = "" if not value or not reference or name == "retrain" else f" ({significant(reference / value)}×)"
        cells.append(seconds(value) + faster)
    return cells


def _methods(block: Block, *columns: Column) -> str:
    rows = [
        [f"**{label_of(name)}**" if name == "expunge" else label_of(name), *(show(block, name) for _, show in columns)]
        for name in block.methods
    ]
    return table(["method", *(head for head, _ in columns)], rows)


def _mean(read: Read, digits: int = 4) -> Callable[[Block, str], str]:
    return lambda block, name: number(block.stat(name, read).mean, digits)


def _spread(read: Read, digits: int = 4) -> Callable[[Block, str], str]:
    return lambda block, name: spread(block.stat(name, read), digits)


def _over_retrain(read: Read) -> Callable[[Block, str], str]:
    return lambda block, name: percent(block.over_retrain(name, read))


def _over_floor(region: str, distance: str, digits: int) -> Callable[[Block, str], str]:
    prefix = f"distances.{region}.{distance}"
    return _mean(ratio(f"{prefix}_to_retrain", f"{prefix}_floor"), digits)
