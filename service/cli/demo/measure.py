"""The figures of the story: one ruler for the model before, after, and trained anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store import ModelStore
from service.cli.context import Home
from service.cli.demo.report import MembershipFacts, Quality
from service.evaluation.membership import MembershipProbe
from service.interactions.service import item_keys, user_keys
from service.recommender.dataset import Dataset
from service.recommender.graph import InteractionGraph
from service.recommender.ranking import ranking_quality
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

    def request(self, user: int, items: Rows) -> UnlearningRequest:
        """The erasure of one user's interactions with some items, all in rows."""
        edges = torch.stack((torch.full((len(items),), user), torch.from_numpy(items))).int()
        return UnlearningRequest.of(self.base.state, edges)

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

    def retrain(self, request: UnlearningRequest, report: Callable[[EpochReport], None]) -> tuple[Tensor, float]:
        """Train from scratch without the request; returns the readout and the seconds that it took."""
        training = TrainingConfig(**self.base.manifest.facts.config["training"])
        result = Retrain(training, report=report).forget(self.base.state, request)
        return result.readout, result.seconds["train"]


def make_ruler(home: Home, dataset: Dataset, version: int) -> DemoEvaluator:
    """The ruler for a base of this data set, as long as the ids of the data set are on record."""
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
