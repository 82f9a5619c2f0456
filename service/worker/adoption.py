"""Taking over a model that was trained elsewhere: its embeddings become a base that serves and can be unlearnt from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import Connection
from torch import Tensor

from model_store import ModelStore
from service.interactions import service as interactions
from service.interactions.refusals import DataProblem
from service.interactions.repository import Keys
from service.interactions.service import Snapshot
from service.interactions.vectors import Vectors
from service.models.problems import NothingToLearn
from service.platform.clock import Clock
from service.platform.database import Database
from service.platform.identity import Identity
from service.platform.problem import Conflict
from service.recommender.backbones import Backbone, MatrixFactorisation
from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.recommender.ranking import ranking_quality
from service.recommender.soundness import refuse_flaw
from service.recommender.training import TrainingConfig, TrainingResult
from service.unlearning.ranks import auc
from service.unlearning.state import TrainedState
from service.worker.training import BaseConfig, PublishedBase, UnpublishedBase, publish_base

CERTAIN = 2.0  # standard errors by which learnt pairs must score above held-out ones


class MayKnowErased(Conflict):
    """A model from outside may have learnt what was erased here."""

    code = "may_know_erased"
    title = "The model may know what was erased here"
    next_step = (
        "Train it on what is recorded and not suppressed now; `expunge adopt --without-erased` says that this is so."
    )


@dataclass(frozen=True)
class ExternalModel:
    """A model that was trained elsewhere.

    `held_out`: outside ids (user, item) of recorded pairs that it has not learnt. `without_erased`: whoever brings it
    vouches that it was trained without everything that an erasure covers.
    """

    vectors: Vectors
    held_out: Sequence[tuple[str, str]]
    backbone: Backbone = field(default_factory=MatrixFactorisation)
    without_erased: bool = False
    accept_worse: bool = False
    """Whether it may be published though it ranks far worse than the base in use."""


@dataclass(frozen=True)
class AdoptionResult:
    """An adopted base, and what of the file and of the held-out pairs was passed over.

    `unused_users` and `unused_items`: rows of the file that nothing recorded needs. `unused_held_out`: pairs that are
    not recorded, or whose user or item holds nothing else. `held_out_auc`: probability that a pair that was learnt
    scores above a held-out one; it lies above .5 in a model that has learnt something by heart.
    """

    base: PublishedBase
    unused_users: int
    unused_items: int
    unused_held_out: int
    held_out_auc: float


def adopt_base(
    database: Database,
    store: ModelStore,
    identity: Identity,
    foreign: ExternalModel,
    *,
    go_live: bool = False,
    clock: Clock | None = None,
) -> AdoptionResult:
    """Publish a base whose embeddings were trained elsewhere, on what is recorded here; `train_base` tells the rest.

    What is recorded, held-out pairs apart, counts as learnt. The held-out pairs show what a pair scores that the model
    never saw: forgetting is aimed at that, and the gate judges by it, so there is no base without them.

    Raises:
        NothingToLearn: too little is recorded.
        DataProblem: a recorded user or item has no row; no held-out pair is of use, or the model seems to know them.
        Unsound, FarWorse: the model must not serve.
        MayKnowErased: an erasure was accepted here, and nobody vouches that the model was trained without it.
        TrainingOvertaken: another training was published at the same time.
    """
    started = time.perf_counter()
    with database.read() as connection:
        if not foreign.without_erased and interactions.anything_suppressed(connection):
            raise MayKnowErased
        data = interactions.snapshot(connection)
        sides = [_rows_of(connection, identity, data, foreign.vectors, side) for side in ("users", "items")]
        asked = _held_out(connection, identity, data, foreign.held_out)
    graph, validation = _split(data, asked)
    vectors = (foreign.vectors.users[sides[0]], foreign.vectors.items[sides[1]])
    state = TrainedState(graph, validation, torch.from_numpy(np.concatenate(vectors)), foreign.backbone)
    training = TrainingConfig(embedding_size=state.e0.shape[1])
    config = BaseConfig(foreign.backbone, training, None, foreign.vectors.sha256, foreign.accept_worse)
    refuse_flaw(state.readout, graph, config.cause)
    certainty = _knows_what_it_learnt(state)
    seen = InteractionGraph(graph.n_users, graph.n_items, validation)
    quality = ranking_quality(state.readout, graph, seen)
    result = TrainingResult(state.e0, 0, 0, quality, time.perf_counter() - started, ())
    base = publish_base(database, store, UnpublishedBase(data, state, config, result), go_live=go_live, clock=clock)
    return AdoptionResult(
        base,
        len(foreign.vectors.users) - graph.n_users,
        len(foreign.vectors.items) - graph.n_items,
        len(set(foreign.held_out)) - validation.shape[1],
        certainty,
    )


def _rows_of(
    connection: Connection, identity: Identity, data: Snapshot, vectors: Vectors, side: str
) -> NDArray[np.int64]:
    """Which row of the file each row of the snapshot is, (n,) int64."""
    if side == "users":
        wanted, keys = data.user_keys, interactions.user_keys(connection, identity, vectors.user_ids)
    else:
        wanted, keys = data.item_keys, interactions.item_keys(connection, identity, vectors.item_ids)
    order = np.argsort(keys, kind="stable")
    place = np.searchsorted(keys[order], wanted).clip(max=len(keys) - 1)
    rows: NDArray[np.int64] = order[place]
    missing = int((keys[rows] != wanted).sum())
    if missing:
        msg = (
            f"{missing:,} of the {len(wanted):,} {side} with interactions have no row among the {len(keys):,} of the "
            "file. Give every one a row; are the ids those that were imported?"
        )
        raise DataProblem(msg)
    return rows


def _held_out(connection: Connection, identity: Identity, data: Snapshot, pairs: Sequence[tuple[str, str]]) -> Tensor:
    """(2, k) rows of the held-out pairs whose user and item are known; they may repeat, or not be recorded."""
    columns: list[Keys] = [np.zeros(0, np.int64)] * 2
    if pairs:
        users, items = zip(*pairs, strict=True)
        columns = [
            interactions.user_keys(connection, identity, users),
            interactions.item_keys(connection, identity, items),
        ]
    known = np.isin(columns[0], data.user_keys) & np.isin(columns[1], data.item_keys)
    return torch.from_numpy(
        np.stack(
            (
                np.searchsorted(data.user_keys, columns[0][known]),
                np.searchsorted(data.item_keys, columns[1][known]),
            )
        )
    )


def _split(data: Snapshot, asked: Tensor) -> tuple[InteractionGraph, Tensor]:
    """What was learnt and what was held out; held-out pairs that would leave a row with nothing are neither."""
    n_users, n_items = len(data.user_keys), len(data.item_keys)
    if n_users < 2 or n_items < 2:
        raise NothingToLearn
    recorded = InteractionGraph(n_users, n_items, torch.from_numpy(data.edges.reshape(2, -1)))
    held_out = recorded.common(asked)
    graph = recorded.without(held_out)
    held_out = held_out[:, graph.keeps(held_out)]
    if not held_out.shape[1]:
        msg = (
            "None of the held-out pairs is of use. Name interactions that are recorded, that the model has not learnt, "
            "and whose user and item have others: without them nobody knows what a forgotten pair should score."
        )
        raise DataProblem(msg)
    return graph, held_out


def _knows_what_it_learnt(state: TrainedState) -> float:
    """The AUC of learnt pairs against held-out ones; refuses a model that tells them apart no better than by chance.

    For such a model every pair is forgotten as it stands, and the gate would let everything through.
    """
    edges, held_out = state.graph.edges.long(), state.validation.long()
    learnt, unseen = (
        pair_scores(state.readout, state.graph.n_users, pairs[0], pairs[1]) for pairs in (edges, held_out)
    )
    found = auc(learnt, unseen)
    error = sqrt((1 / learnt.numel() + 1 / unseen.numel()) / 12)  # of the Mann-Whitney statistic where both are alike
    if found <= 0.5 + CERTAIN * error:
        msg = (
            f"The model scores the held-out pairs as high as those it learnt (AUC {found:.3f}): it has learnt them, "
            "too, or fits neither. Nothing could be judged by them. Name pairs that it was trained without."
        )
        raise DataProblem(msg)
    return found
