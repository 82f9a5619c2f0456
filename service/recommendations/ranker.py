"""Scores and their order: what a version says of users and items, computed exactly.

Serving asks a `Ranker`, not a pair of factor matrices, so that a family without embeddings can stand beside this one.
NumPy alone: an API process never imports the training library.
"""

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]

NO_ROW = -1
# Squares of shorter vectors leave float32: such a row has no direction, and nothing is known by it.
SHORTEST = float(np.sqrt(np.finfo(np.float32).tiny))
LARGEST = float(np.finfo(np.float32).max) / 4
_ROWS_AT_ONCE = 65_536
_BLOCK = 32  # scores; a block's maximum is what `top` looks at first


class Ranker(Protocol):
    """Scores of every item for some users: all that serving needs of a model."""

    def scores(self, users: Sequence[int], histories: Sequence[Rows]) -> Scores:
        """Score every item for each user.

        Args:
            users: the row of each user in the version, or `NO_ROW` for one that it does not hold.
            histories: the item rows that each of them interacted with, as recorded now.

        Returns:
            float32 of shape (n, n_items), the caller's to change.
        """
        ...

    def similar(self, item: int) -> Scores:
        """Score every item by its likeness to one item row: float32 of shape (n_items,), the caller's to change."""
        ...


class EmbeddingRanker:
    """Inner products of the version's user and item vectors, over the whole catalogue.

    A user that the version does not hold is folded in by one hop of the propagation that made the vectors:

        e_u = sum over i in N(u) of  e_i / sqrt(d_u d_i)

    with N(u) the user's recorded items, d_u = |N(u)| and d_i the degree of item i in the version's graph. It is the
    vector that LightGCN's last layer would give a new node whose neighbours stay as they are.
    """

    def __init__(self, users: Scores, items: Scores, item_degrees: NDArray[np.int32]) -> None:
        """`users` is (n_users, d), may be a map and is read one row at a time; `items` is (n_items, d)."""
        self._users = users
        # Transposed and contiguous: one pass of a matrix-vector product a request, and twice as fast for many users.
        self._items = np.ascontiguousarray(items.T)  # (d, n_items)
        self._roots = np.sqrt(np.maximum(item_degrees, 1)).astype(np.float32)  # (n_items,)
        norms = lengths(items)
        inverse = np.divide(1, norms, out=np.zeros_like(norms), where=norms >= SHORTEST)
        self._inverse_norms: Scores = inverse.astype(np.float32)

    def scores(self, users: Sequence[int], histories: Sequence[Rows]) -> Scores:
        """Score every item for each user: float32 of shape (n, n_items). See `Ranker.scores`."""
        if len(users) == 1:
            scores: Scores = self._vector(users[0], histories[0]) @ self._items
            return scores.reshape(1, -1)
        vectors = np.stack([self._vector(row, history) for row, history in zip(users, histories, strict=True)])
        product: Scores = vectors @ self._items  # (n, d) x (d, n_items)
        return product

    def similar(self, item: int) -> Scores:
        """Score every item by the cosine of its vector and that of `item`: float32 of shape (n_items,)."""
        scores: Scores = np.ascontiguousarray(self._items[:, item]) @ self._items
        scores *= self._inverse_norms
        scores *= self._inverse_norms[item]
        return scores

    def _vector(self, row: int, history: Rows) -> Scores:
        if row != NO_ROW:
            known: Scores = self._users[row]
            return known
        weights = np.float32(1) / (self._roots[history] * np.sqrt(np.float32(max(len(history), 1))))
        folded: Scores = self._items[:, history] @ weights  # (d,)
        return folded


def lengths(vectors: Scores) -> NDArray[np.float64]:
    """Return the length of each row of (n, d), float64: squares of float32 may be beyond float32."""
    parts = [
        np.linalg.norm(vectors[start : start + _ROWS_AT_ONCE].astype(np.float64), axis=1)
        for start in range(0, len(vectors), _ROWS_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def largest_score(users: NDArray[np.float64], items: NDArray[np.float64]) -> float:
    """Return a bound of all scores, partial sums and those of folded-in users among them, from the rows' lengths.

    |<u, v>| <= |u| |v|, and a user folded in from k items is no longer than sqrt(k) times the longest of them.
    """
    item = float(items.max(initial=0))
    return item * max(float(users.max(initial=0)), item * float(np.sqrt(len(items))))


def top(scores: Scores, n: int) -> Rows:
    """Return the rows of the `n` highest scores, the highest first, equal ones by row; those at -inf are left out.

    Args:
        scores: float32 of shape (n_items,).
        n: how many, at least 1.

    Returns:
        int64 of shape (at most n,).
    """
    rows = np.flatnonzero(scores >= _bound(scores, n))
    candidates = scores[rows]
    order = np.argsort(-candidates, kind="stable")[:n]
    found: Rows = rows[order][candidates[order] > -np.inf]
    return found


def _bound(scores: Scores, n: int) -> np.float32:
    """Return a value that at least `n` of the scores reach, and few more.

    The n-th highest maximum of some disjoint blocks is one: each of the n blocks has a score that reaches it. Finding
    it takes a third of the time of finding the n-th highest score itself.
    """
    n_blocks = len(scores) // _BLOCK
    if n_blocks >= 2 * n:
        maxima = scores[: n_blocks * _BLOCK].reshape(_BLOCK, n_blocks).max(axis=0)
        return cast(np.float32, np.partition(maxima, n_blocks - n)[-n])
    if n < len(scores):
        return cast(np.float32, np.partition(scores, len(scores) - n)[-n])
    return np.float32(-np.inf)
