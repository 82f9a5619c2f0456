import pytest
import torch
from torch import Tensor

from service.unlearning.partition.assignment import Side, balanced_clusters, fill, propagated_labels
from tests.unit.learning import blocks


def swept(distances: Tensor, capacity: int) -> Tensor:
    """The sweep by its definition: all pairs in ascending order."""
    n, shards = distances.shape
    assignment, room = [-1] * n, [capacity] * shards
    for pair in torch.argsort(distances.flatten(), stable=True).tolist():
        sample, shard = divmod(pair, shards)
        if assignment[sample] < 0 and room[shard]:
            assignment[sample] = shard
            room[shard] -= 1
    return torch.tensor(assignment)


@pytest.mark.parametrize("capacity", [20, 21, 24, 60, 100])
@pytest.mark.parametrize("seed", range(3))
def test_filling_gives_what_the_sweep_gives(capacity: int, seed: int) -> None:
    distances = torch.rand(100, 5, generator=torch.Generator().manual_seed(seed))
    distances[:, 1] *= 0.2  # everyone's favourite
    assert torch.equal(fill(distances, capacity), swept(distances, capacity))


def test_equal_distances_fill_every_shard_to_its_capacity_and_no_further() -> None:
    sizes = torch.bincount(fill(torch.zeros(12, 4), 3), minlength=4)
    assert sizes.tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_ties_never_overfill_a_shard(levels: int) -> None:
    distances = torch.randint(levels, (97, 5), generator=torch.Generator().manual_seed(levels)).float()
    sizes = torch.bincount(fill(distances, 20), minlength=5)
    assert int(sizes.sum()) == 97
    assert int(sizes.max()) <= 20


def test_the_closest_come_first() -> None:
    distances = torch.tensor([[3.0, 9.0], [1.0, 9.0], [2.0, 9.0]])
    assert fill(distances, 2).tolist() == [1, 0, 0]


def test_too_many_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        fill(torch.rand(7, 2), 3)


def test_distances_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        fill(torch.full((4, 2), torch.nan), 3)


def clouds(per_cloud: int = 25, seed: int = 0) -> Tensor:
    """Four clouds whose centres differ along one axis each: their means over the axes coincide."""
    noise = torch.randn(4 * per_cloud, 4, generator=torch.Generator().manual_seed(seed)) * 0.1
    return noise + 5 * torch.eye(4).repeat_interleave(per_cloud, dim=0)


@pytest.mark.parametrize("seed", range(4))
def test_clear_clusters_are_found(seed: int) -> None:
    found = balanced_clusters([Side.of(clouds())], 4, 25, 20, torch.Generator().manual_seed(seed)).view(4, 25)
    assert sorted(found[:, 0].tolist()) == [0, 1, 2, 3]
    assert (found == found[:, :1]).all()


def test_anchors_are_means_of_each_dimension() -> None:
    anchors = Side.of(clouds()).means(torch.arange(100) // 25, 4)
    assert torch.allclose(anchors, 5 * torch.eye(4), atol=0.1)


def test_interactions_of_one_community_share_a_shard() -> None:
    users, items = blocks(4, 20, 10).edges.long()
    sides = [Side(clouds(20), users), Side(clouds(10), items)]
    block = users // 20
    capacity = int(torch.bincount(block).max())
    found = balanced_clusters(sides, 4, capacity, 50, torch.Generator().manual_seed(1))
    assert all(torch.unique(found[block == number]).numel() == 1 for number in range(4))


def test_the_clustering_repeats_itself() -> None:
    first, second = (
        balanced_clusters([Side.of(clouds())], 3, 40, 20, torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(first, second)


def test_more_shards_than_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot fill"):
        balanced_clusters([Side.of(torch.rand(2, 3))], 3, 1, 5, torch.Generator())


@pytest.mark.parametrize("seed", range(3))
def test_labels_stay_balanced_and_join_neighbours(seed: int) -> None:
    graph, capacity = blocks(), 51
    users, items = graph.edges.long()
    for rounds in (1, 100):
        label = propagated_labels(graph, 4, capacity, rounds, torch.Generator().manual_seed(seed))
        assert label.numel() == graph.n_nodes
        assert int(torch.bincount(label, minlength=4).max()) <= capacity
    assert torch.equal(label[users], label[items + graph.n_users])  # the four blocks


def test_too_many_nodes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        propagated_labels(blocks(), 4, 49, 10, torch.Generator())
