"""The pages of docs/results, from what was measured and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from benchmarks.evaluation import findings, plots, tables
from benchmarks.evaluation.load import Block, Results
from benchmarks.evaluation.measures import summary
from benchmarks.evaluation.names import BACKBONES, DATASETS, PROTOCOLS
from benchmarks.evaluation.published import SOURCE
from benchmarks.evaluation.stories import stories
from benchmarks.evaluation.targets import figures_table, verdicts

PAGE: Final = "README.md"
GENERATED: Final = "<!-- Written by `make results` from benchmarks/results/evaluation; do not edit. -->"
HEADLINE: Final = "genuine_1pct"

_INTRODUCTION: Final = """\
Every unlearning method of the field on the same data, the same models and the same requests, beside retraining.
What each method does stands in [methods](../methods.md); all figures also in [summary.json](summary.json)."""
_WORDS: Final = """\
**Reading the columns.** *Retrain* is the model trained from scratch without the erased pairs; it is what
everything should look like. *AUC held-out* separates erased pairs from held-out ones by their score: .5 means
that nobody can tell them apart, and what counts is the distance from Retrain's, also given in standard
deviations (sd) of the retrain seeds. *JS / floor* is how far a touched person's scores are from Retrain's, over
how far two retrainings with different seeds are from each other: 1 cannot be told from a retraining. *Slope*
and *correlation* compare, pair by pair, how far a method moved an erased pair with how far retraining did on
average: slope 1 is calibrated, below 1 the method overshoots. *MI-BF* and *MI-NG* are the paper's: an erased
pair's probability before over after, and a random pair's over an erased one's; both grow without bound as a
method forgets too much, so near Retrain's is best. *Request* is the time of one erasure, *one-off* what is paid
once for a base. `±` is the standard deviation over seeds."""


def pages(results: Results, cases: Mapping[str, Any] | None) -> dict[str, str]:
    """Every text file of docs/results, by its name."""
    found = {PAGE: _readme(results, cases)}
    for dataset, backbone in _studies(results):
        found[f"{dataset}-{backbone}.md"] = _details(results, dataset, backbone)
    found["summary.json"] = _json(summary(results))
    found["figures.json"] = _json([verdict.row() for verdict in verdicts(results)])
    return found


def _readme(results: Results, cases: Mapping[str, Any] | None) -> str:
    judged = verdicts(results)
    parts = [
        "# Results",
        GENERATED,
        _INTRODUCTION,
        _WORDS,
        *_section("Figures to reach", findings.targets(judged, results), figures_table(judged)),
        *_headlines(results),
        *_paper(results),
        *_plotted(
            "Scores before and after",
            "The paper's Figures 2 and 3: scores of erased (solid), kept (dashed) and random unseen pairs (dotted). "
            "The outermost bins hold all that lies beyond them.",
            [(findings.distributions(plot.blocks[0]), plot) for plot in plots.distributions(results)],
        ),
        *_plotted(
            "Time against distance to Retrain",
            "Low and to the left in both rows is better. Above: the distance from Retrain's AUC; the full line is one "
            "standard deviation of the retrain seeds. Below: JS; the full line is the distance of two retrainings. "
            "Dashed: the untouched model. Dotted: the time of a retraining.",
            [(_each(plot, findings.pareto), plot) for plot in plots.pareto(results)],
        ),
        *_plotted(
            "Memory",
            "Peak memory beyond the loaded model, for one request; the dashed line is that of training.",
            [(_each(plot, findings.memory), plot) for plot in plots.memory(results)],
        ),
        *_plotted(
            "How much is erased",
            "Retrain shows what the missing pairs themselves cost; a method should run beside it.",
            [
                (findings.ratios(results, *key), plot)
                for key, plot in zip(tables.ratio_studies(results), plots.ratio_study(results), strict=True)
            ],
        ),
        *_streams(results),
        *stories(cases),
        *_section("How it was measured", _provenance(results), _HOW),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_HOW: Final = """\
```
EXPUNGE_DATA_DIR=DIR make results                        # measures what is not there yet, then writes this folder
EXPUNGE_DATA_DIR=DIR make results ARGS="--only seed=0"   # the same, for one seed alone
make results-render                                      # writes this folder from the cells that are there
```

