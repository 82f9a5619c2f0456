"""Three case studies with film titles: what left a list, what similar films lost, what stayed.

    EXPUNGE_DATA_DIR=... python -m benchmarks.evaluation.cases

Chosen by rules that look at the base alone, never at what a method makes of them. All three are one request, so that
one retraining a seed serves them. Scores are means over the seeds, of base, method and retraining alike: a single
retraining moves a list more by its seed than by the request.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.cells import RESULTS, commit, data_dir, write_json
from benchmarks.experiment import MODELS, encoders_of, recipe_of
from service.evaluation.grid import Recipe
from service.evaluation.methods import METHODS, MethodContext
from service.evaluation.model_cache import ModelCache
from service.evaluation.protocols import Scenario, Split
from service.interactions.readers import read_dataset
from service.recommender.dataset import Dataset
from service.recommender.graph import InteractionGraph
from service.unlearning.request import UnlearningRequest

PATH: Final = RESULTS / "evaluation" / "cases.json"
DATASET, BACKBONE, METHOD = "ml-1m", "lightgcn", "expunge"
SEEDS: Final = (0, 1, 2)
LENGTH: Final = 20
SIMILAR: Final = 50
"""Films that count as similar to an erased one: the nearest by cosine in the base."""
TASTE: Final = 10
"""Films that the second case erases."""
CANDIDATES: Final = 400
"""People that are looked at for each case."""


@dataclass(frozen=True)
class Case:
    """What one person has erased.

    Shapes: `items` (m,) int64 rows, all among the person's interactions; the first is the one that similar films are
    named for.
    """

    name: str
    user: int
    items: Tensor

    @property
    def edges(self) -> Tensor:
        """(2, m) int32."""
        return torch.stack((torch.full_like(self.items, self.user), self.items)).int()


@dataclass(frozen=True)
class Readouts:
    """(n_nodes, d) of each seed: before the request, after it, and of models that never saw it."""

    before: list[Tensor]
    after: list[Tensor]
    retrained: list[Tensor]

    def scores(self, user: int, n_users: int) -> dict[str, Tensor]:
        """(n_items,) mean score over the seeds, by model."""
        return {
            name: torch.stack([rows[n_users:] @ rows[user] for rows in getattr(self, name)]).mean(dim=0)
            for name in ("before", "after", "retrained")
        }


def choose(readout: Tensor, graph: InteractionGraph) -> list[Case]:
    """One film, a taste, half of an account; each the most telling among people drawn once.

    Telling means: of the person's list, the most films are among the `SIMILAR` nearest to what is erased.

    Args:
        readout: (n_nodes, d) of a base.
        graph: what it learnt from.
    """
    items = torch.nn.functional.normalize(readout[graph.n_users :], dim=1)
    nearest = torch.topk(items @ items.T, SIMILAR + 1, dim=1).indices[:, 1:]  # (n_items, SIMILAR)
    one = _most_telling(readout, graph, nearest, (40, 150), taken=())
    taste = _most_telling(readout, graph, nearest, (60, 250), taken=(one[0],))
    half = _most_telling(readout, graph, nearest, (16, 30), taken=(one[0], taste[0]))
    theirs = _history(graph, taste[0])
    closest = theirs[torch.argsort(items[theirs] @ items[taste[1]], descending=True)[:TASTE]]
    mine = _history(graph, half[0])
    nearer = mine[torch.argsort(items[mine] @ items[half[1]], descending=True)[: mine.numel() // 2]]
    return [
        Case("One film", one[0], torch.tensor([one[1]])),
        Case("A taste", taste[0], closest),
        Case("Half of a small account", half[0], nearer),
    ]


def told(
    case: Case, readouts: Readouts, known: InteractionGraph, titles: Sequence[str], nearest: Tensor
) -> dict[str, Any]:
    """What became of one person's list.

    Args:
        case: the person and what is erased.
        readouts: of base, method and retraining.
        known: interactions that a list leaves out; the erased ones are among them.
        titles: of each item row.
        nearest: (k,) item rows similar to the first erased one, nearest first.
    """
    scores = readouts.scores(case.user, known.n_users)
    seen = torch.zeros(known.n_items, dtype=torch.bool)
    seen[known.edges[1][known.edges[0] == case.user].long()] = True
    unit = float(scores["before"].std())
    ranks = {name: _ranks(values, seen) for name, values in scores.items()}
    lists = {name: set(torch.nonzero((rank <= LENGTH) & ~seen).flatten().tolist()) for name, rank in ranks.items()}

    def row(item: int) -> dict[str, Any]:
        moved = {name: float(scores[name][item] - scores["before"][item]) / unit for name in ("after", "retrained")}
        return {
            "title": titles[item],
            "rank": {name: int(rank[item]) for name, rank in ranks.items()},
            "change_after": round(moved["after"], 4),
            "change_retrained": round(moved["retrained"], 4),
        }

    def rows(items: set[int]) -> list[dict[str, Any]]:
        return [row(item) for item in sorted(items, key=lambda item: int(ranks["before"][item]))]

    similar = [int(item) for item in nearest if not seen[item]]
    return {
        "name": case.name,
        "user": case.user,
        "n_interactions": int((known.edges[0] == case.user).sum()),
        "erased": [row(int(item)) for item in case.items],
        "left": rows(lists["before"] - lists["after"]),
        "came": rows(lists["after"] - lists["before"]),
        "stayed": rows(lists["before"] & lists["after"]),
        "left_retrained": len(lists["before"] - lists["retrained"]),
        "left_both": len((lists["before"] - lists["after"]) - lists["retrained"]),
        "similar": [row(item) for item in similar[:5]],
        "change_similar": _mean_change(scores, similar, unit),
        "change_rest": _mean_change(scores, _others(seen, similar), unit),
    }


def measure() -> dict[str, Any]:
    """Trains what is missing, forgets, and tells the three cases."""
    dataset = read_dataset(data_dir() / DATASET)
    split, model_cache = Split.of(dataset), ModelCache(MODELS)
    recipe = recipe_of(DATASET, BACKBONE)
    clean = model_cache.clean(split, recipe.backbone, recipe.training, SEEDS[0]).state.readout
    cases = choose(clean, split.train)
    edges = torch.cat([case.edges for case in cases], dim=1)
    scenario = Scenario("cases", split.train, edges, "clean", "without-cases")
    readouts = _readouts(split, scenario, model_cache, recipe)
    items = torch.nn.functional.normalize(clean[split.train.n_users :], dim=1)
    titles = _titles(dataset)
    return {
        "dataset": DATASET,
        "backbone": BACKBONE,
        "method": METHOD,
        "n_seeds": len(SEEDS),
        "length": LENGTH,
        "cases": [
            told(case, readouts, split.known, titles, torch.topk(items @ items[case.items[0]], SIMILAR + 1).indices[1:])
            for case in cases
        ],
        "_measured": {"commit": commit()},
    }


def stored() -> Mapping[str, Any] | None:
    """The cases that were measured; None where they were not."""
    if not PATH.exists():
        return None
    found: dict[str, Any] = json.loads(PATH.read_text())
    return found


def main() -> int:
    """Measures the cases where they are not there yet."""
    if stored() is None:
        torch.set_num_threads(1)
        write_json(PATH, measure(), sort=False)
    return 0


def _readouts(split: Split, scenario: Scenario, model_cache: ModelCache, recipe: Recipe) -> Readouts:
    found = Readouts([], [], [])
    for seed in SEEDS:
        arguments = (split, scenario, recipe.backbone, recipe.training, seed)
        state = model_cache.base(*arguments).state
        context = MethodContext(
            training=replace(recipe.training, seed=seed),
            seed=seed,
            encoders=encoders_of(DATASET, BACKBONE),
            retrained=lambda arguments=arguments: model_cache.retrained(*arguments),  # type: ignore[misc]
        )
        method = METHODS[METHOD].make(context)
        method.prepare(state)
        found.before.append(state.readout)
        found.after.append(method.forget(state, UnlearningRequest.of(state, forget=scenario.edges)).readout)
        found.retrained.append(model_cache.retrained(*arguments).state.readout)
    return found


def _most_telling(
    readout: Tensor, graph: InteractionGraph, nearest: Tensor, degrees: tuple[int, int], taken: Sequence[int]
) -> tuple[int, int]:
    """User and item row; of people whose number of interactions lies between the given ones."""
    fitting = torch.nonzero((graph.user_degree >= degrees[0]) & (graph.user_degree <= degrees[1])).flatten()
    order = torch.randperm(fitting.numel(), generator=torch.Generator().manual_seed(0))
    best, chosen = -1, (0, 0)
    for user in fitting[order[:CANDIDATES]].tolist():
        if user in taken:
            continue
        history = _history(graph, user)
        scores = readout[graph.n_users :] @ readout[user]
        scores[history] = -torch.inf
        listed = torch.zeros(graph.n_items, dtype=torch.bool)
        listed[torch.topk(scores, LENGTH).indices] = True
        hits = listed[nearest[history]].sum(dim=1)
        if int(hits.max()) > best:
            best, chosen = int(hits.max()), (user, int(history[hits.argmax()]))
    return chosen


def _history(graph: InteractionGraph, user: int) -> Tensor:
    return graph.edges[1][graph.edges[0] == user].long()


def _ranks(scores: Tensor, seen: Tensor) -> Tensor:
    """(n_items,) rank from 1 among the items that are not seen; one that is seen gets the rank it would have."""
    unseen = scores[~seen].sort(descending=True).values
    return torch.searchsorted(-unseen, -scores) + 1


def _others(seen: Tensor, similar: Sequence[int]) -> list[int]:
    rest = ~seen
    rest[torch.tensor(similar, dtype=torch.long)] = False
    return [int(item) for item in torch.nonzero(rest).flatten()]


def _mean_change(scores: Mapping[str, Tensor], items: Sequence[int], unit: float) -> dict[str, float]:
    rows = torch.tensor(items, dtype=torch.long)
    return {
        name: round(float((scores[name][rows] - scores["before"][rows]).mean()) / unit, 4)
        for name in ("after", "retrained")
    }


def _titles(dataset: Dataset) -> list[str]:
    ids = dataset.items.ids
    return [dataset.titles.get(each, each) for each in ids]


if __name__ == "__main__":
    sys.exit(main())
