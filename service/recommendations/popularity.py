"""How popular each item is now: what the version learnt, less what was erased since and is not forgotten yet.

A version forgets within seconds, but where the gate holds it back, or nobody unlearns, it may take days: what an
unknown user is shown must not wait for that.
"""

import asyncio
from functools import partial

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import Connection

from model_store import ModelStore, StoreError
from service.audit import service as audit
from service.platform.database import Database
from service.recommendations import repository
from service.recommendations.model import LoadedModel
from service.recommendations.ranker import Scores
from service.recommendations.repository import Keys

BASE = "base.safetensors"

log = structlog.get_logger()


class ItemPopularity:
    """Interactions of each item that a version holds and that nobody has erased.

    Exact: of the erased pairs those count that the version's base has learnt, so neither what was held out nor what was
    recorded later is taken off. Read anew whenever the audit log has grown: it grows with every erasure that is
    accepted, cancelled, held back or forgotten.
    """

    def __init__(self, database: Database, store: ModelStore) -> None:
        self._database, self._store = database, store
        self._lock = asyncio.Lock()
        self._at: tuple[int, int] | None = None
        self._counts: Scores | None = None
        self._learnt: tuple[int, NDArray[np.int32] | None] | None = None

    async def of(self, model: LoadedModel) -> Scores:
        """float32 of shape (n_items,), not the caller's to change."""
        async with self._lock:
            size, pairs = await self._database.run_read(partial(self._read, model.version))
            if pairs is not None:
                counts = await asyncio.to_thread(self._less, model, pairs) if pairs.size else model.popularity
                self._at, self._counts = (model.version, size), counts
            assert self._counts is not None
            return self._counts

    def _read(self, version: int, connection: Connection) -> tuple[int, Keys | None]:
        size = audit.size(connection)
        return size, None if (version, size) == self._at else repository.waiting_pairs(connection)

    def _less(self, model: LoadedModel, pairs: Keys) -> Scores:
        users, items = np.searchsorted(model.user_keys, pairs[0]), np.searchsorted(model.item_keys, pairs[1])
        users[users == len(model.user_keys)] = 0
        items[items == len(model.item_keys)] = 0
        held = (model.user_keys[users] == pairs[0]) & (model.item_keys[items] == pairs[1])
        users, items = users[held], items[held]
        edges = self._edges(model)
        if edges is not None:
            items = items[_holds(edges, users.astype(np.int32), items.astype(np.int32))]
        taken = np.bincount(items, minlength=len(model.item_keys))
        left: Scores = np.maximum(model.popularity - taken, 0).astype(np.float32)
        return left

    def _edges(self, model: LoadedModel) -> NDArray[np.int32] | None:
        """(2, m) rows of the base's interactions, sorted, a map of its file; None where that is not to be had."""
        if self._learnt is None or self._learnt[0] != model.base:
            try:
                edges = self._store.open("versions", model.base, BASE).get("edges")
            except StoreError as error:
                log.warning("base.unreadable", base=model.base, error=type(error).__name__)
                edges = None
            self._learnt = model.base, edges
        return self._learnt[1]


def _holds(edges: NDArray[np.int32], users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which of the pairs stand in (2, m) sorted edges: a binary search for all at once, in each user's own part.

    Of the edges only what is looked at is read, and nothing is copied: they are a map of a file.
    """
    if not edges.shape[1]:
        return np.zeros(len(users), np.bool_)
    last = edges.shape[1] - 1
    low, end = np.searchsorted(edges[0], users, "left"), np.searchsorted(edges[0], users, "right")
    high = end
    while (left := low < high).any():
        middle = (low + high) // 2
        below = edges[1, np.minimum(middle, last)] < items
        low, high = np.where(left & below, middle + 1, low), np.where(left & ~below, middle, high)
    found: NDArray[np.bool_] = (low < end) & (edges[1, np.minimum(low, last)] == items)
    return found
