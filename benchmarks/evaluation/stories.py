"""The case studies as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.evaluation.formats import number, signed, table
from benchmarks.evaluation.names import BACKBONES, DATASETS, label_of

TITLE: Final = "## Three cases"
_SHOWN: Final = 6
_MODELS: Final = ("before", "after", "retrained")


def stories(cases: Mapping[str, Any] | None) -> list[str]:
    """Three people, what they had erased, and what became of their lists."""
    if cases is None:
        return [TITLE, "Not measured yet."]
    method = label_of(str(cases["method"]))
    told: Sequence[Mapping[str, Any]] = cases["cases"]
    left = sum(len(case["left"]) for case in told)
    both = sum(case["left_both"] for case in told)
    listed = len(told) * int(cases["length"])
    parts = [
        TITLE,
        f"Of {listed} places in three lists, {method} changes {left}; {both} of those films leave Retrain's, too.",
        f"{DATASETS.get(cases['dataset'], cases['dataset'])}, {BACKBONES.get(cases['backbone'], cases['backbone'])}; "
        f"lists and scores are means over {cases['n_seeds']} seeds. A rule that sees the base alone chose people and "
        "films. Changes are in standard deviations of the person's scores; an erased film is never recommended again, "
        "its rank says where it would stand.",
    ]
    for case in told:
        parts += _story(case, method)
    return parts


def _story(case: Mapping[str, Any], method: str) -> list[str]:
    similar, rest = case["change_similar"], case["change_rest"]
    n_erased = len(case["erased"])
    what = case["erased"][0]["title"] if n_erased == 1 else f"{n_erased} films like {case['erased'][0]['title']}"
    return [
        f"### {case['name']}",
        f"A person with {case['n_interactions']} films erases {what}. Films like it move by "
        f"{signed(similar['after'], 3)} (Retrain {signed(similar['retrained'], 3)}), all others by "
        f"{signed(rest['after'], 3)} (Retrain {signed(rest['retrained'], 3)}).",
        _films("erased", case["erased"][:_SHOWN], method),
        _films("left the list", case["left"][:_SHOWN], method),
        _films("similar, and what they lost", case["similar"][:_SHOWN], method),
        _films("came", case["came"][:_SHOWN], method),
        f"{len(case['stayed'])} films stayed: {', '.join(row['title'] for row in case['stayed'][:_SHOWN])}"
        f"{', …' if len(case['stayed']) > _SHOWN else ''}.",
    ]


def _films(title: str, films: Sequence[Mapping[str, Any]], method: str) -> str:
    rows = [
        [
            film["title"],
            *(number(film["rank"][model], 0) for model in _MODELS),
            signed(film["change_after"], 3),
            signed(film["change_retrained"], 3),
        ]
        for film in films
    ]
    head = (title, "rank before", f"rank, {method}", "rank, Retrain", f"change, {method}", "change, Retrain")
    return table(head, rows) if rows else ""