The grids are [main.toml](../../benchmarks/grids/main.toml) and [gowalla.toml](../../benchmarks/grids/gowalla.toml);
each cell is a JSON file in `benchmarks/results/evaluation` and is committed. Settings are chosen on validation
pairs and simulated requests, never on test data or the real request. Figures of different devices are never
averaged. Times and memory depend on the machine; everything else repeats with the seed."""


def _headlines(results: Results) -> list[str]:
    blocks = [block for block in results.blocks if block.protocol == HEADLINE]
    parts = [f"## Every method, {PROTOCOLS[HEADLINE]} erased"]
    for block in blocks:
        link = f"All figures and all other requests: [{_study(block)}]({block.dataset}-{block.backbone}.md)."
        parts += [
            f"### {_study(block)}{_device(results, block)}",
            f"{findings.nearest(block)} {findings.untouched(block)}".strip(),
            tables.headline(block),
            link,
        ]
    return parts if blocks else [*parts, findings.NOT_MEASURED]


def _paper(results: Results) -> list[str]:
    parts = [
        "## The tables of the paper",
        f"Published figures are those of {SOURCE}. Its data files, splits and adversarial pairs are not ours: compare "
        "a method with Retrain within one column, not across columns.",
        "### Table 2: adversarial pairs forgotten",
    ]
    shown = [(block, tables.published_2(block)) for block in results.blocks if block.protocol == "adversarial"]
    for block, table in shown:
        if table is not None:
            parts += [f"**{_study(block)}{_device(results, block)}.** {findings.beside_published(block)}", table]
    if not any(table for _, table in shown):
        parts.append(findings.NOT_MEASURED)
    for title, sentence, table in (
        (
            "Table 3: what is taken away from UnlearnRec (SimGCL)",
            "Each part should cost forgetting or quality when it is gone.",
            tables.published_3(results),
        ),
        (
            "Table 4: time of a request",
            "In brackets how many requests one retraining is worth, within the same row.",
            tables.published_4(results),
        ),
        (
            "Table 5: how much is erased",
            "The paper gives no Retrain row; ours shows what quality the missing pairs themselves cost.",
            tables.published_5(results),
        ),
    ):
        parts += [f"### {title}", sentence if table else findings.NOT_MEASURED, table]
    return parts


def _streams(results: Results) -> list[str]:
    drawn = plots.stream(results)
    parts = ["## A stream of batches"] + ([] if drawn else [findings.NOT_MEASURED])
    for plot in drawn:
        block = plot.blocks[0]
        parts += [_image(plot), f"*{_study(block)}. {findings.stream(results, block)}*", tables.stream(block)]
    return parts


def _details(results: Results, dataset: str, backbone: str) -> str:
    blocks = [block for block in results.blocks if (block.dataset, block.backbone) == (dataset, backbone)]
    parts = [
        f"# Results: {DATASETS.get(dataset, dataset)}, {BACKBONES.get(backbone, backbone)}",
        GENERATED,
        f"Every request and every figure; what the columns mean stands in [Results]({PAGE}).",
    ]
    for block in blocks:
        title = PROTOCOLS.get(block.protocol, block.protocol)
        parts += [
            f"## {title[0].upper()}{title[1:]}{_device(results, block)}",
            f"{findings.nearest(block)} {findings.untouched(block)}".strip(),
            "Quality and membership:",
            tables.quality(block),
            "Distance to Retrain, fidelity of the effect, cost:",
            tables.effect(block),
            "Mean probability of a pair:",
            tables.probabilities(block),
            "By how near a person is to the request:",
            tables.regions(block),
            "Memory:",
            tables.memory(block),
        ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, sentence: str, body: str) -> list[str]:
    return [f"## {title}", sentence, body]


def _plotted(title: str, sentence: str, shown: Iterable[tuple[str, plots.Plot]]) -> list[str]:
    parts = [f"## {title}"]
    images = [part for caption, plot in shown for part in (_image(plot), f"*{plot.title}. {caption}*")]
    return [*parts, sentence, *images] if images else [*parts, findings.NOT_MEASURED]


def _image(plot: plots.Plot) -> str:
    return f"[![{plot.title}](plots/{plot.name}.png)](plots/{plot.name}.svg)"


def _each(plot: plots.Plot, finding: Callable[[Block], str]) -> str:
    return " ".join(f"{_backbone(block)}: {finding(block)}" for block in plot.blocks)


def _provenance(results: Results) -> str:
    told = [cell.get("_measured", {}) for cell in results.cells]
    if not told:
        return "Nothing was measured yet."
    devices = sorted({str(cell["device"]) for cell in results.cells})
    days = sorted({str(each["at"])[:10] for each in told if each.get("at")})
    commits = sorted({str(each["commit"])[:10] for each in told if each.get("commit")})
    machines = sorted({_machine(each["machine"]) for each in told if each.get("machine")})
    when = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "on an unknown day"
    return (
        f"{len(results.cells):,} cells, {when}, on {', '.join(devices)} ({'; '.join(machines) or 'machine unknown'}), "
        f"commit {', '.join(f'`{each}`' for each in commits) or 'unknown'}."
    )


def _machine(machine: Any) -> str:
    if not isinstance(machine, Mapping):
        return str(machine)
    return ", ".join(str(machine[key]) for key in ("cpu", "system") if machine.get(key))


def _studies(results: Results) -> list[tuple[str, str]]:
    return list(dict.fromkeys((block.dataset, block.backbone) for block in results.blocks))


def _study(block: Block) -> str:
    return f"{DATASETS.get(block.dataset, block.dataset)}, {_backbone(block)}"


def _backbone(block: Block) -> str:
    return BACKBONES.get(block.backbone, block.backbone)


def _device(results: Results, block: Block) -> str:
    """Said where a reader could mistake figures of one device for those of another."""
    return f" ({block.device})" if len({cell["device"] for cell in results.cells}) > 1 else ""


def _json(value: object) -> str:
    return json.dumps(value, indent=1) + "\n"
