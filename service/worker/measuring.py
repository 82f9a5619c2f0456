"""How well a base finds interactions that it was never shown."""

from collections.abc import Sequence

import numpy as np
import torch
from sqlalchemy import Connection

from model_store import ModelStore
from service.interactions import service as interactions
from service.interactions.repository import Keys
from service.platform.database import Database
from service.platform.identity import Identity
from service.recommender.graph import InteractionGraph
from service.recommender.ranking import RankingQuality, ranking_quality
from service.worker.engine import load_base


def quality_on_pairs(
    database: Database, store: ModelStore, identity: Identity, base: int, pairs: Sequence[tuple[str, str]]
) -> RankingQuality | None:
    """Recall@20 and NDCG@20 of a base on pairs of outside ids (user, item); None where none of them can be looked for.

    Pairs that an erasure covers, that are recorded meanwhile, or whose user or item the base does not hold, are left
    out; what the base has learnt, and what was held out of it, is masked.

    Raises:
        StoreError: the base is gone or damaged.
    """
    if not pairs:
        return None

    def unit(connection: Connection) -> Keys:
        users, items = zip(*pairs, strict=True)
        keys = np.stack(
            (
                interactions.user_keys(connection, identity, users),
                interactions.item_keys(connection, identity, items),
            )
        )
        return interactions.without_suppressed(connection, keys[:, (keys >= 0).all(axis=0)])

    loaded = load_base(store, base)
    keys, state = database.query(unit), loaded.state
    known = np.isin(keys[0], loaded.user_keys) & np.isin(keys[1], loaded.item_keys)
    rows = np.stack(
        (np.searchsorted(loaded.user_keys, keys[0, known]), np.searchsorted(loaded.item_keys, keys[1, known]))
    )
    graph = state.graph
    seen = InteractionGraph(graph.n_users, graph.n_items, torch.cat((graph.edges, state.validation.int()), dim=1))
    wanted = InteractionGraph(graph.n_users, graph.n_items, torch.from_numpy(rows).to(graph.device))
    wanted = wanted.without(wanted.common(seen.edges))
    if not wanted.n_edges:
        return None
    with torch.no_grad():
        return ranking_quality(state.readout, seen, wanted)
