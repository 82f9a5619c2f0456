"""A generated data set with planted communities, for where no real one can be had."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.recommender.dataset import Dataset, DatasetCounts, Rows, Vocabulary

NAME = "generated"
_GENRES = ("Comedy", "Drama", "Mystery", "Adventure", "Romance", "Thriller", "Fantasy", "Western", "Musical", "Noir")
_ADJECTIVES = ("Quiet", "Golden", "Broken", "Distant", "Crimson", "Hidden", "Silver", "Restless", "Winter", "Hollow")
_NOUNS = ("Harbour", "Garden", "Letter", "Mirror", "Station", "River", "Orchard", "Lantern", "Bridge", "Island")


@dataclass(frozen=True)
class GeneratorConfig:
    """What to generate.

    `n_users`, `n_items`, `n_communities` >= 1; `mean_degree` interactions a user on average, > 0; `affinity` how much
    likelier an item of the own community is, as a logit; `test_share` of each user's interactions, in [0, 1).
    """

    n_users: int = 900
    n_items: int = 1_200
    n_communities: int = 10
    mean_degree: float = 60.0
    affinity: float = 2.5
    test_share: float = 0.1


def generate_dataset(
    seed: int, n_users: int = 900, n_items: int = 1_200, *, plan: GeneratorConfig | None = None
) -> Dataset:
    """Users and items in communities; people mostly like what their community likes, and popular things.

    The same arguments give the same data. Memory: n_users x n_items float32.

    Args:
        seed: of the generator.
        n_users: number of users, ignored where a plan is given.
        n_items: number of items, ignored where a plan is given.
        plan: everything else.
    """
    plan = plan or GeneratorConfig(n_users, n_items)
    random = np.random.default_rng(seed)
    community_of_item = random.integers(plan.n_communities, size=plan.n_items)
    chosen = _choose(plan, random, community_of_item)
    users, items = np.nonzero(chosen)
    is_test = _held_out(plan, random, users)
    titles = _titles(community_of_item)
    return _number(titles, np.stack((users, items), axis=1), is_test)


def _choose(
    plan: GeneratorConfig, random: np.random.Generator, community_of_item: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(n_users, n_items) bool: for each user, a sample without replacement by Gumbel's trick."""
    popularity = -0.8 * np.log(random.permutation(plan.n_items) + 10.0)
    mine = random.integers(plan.n_communities, size=plan.n_users)
    logits = popularity + plan.affinity * (mine[:, None] == community_of_item[None, :])
    keys = (logits + random.gumbel(size=logits.shape)).astype(np.float32)
    degrees = np.clip(random.gamma(2.0, plan.mean_degree / 2.0, plan.n_users), 5, plan.n_items / 2).astype(np.int64)
    ranked = np.argsort(-keys, axis=1)
    chosen = np.zeros(logits.shape, np.bool_)
    np.put_along_axis(chosen, ranked, np.arange(plan.n_items)[None, :] < degrees[:, None], axis=1)
    return chosen


def _held_out(plan: GeneratorConfig, random: np.random.Generator, users: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(m,) bool: the same share of each user's interactions, at random; every user keeps some."""
    order = np.lexsort((random.random(len(users)), users))
    starts = np.searchsorted(users, users[order])
    degrees = np.bincount(users)[users[order]]
    is_test = np.zeros(len(users), np.bool_)
    is_test[order] = np.arange(len(users)) - starts < np.floor(degrees * plan.test_share)
    return is_test


def _titles(community_of_item: NDArray[np.int64]) -> list[str]:
    names = [f"The {adjective} {noun}" for adjective in _ADJECTIVES for noun in _NOUNS]
    return [
        f"{names[item % len(names)]} {item // len(names) + 1} ({_GENRES[community % len(_GENRES)]})"
        for item, community in enumerate(community_of_item.tolist())
    ]


def _number(titles: list[str], pairs: NDArray[np.int64], is_test: NDArray[np.bool_]) -> Dataset:
    """Ids for rows, in the order that vocabularies have; test pairs of items that train lacks are kept out."""
    train, test = pairs[~is_test], pairs[is_test]
    kept_users, kept_items = np.unique(train[:, 0]), np.unique(train[:, 1])
    users = [_id("u", user) for user in kept_users.tolist()]
    items = [_id("i", item) for item in kept_items.tolist()]
    known = np.isin(test[:, 1], kept_items)
    counts = DatasetCounts(len(train), len(test), test_unknown=int((~known).sum()))
    return Dataset(
        NAME,
        Vocabulary(tuple(users)),
        Vocabulary(tuple(items)),
        _rows(train, kept_users, kept_items),
        _rows(test[known], kept_users, kept_items),
        {_id("i", item): title for item, title in enumerate(titles)},
        counts,
    )


def _id(kind: str, number: int) -> str:
    return f"{kind}{number + 1:07d}"


def _rows(pairs: NDArray[np.int64], users: NDArray[np.int64], items: NDArray[np.int64]) -> Rows:
    rows = np.stack((np.searchsorted(users, pairs[:, 0]), np.searchsorted(items, pairs[:, 1])), axis=1)
    return rows.astype(np.int32)
