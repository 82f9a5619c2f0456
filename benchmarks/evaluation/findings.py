"""One sentence a section that says what to see in it, made from the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.evaluation import measures as m
from benchmarks.evaluation.formats import number, percent, seconds, signed, significant
from benchmarks.evaluation.load import Block, Results, at
from benchmarks.evaluation.names import BACKBONES, DATASETS, PROTOCOLS, SHARES, label_of
from benchmarks.evaluation.published import FULL, TABLE_2
from benchmarks.evaluation.targets import OURS, Verdict, not_measured, stream_reference

NOT_MEASURED = "Not measured yet."
NEAR_FLOOR = 1.05
"""JS over floor up to which a method counts as indistinguishable: within a twentieth of two retrainings' distance."""

NEAR_SDS = 2.0
"""Distance from Retrain's AUC up to which it does, in standard deviations of the retrain seeds."""


def targets(found: Sequence[Verdict], results: Results) -> str:
    """How many targets are reached, which are not, and what was not measured at all."""
    judged = [verdict for verdict in found if verdict.reached is not None]
    missed = [verdict for verdict in judged if not verdict.reached]
    names = list(dict.fromkeys(verdict.target for verdict in missed))
    text = (
        f"{len(judged) - len(missed)} of {len(judged)} measured figures are reached" if judged else "None is measured"
    )
    text += f"; missed somewhere: {'; '.join(names)}." if missed else "."
    open_ones = [_study(*study) for study in not_measured(results)]
    return f"{text} Not measured yet: {'; '.join(open_ones)}." if open_ones else text


def nearest(block: Block) -> str:
    """Who comes nearest to Retrain's AUC, where ours stands, and what doing nothing gives."""
    gaps = _known(block.unlearners, lambda name: block.minus_retrain(name, m.AUC))
    if not gaps:
        return NOT_MEASURED
    best = min(gaps, key=lambda name: abs(gaps[name]))
    parts = [f"{label_of(best)} comes nearest to Retrain's AUC ({signed(gaps[best])}{_in_sds(block, best)})"]
    if OURS in gaps and best != OURS:
        parts.append(f"{label_of(OURS)} is at {signed(gaps[OURS])}{_in_sds(block, OURS)}")
    untouched = block.minus_retrain("none", m.AUC)
    if untouched is not None:
        parts.append(f"the untouched model at {signed(untouched)}")
    kept = block.over_retrain(best if OURS not in gaps else OURS, m.RECALL)
    tail = f"; {label_of(OURS if OURS in gaps else best)} keeps {percent(kept)} of Retrain's Recall" if kept else ""
    return f"{', '.join(parts)}{tail}."


def beside_published(block: Block) -> str:
    """What the paper's method keeps and forgets, there and here."""
    theirs = TABLE_2.get((block.dataset, block.backbone), {})
    recall, forgotten = (block.over_retrain(FULL, read) for read in (m.RECALL, m.MI_BF))
    if not theirs or recall is None:
        return NOT_MEASURED
    kept = theirs[FULL].recall / theirs["retrain"].recall
    lowered = theirs[FULL].mi_bf / theirs["retrain"].mi_bf
    return (
        f"UnlearnRec keeps {percent(recall)} of Retrain's Recall here ({percent(kept)} published) and reaches "
        f"{number(forgotten, 2)} of its MI-BF ({number(lowered, 2)} published)."
    )


def distributions(block: Block) -> str:
    """Where erased pairs stand before and after, and where Retrain puts them."""
    before, after = (block.stat(OURS, at(f"membership.{key}")).mean for key in ("p_erased_before", "p_erased"))
    retrained = block.stat("retrain", at("membership.p_erased")).mean
    if before is None or after is None or retrained is None:
        return "Before, erased pairs (solid) lie where kept ones do; after, they should lie where Retrain has them."
    return (
        f"The mean probability of an erased pair goes from {number(before, 3)} to {number(after, 3)} with "
        f"{label_of(OURS)}, and Retrain has it at {number(retrained, 3)}: compare the solid curves."
    )


