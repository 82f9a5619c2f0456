"""The generated data set: reproducible, valid, and with communities to be found."""

import numpy as np

from service.interactions.generated import GeneratorConfig, generate_dataset
from service.recommender.dataset import Dataset


def test_the_same_seed_gives_the_same_data() -> None:
    """And another seed gives other data."""
    one, same, other = generate_dataset(3, 50, 80), generate_dataset(3, 50, 80), generate_dataset(4, 50, 80)

    assert np.array_equal(one.train, same.train)
    assert np.array_equal(one.test, same.test)
    assert not np.array_equal(one.train, other.train)


def test_it_is_a_valid_data_set() -> None:
    """Rows sorted and unique, test apart from train, every row of the vocabularies used, every item titled."""
    dataset = generate_dataset(1, 120, 90)
    train, test = set(map(tuple, dataset.train.tolist())), set(map(tuple, dataset.test.tolist()))

    assert dataset.train.tolist() == [list(pair) for pair in sorted(train)]
    assert dataset.test.tolist() == [list(pair) for pair in sorted(test)]
    assert test
    assert not train & test
    assert set(dataset.train[:, 0].tolist()) == set(range(len(dataset.users)))
    assert set(dataset.train[:, 1].tolist()) == set(range(len(dataset.items)))
    assert all(dataset.titles[id] for id in dataset.items.ids)
    assert list(dataset.users.ids) == sorted(dataset.users.ids)


def test_people_prefer_their_community() -> None:
    """With affinity, items of one genre are chosen together far more often than without."""
    with_taste = generate_dataset(5, plan=GeneratorConfig(200, 300, n_communities=5, mean_degree=20, affinity=4.0))
    without = generate_dataset(5, plan=GeneratorConfig(200, 300, n_communities=5, mean_degree=20, affinity=0.0))

    assert share_of_favourite_genre(with_taste) > share_of_favourite_genre(without) + 0.3


def share_of_favourite_genre(dataset: Dataset) -> float:
    """The mean share of a user's train items that are of the user's most frequent genre."""
    genres = [dataset.titles[id].rpartition("(")[2] for id in dataset.items.ids]
    _, numbers = np.unique(genres, return_inverse=True)
    rows = dataset.train
    counts = np.zeros((rows[:, 0].max() + 1, numbers.max() + 1))
    np.add.at(counts, (rows[:, 0], numbers[rows[:, 1]]), 1)
    return float((counts.max(axis=1) / counts.sum(axis=1)).mean())
