"""What is erased: a group of a real user's items that can be recognised, and then a random share of all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_ERASED = 5
FEWEST, MOST = 15, 30
USERS_TRIED = 400
SHARE, FEWEST_DRAWN, MOST_SHARE, MOST_DRAWN = 0.01, 300, 0.02, 10_000
KNOWN_SHARE = 0.02
"""An item counts as well known that so many of the users interacted with."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """A user row, and the item rows to erase, (k,) int64, the most typical first."""

    user: int
    items: Rows
    n_interactions: int


def choose(edges: Rows, items: NDArray[np.float32], n_users: int, n_erased: int = N_ERASED) -> Choice:
    """The user whose well-known items hold the tightest group, and that group.

    Users with 15 to 30 interactions come first, so that the group is a part of them and not all; among few users
    anybody does. What the model will do with the erasure has no say in this.

    Args:
        edges: (2, m) user and item rows that the model has learnt.
        items: (n_items, d) embeddings of the base.
        n_users: number of user rows.
        n_erased: size of the group, >= 2; less where nobody has so many.
    """
    degrees = np.bincount(edges[0], minlength=n_users)
    popularity = np.bincount(edges[1], minlength=len(items))
    norms = np.linalg.norm(items, axis=1, keepdims=True)
    directions = items / np.maximum(norms, 1e-12)
    starts = np.concatenate(([0], np.cumsum(degrees)))
    by_user = edges[1][np.argsort(edges[0], kind="stable")]
    best: tuple[float, int, Rows] | None = None
    for user in _candidates(degrees, n_erased):
        own = by_user[starts[user] : starts[user + 1]]
        known = own[popularity[own] >= KNOWN_SHARE * n_users]
        tightness, group = _tightest(directions, known if len(known) >= n_erased else own, n_erased)
        if best is None or tightness > best[0]:
            best = (tightness, int(user), group)
    if best is None:
        msg = "No user has two interactions."
        raise ValueError(msg)
    return Choice(best[1], best[2], int(degrees[best[1]]))


def draw(edges: Rows, chosen: Choice, seed: int = 0) -> Rows:
    """A random 1 % of the interactions, without those that were chosen; (2, k) user and item rows.

    Of few interactions up to 2 %, so that there are some hundred; never more than one call may name. The seed alone
    decides which.
    """
    rest = np.flatnonzero(~((edges[0] == chosen.user) & np.isin(edges[1], chosen.items)))
    n_all = edges.shape[1]
    count = round(min(max(SHARE * n_all, min(FEWEST_DRAWN, MOST_SHARE * n_all)), MOST_DRAWN, len(rest)))
    drawn = np.random.default_rng(seed).choice(rest, count, replace=False)
    return np.asarray(edges[:, np.sort(drawn)])


def _candidates(degrees: NDArray[np.int64], n_erased: int) -> Rows:
    fit = np.flatnonzero((degrees >= max(FEWEST, 2 * n_erased)) & (degrees <= MOST))
    if not len(fit):
        fit = np.argsort(-degrees, kind="stable")
        fit = fit[degrees[fit] >= 2]
    return fit[:USERS_TRIED]


def _tightest(directions: NDArray[np.float32], own: Rows, n_erased: int) -> tuple[float, Rows]:
    """The item of one's own whose nearest others are nearest, with these, and their mean cosine to it."""
    vectors = directions[own]
    cosines = vectors @ vectors.T
    size = min(n_erased, len(own))
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :size]
    tightness = np.take_along_axis(cosines, nearest, axis=1).mean(axis=1)
    seed = int(np.argmax(tightness))
    return float(tightness[seed]), own[nearest[seed]]
