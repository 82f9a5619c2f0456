"""Homes to serve from: the data set imported, and the base and encoder of `benchmarks.learning` published.

One home is built and kept; each measurement gets a copy of its own, on the same file system, and spoils that.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import migrations
from benchmarks import cells, learning
from service.cli.context import Home, open_home
from service.interactions.importing import import_dataset
from service.interactions.readers import read_dataset
from service.interactions.service import Snapshot, item_keys, snapshot, user_keys
from service.platform.auth import ensure_first_key
from service.platform.clock import SystemClock
from service.recommender.dataset import Dataset
from service.recommender.graph import InteractionGraph
from service.recommender.ranking import ranking_quality
from service.recommender.training import TrainingResult
from service.settings import load_settings
from service.unlearning.encoder import InfluenceEncoder
from service.unlearning.judging import Judgement, ShapeFigures
from service.unlearning.pretraining import PretrainingResult
from service.unlearning.state import TrainedState
from service.worker.encoders import publish_encoder
from service.worker.training import BaseConfig, UnpublishedBase, publish_base

FACTS = "benchmark.json"
Order = NDArray[np.int64]


@dataclass(frozen=True)
class BenchmarkHome:
    """A home that serves the data set."""

    folder: Path
    token: str


@cache
def dataset() -> Dataset:
    """The data set that every home holds."""
    return read_dataset(cells.data_dir() / "ml-1m")


@contextmanager
def fresh_home() -> Iterator[BenchmarkHome]:
    """A home that nobody used yet; it is gone at the end."""
    kept = _kept_home()
    with tempfile.TemporaryDirectory(prefix="run-", dir=cells.CACHE, ignore_cleanup_errors=True) as folder:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        facts = json.loads((kept / FACTS).read_text())
        yield BenchmarkHome(Path(folder), facts["token"])


def _kept_home() -> Path:
    """The home that copies are made of; built where there is none of these data, base and encoder."""
    state = learning.base()
    encoder, _ = learning.encoder("encoder-forget", state, learning.FORGET)
    digest = hashlib.sha256(migrations.head().encode())
    for tensor in (state.e0, state.graph.edges, *encoder.tensors().values()):
        digest.update(tensor.numpy().tobytes())
    home = cells.CACHE / f"home-{digest.hexdigest()[:16]}"
    if not home.exists():
        print("  building a home: import, base, encoder", flush=True)
        with tempfile.TemporaryDirectory(prefix="making-", dir=cells.CACHE) as making:
            token = _build(Path(making) / "home", state, encoder)
            cells.write_json(Path(making) / "home" / FACTS, {"token": token})
            (Path(making) / "home").rename(home)
    return home


def _build(folder: Path, state: TrainedState, encoder: InfluenceEncoder) -> str:
    with open_home(load_settings(home=folder), upgrade=True) as home:
        import_dataset(home.database, home.identity, dataset())
        with home.database.read() as connection:
            data = snapshot(connection)
        order = _order(home, data)
        recipe = BaseConfig(learning.BACKBONE, learning.RECIPE, learning.VALIDATION_SHARE)
        learnt = UnpublishedBase(data, _reordered(state, order), recipe, _training_result(state, order))
        base = publish_base(home.database, home.store, learnt)
        publish_encoder(home.database, home.store, base.version, learning.FORGET, _pretraining_result(encoder, order))
        at = SystemClock().now()
        key = home.database.transact(lambda connection: ensure_first_key(connection, at))
        assert key is not None, "a new home has no key yet"
        return key.token


def _order(home: Home, data: Snapshot) -> Order:
    """(n_nodes,) the data set's row of each node of the snapshot: SQL numbers users and items by itself."""
    ids = dataset()
    with home.database.read() as connection:
        users = user_keys(connection, home.identity, ids.users.ids)
        items = item_keys(connection, home.identity, ids.items.ids)
    by_key = np.argsort(users), np.argsort(items)
    assert np.array_equal(users[by_key[0]], data.user_keys), "every user was imported"
    assert np.array_equal(items[by_key[1]], data.item_keys), "every item was imported"
    return np.concatenate((by_key[0], len(users) + by_key[1]))


def _reordered(state: TrainedState, order: Order) -> TrainedState:
    """The same base with its nodes in the order of the snapshot."""
    n_users, n_items = state.graph.n_users, state.graph.n_items
    place = torch.empty(len(order), dtype=torch.int64)
    place[torch.from_numpy(order)] = torch.arange(len(order))

    def moved(edges: torch.Tensor) -> torch.Tensor:
        return torch.stack((place[edges[0].long()], place[n_users + edges[1].long()] - n_users)).int()

    graph = InteractionGraph(n_users, n_items, moved(state.graph.edges))
    return TrainedState(graph, moved(state.validation), state.e0[torch.from_numpy(order)], state.backbone)


def _training_result(state: TrainedState, order: Order) -> TrainingResult:
    graph = state.graph
    held_out = InteractionGraph(graph.n_users, graph.n_items, state.validation)
    with np.load(cells.CACHE / "clean-0.npz") as stored:
        seconds, best = stored["seconds"], int(stored["best_epoch"])
    quality = ranking_quality(state.readout, graph, held_out)
    e0 = state.e0[torch.from_numpy(order)]
    return TrainingResult(e0, best, len(seconds), quality, float(seconds.sum()), ())


def _pretraining_result(encoder: InfluenceEncoder, order: Order) -> PretrainingResult:
    facts = cells.stored("encoder-forget")
    assert facts is not None, "the encoder's cell was written beside it"
    chosen = next(page for page in facts["history"] if page["step"] == facts["chosen_step"])
    judgement = Judgement(
        {shape: ShapeFigures(**figures) for shape, figures in chosen["shapes"].items()},
        chosen["score"],
        chosen["quality_ratio"],
    )
    rows = torch.from_numpy(order)
    moved = InfluenceEncoder(encoder.config, encoder.h0[rows], encoder.weight[rows], encoder.mlp, encoder.expectation)
    return PretrainingResult(
        moved, facts["chosen_step"], judgement, (), facts["seconds"], facts.get("shadow_seconds", 0.0)
    )
