"""The figures of the demonstration: one evaluator for the model before, after, and trained anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store import ModelStore
from service.cli.context import Home
from service.cli.demo.report import ErasureFacts, ListFacts, ManyFacts, MembershipFacts, Quality
from service.evaluation.membership import MembershipProbe
from service.evaluation.retraining_share import Estimate, auc_estimate, placements, retraining_share
from service.interactions.service import item_keys, user_keys
from service.recommender.dataset import Dataset
from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.recommender.ranking import ranking_quality, top_items
from service.recommender.training import EpochReport, TrainingConfig
from service.unlearning.request import UnlearningRequest
from service.unlearning.retrain import Retrain
from service.worker.engine import EMBEDDINGS, LoadedBase, load_base

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class DemoEvaluator:
    """A base, what it has learnt, and what was held out of it, in rows of the base.

    Shapes: `users` and `items` are the outside ids by row; `seen` holds all recorded interactions, the validation part
    too; `test` those that no model ever saw.
    """

    base: LoadedBase
    users: tuple[str, ...]
    items: tuple[str, ...]
    seen: InteractionGraph
    test: InteractionGraph

    def quality(self, readout: Tensor) -> Quality:
        """Recall and NDCG of a readout, (n_nodes, d), on the test part."""
        with torch.no_grad():
            measured = ranking_quality(readout, self.seen, self.test)
        return Quality(measured.recall, measured.ndcg)

    def probe(self, erased: Tensor) -> MembershipProbe:
        """The pairs on which membership is measured: these, the test part, and pairs that nobody has."""
        known = torch.cat((self.seen.edges, self.test.edges), dim=1)
        everything = InteractionGraph(self.seen.n_users, self.seen.n_items, known)
        return MembershipProbe.of(everything, erased, self.test.edges)

    def request(self, edges: Rows) -> UnlearningRequest:
        """The erasure of (2, k) pairs of user and item rows."""
        return UnlearningRequest.of(self.base.state, torch.from_numpy(edges).int())

    def membership(self, probe: MembershipProbe, readout: Tensor) -> MembershipFacts:
        """The figures of one model; `before` is always the base."""
        with torch.no_grad():
            figures = probe.measure(readout, self.base.state.readout)
        return MembershipFacts(
            figures.auc_heldout,
            figures.p_erased,
            figures.p_heldout,
            figures.p_negative,
            figures.mi_bf,
            figures.mi_ng,
        )

    def scores(self, readout: Tensor, edges: Tensor) -> Tensor:
        """Scores of (2, m) pairs by a readout, (m,) float64."""
        with torch.no_grad():
            return pair_scores(readout, self.seen.n_users, edges[0].long(), edges[1].long()).double()

    def first_items(self, readout: Tensor, users: Tensor, n: int) -> Tensor:
        """Item rows, (len(users), n), that a readout recommends, best first; what was recorded once is left out."""
        with torch.no_grad():
            return top_items(readout, self.seen, users, n)

    def retrain(
        self, request: UnlearningRequest, report: Callable[[EpochReport], None], *, other_seed: bool = False
    ) -> tuple[Tensor, float]:
        """Train from scratch without the request; returns the readout and the seconds that it took.

        The seed is that of the base, or another one.
        """
        training = TrainingConfig(**self.base.manifest.facts.config["training"])
        if other_seed:
            training = replace(training, seed=training.seed + 1)
        result = Retrain(training, report=report).forget(self.base.state, request)
        return result.readout, result.seconds["train"]


def make_evaluator(home: Home, dataset: Dataset, version: int) -> DemoEvaluator:
    """The evaluator of a base of this data set, as long as the ids of the data set are on record."""
    base = load_base(home.store, version)
    with home.database.read() as connection:
        user_of = user_keys(connection, home.identity, dataset.users.ids)
        item_of = item_keys(connection, home.identity, dataset.items.ids)
    user_rows, item_rows = _rows(base.user_keys, user_of), _rows(base.item_keys, item_of)
    n_users, n_items = len(base.user_keys), len(base.item_keys)
    parts = [_graph(part, user_rows, item_rows, (n_users, n_items)) for part in (dataset.train, dataset.test)]
    users, items = _ids(dataset.users.ids, user_rows, n_users), _ids(dataset.items.ids, item_rows, n_items)
    return DemoEvaluator(base, users, items, *parts)


def readout_of(store: ModelStore, version: int) -> Tensor:
    """The embeddings that a version serves, (n_users + n_items, d), users first; a copy."""
    embeddings: Mapping[str, Any] = store.open("versions", version, EMBEDDINGS)
    return torch.from_numpy(np.concatenate((embeddings["users"], embeddings["items"])))


def _rows(keys: Rows, wanted: Rows) -> Rows:
    """The row of each key, -1 where the base lacks it."""
    rows = np.searchsorted(keys, wanted).clip(max=max(len(keys) - 1, 0))
    return np.where(keys[rows] == wanted, rows, -1) if len(keys) else np.full(len(wanted), -1)


def _graph(part: NDArray[np.int32], user_rows: Rows, item_rows: Rows, shape: tuple[int, int]) -> InteractionGraph:
    edges = np.stack((user_rows[part[:, 0]], item_rows[part[:, 1]]))
    known = (edges >= 0).all(axis=0)
    return InteractionGraph(*shape, torch.from_numpy(edges[:, known]))


def _ids(ids: tuple[str, ...], rows: Rows, count: int) -> tuple[str, ...]:
    by_row = [""] * count
    for id, row in zip(ids, rows.tolist(), strict=True):
        if row >= 0:
            by_row[row] = id
    return tuple(by_row)


def same_of(lists: Tensor, others: Tensor) -> Tensor:
    """How many items of each list, (u, n), are in the other of the same row; (u,) int64."""
    return (lists[:, :, None] == others[:, None, :]).any(dim=2).sum(dim=1)


def measure_many(
    evaluator: DemoEvaluator, readouts: Mapping[str, Tensor], pairs: Rows, erasure: ErasureFacts
) -> ManyFacts:
    """What an erasure of (2, k) pairs did.

    `readouts` are those of `before`, `after`, `retrain` and perhaps `retrain_again`.
    """
    edges = evaluator.request(pairs).edges
    probe = evaluator.probe(edges)
    scores = {name: evaluator.scores(readout, edges) for name, readout in readouts.items()}
    heldout = {name: evaluator.scores(readout, evaluator.test.edges) for name, readout in readouts.items()}
    return ManyFacts(
        erasure,
        len(np.unique(pairs[0])),
        {name: evaluator.membership(probe, readout) for name, readout in readouts.items()},
        {name: auc_estimate(scores[name], heldout[name]) for name in readouts},
        _shares(scores),
        _shares({name: placements(scores[name], heldout[name]) for name in readouts}),
        _list_facts(evaluator, readouts, pairs),
    )


def most_changed(
    evaluator: DemoEvaluator, readouts: Mapping[str, Tensor], pairs: Rows, n: int
) -> tuple[int, list[tuple[int, dict[str, int | None]]]]:
    """The user among those of the pairs whose first n lost most items, and the items of that list by model.

    Of several, the one of whom most was erased, then the first row. Every item of the first n before and after comes
    once, those before first, with its rank in the first n of each model, None where it is not among them.
    """
    users, counts = np.unique(pairs[0], return_counts=True)
    rows = torch.from_numpy(users)
    lists = {name: evaluator.first_items(readout, rows, n) for name, readout in readouts.items()}
    stayed = same_of(lists["before"], lists["after"]).cpu().numpy()
    place = int(np.lexsort((users, -counts, stayed))[0])
    ranked = {name: each[place].tolist() for name, each in lists.items()}
    items = dict.fromkeys(ranked["before"] + ranked["after"])
    ranks = [
        (item, {name: each.index(item) + 1 if item in each else None for name, each in ranked.items()})
        for item in items
    ]
    return int(users[place]), ranks


def _shares(values: Mapping[str, Tensor]) -> dict[str, Estimate]:
    """Of the way from before to the mean of what was retrained."""
    retrained = [each for name, each in values.items() if name.startswith("retrain")]
    goal = torch.stack(retrained).mean(dim=0)
    return {name: retraining_share(values["before"], each, goal) for name, each in values.items()}


def _list_facts(evaluator: DemoEvaluator, readouts: Mapping[str, Tensor], pairs: Rows, n: int = 10) -> ListFacts:
    users = torch.from_numpy(np.unique(pairs[0]))
    lists = {name: evaluator.first_items(readout, users, n) for name, readout in readouts.items()}

    def same(one: str, other: str) -> float:
        return float(same_of(lists[one], lists[other]).double().mean())

    again = same("retrain", "retrain_again") if "retrain_again" in lists else None
    return ListFacts(same("after", "before"), same("before", "retrain"), same("after", "retrain"), again)