def pareto(block: Block) -> str:
    """The fastest method that cannot be told from retraining by either measure, and what a retraining costs."""
    distance = _known(block.unlearners, lambda name: block.stat(name, m.JS_OVER_FLOOR).mean)
    gaps = _known(distance, lambda name: block.in_retrain_sds(name, m.AUC))
    time = _known(gaps, lambda name: block.stat(name, m.SECONDS).mean)
    if not time:
        return NOT_MEASURED
    whole = block.stat("retrain", m.SECONDS).mean
    price = f"; a retraining takes {seconds(whole)}" if whole is not None else ""
    near = [name for name in time if distance[name] <= NEAR_FLOOR and abs(gaps[name]) <= NEAR_SDS]
    bounds = f"within {NEAR_SDS:g} sd of Retrain's AUC and {NEAR_FLOOR:g} of the floor"
    if near:
        best = min(near, key=lambda name: time[name])
        return f"of {len(near)} methods {bounds} {label_of(best)} is the fastest, in {seconds(time[best])}{price}."
    best = min(time, key=lambda name: abs(gaps[name]))
    return (
        f"no method is {bounds}; nearest by AUC is {label_of(best)} with {number(abs(gaps[best]), 1)} sd and "
        f"{number(distance[best], 3)} of the floor, in {seconds(time[best])}{price}."
    )


def untouched(block: Block) -> str:
    """Whether the distance says anything: where the untouched model stands."""
    at_rest = block.stat(OURS, m.JS_NONE_OVER_FLOOR).mean
    if at_rest is None:
        return ""
    if at_rest <= NEAR_FLOOR:
        return (
            f"The untouched model stands at {number(at_rest, 3)}: here the request moves a list less than a seed does, "
            "and the distance tells damage from none, not forgetting from none."
        )
    return f"The untouched model stands at {number(at_rest, 3)}: below that, a method has moved the right way."


def memory(block: Block) -> str:
    """What ours needs over training, and who needs most."""
    found = _known(block.unlearners, lambda name: block.stat(name, m.MEMORY_REQUEST).mean)
    training = block.stat(OURS, m.MEMORY_TRAIN).mean
    if not found:
        return NOT_MEASURED
    most = max(found, key=lambda name: found[name])
    parts = [f"{label_of(most)} needs most for a request, {number(found[most] / 1e6, 0)} MB"]
    if OURS in found and training:
        parts.insert(0, f"{label_of(OURS)} needs {significant(found[OURS] / training)} of training's memory")
    return f"{'; '.join(parts)}."


def ratios(results: Results, dataset: str, backbone: str) -> str:
    """How the gap to Retrain's AUC grows with the share that is erased."""
    gaps = []
    for protocol, share in SHARES.items():
        block = results.block(dataset, backbone, protocol)
        gap = None if block is None else block.minus_retrain(OURS, m.AUC)
        if gap is not None:
            gaps.append((share, gap))
    if len(gaps) < 2:
        return "How quality, membership and distance change with the share of the real pairs that is erased."
    (low, first), (high, last) = min(gaps), max(gaps)
    return (
        f"From {low:g} % to {high:g} % of the pairs, {label_of(OURS)}'s distance from Retrain's AUC goes from "
        f"{signed(first)} to {signed(last)}."
    )


def stream(results: Results, block: Block) -> str:
    """How ours stands at the end of the stream, and whether it slowed down."""
    cumulative = m.STREAM_MODES[0]
    recall = block.stat(OURS, m.stream(cumulative, -1, "recall_at_20")).mean
    first, last = (block.stat(OURS, m.stream_seconds(cumulative, tenth)).mean for tenth in ("first", "last"))
    if recall is None or not first or last is None:
        return NOT_MEASURED
    retrain = stream_reference(results, block)
    reference = retrain.stat("retrain", m.RECALL).mean if retrain else None
    kept = f"keeps {percent(recall / reference)} of Retrain's Recall" if reference else f"has Recall {number(recall)}"
    return (
        f"In the end {label_of(OURS)}, applied cumulatively, {kept}; a batch takes {seconds(last)}, "
        f"{significant(last / first)} times what it took at the start."
    )


def _known(names: Iterable[str], figure: Callable[[str], float | None]) -> dict[str, float]:
    values = {name: figure(name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _in_sds(block: Block, name: str) -> str:
    sds = block.in_retrain_sds(name, m.AUC)
    return "" if sds is None else f", {number(abs(sds), 1)} standard deviations of its seeds"


def _study(dataset: str, backbone: str, protocol: str) -> str:
    names = (DATASETS.get(dataset, dataset), BACKBONES.get(backbone, backbone), PROTOCOLS.get(protocol, protocol))
    return " ".join(names)
