from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.ranking import ranking_quality
from service.recommender.training import TrainingConfig
from service.unlearning.partition import SISA, AttentionConfig, GraphEraser, PartitionUnlearner, RecEraser
from service.unlearning.partition.shards import NO_SHARD, Partition, ShardRows
from service.unlearning.protocol import Guarantee
from service.unlearning.request import UnlearningRequest
from service.unlearning.retrain import Retrain
from service.unlearning.state import TrainedState
from tests.unit.learning import random_graph, trained_blocks

TRAINING = TrainingConfig(embedding_size=16, batch_size=512, learning_rate=2e-2, epochs=6, patience=20)
ATTENTION = AttentionConfig(learning_rate=2e-2, epochs=3)

METHODS: dict[str, Callable[[], PartitionUnlearner]] = {
    "sisa": lambda: SISA(4, TRAINING),
    "receraser-ubp": lambda: RecEraser(4, TRAINING, strategy="ubp", attention=ATTENTION),
    "receraser-ibp": lambda: RecEraser(4, TRAINING, strategy="ibp", attention=ATTENTION),
    "receraser-inbp": lambda: RecEraser(4, TRAINING, strategy="inbp", attention=ATTENTION),
    "grapheraser-bekm": lambda: GraphEraser(4, TRAINING),
    "grapheraser-blpa": lambda: GraphEraser(
        4, TRAINING, method="blpa", rounds=1
    ),  # more would find the blocks: none lost
}
every_method = pytest.mark.parametrize("name", METHODS)


@cache
def base() -> TrainedState:
    return trained_blocks()


@cache
def prepared(name: str) -> PartitionUnlearner:
    method = METHODS[name]()
    method.prepare(base())
    return method


def of_shard(method: PartitionUnlearner, shard: int, count: int = 3) -> Tensor:
    """Some edges that this shard holds; spread out, so that no row is left without any."""
    partition = method.ensemble(base()).partition
    held = base().graph.edges[:, partition.shard_of_edge == shard]
    return held[:, :: max(1, held.shape[1] // count)][:, :count]


@every_method
def test_an_empty_request_changes_nothing(name: str) -> None:
    result = prepared(name).forget(base(), UnlearningRequest.of(base()))
    assert result.readout is prepared(name).before(base())
    assert result.graph is base().graph
    assert result.shards_hit == ()


@every_method
def test_only_the_shards_hit_are_trained_anew(name: str) -> None:
    method = prepared(name)
    models, edges = method.ensemble(base()).models, of_shard(method, 2)
    request = UnlearningRequest.of(base(), forget=edges)
    result = method.forget(base(), request)
    assert result.shards_hit == (2,)
    assert result.seconds["slowest_shard"] == result.seconds["shards"] > 0
    after = method.retrained(base(), models, result.shards_hit, request.edges)
    for shard, (old, new) in enumerate(zip(models, after, strict=True)):
        assert torch.equal(old.e0, new.e0) == (shard != 2)
        assert not new.graph.contains(request.edges).any()
    assert not result.graph.contains(request.edges).any()
    assert result.graph.n_edges == base().graph.n_edges - request.n_edges


@every_method
def test_the_ensemble_ranks_better_than_chance_before_and_after(name: str) -> None:
    method, held_out = prepared(name), validation()
    result = method.forget(base(), UnlearningRequest.of(base(), forget=of_shard(method, 1)))
    chance = ranking_quality(torch.randn(base().readout.shape), base().graph, held_out, 10).recall
    for readout, graph in ((method.before(base()), base().graph), (result.readout, result.graph)):
        assert ranking_quality(readout, graph, held_out, 10).recall > 1.5 * chance


@every_method
def test_the_same_seeds_give_the_same_ensemble(name: str) -> None:
    request = UnlearningRequest.of(base(), forget=of_shard(prepared(name), 0))
    again = METHODS[name]()
    assert torch.equal(again.before(base()), prepared(name).before(base()))
    first, second = (method.forget(base(), request) for method in (again, prepared(name)))
    assert torch.equal(first.readout, second.readout)
    assert torch.equal(first.e0, second.e0)


@every_method
def test_a_user_who_erased_everything_is_gone(name: str) -> None:
    user = torch.tensor([5])
    result = prepared(name).forget(base(), UnlearningRequest.of(base(), forget=base().graph.edges_of_users(user)))
    assert (result.readout[5] == 0).all()
    assert (result.e0[5] == 0).all()
    assert torch.isfinite(result.readout).all()


@every_method
def test_a_shard_that_loses_everything_says_nothing(name: str) -> None:
    method = prepared(name)
    partition = method.ensemble(base()).partition
    everything = base().graph.edges[:, partition.shard_of_edge == 3]
    result = method.forget(base(), UnlearningRequest.of(base(), forget=everything))
    assert 3 in result.shards_hit
    assert torch.isfinite(result.readout).all()


def validation() -> InteractionGraph:
    return InteractionGraph(base().graph.n_users, base().graph.n_items, base().validation)


def test_what_each_method_promises() -> None:
    assert SISA.guarantee is Guarantee.EXACT
    assert RecEraser.guarantee is GraphEraser.guarantee is Guarantee.APPROXIMATE


def test_one_shard_is_a_retraining() -> None:
    request = UnlearningRequest.of(base(), forget=base().graph.edges[:, ::200])
    alone = SISA(1, TRAINING, seed=7).forget(base(), request)
    retrained = Retrain(TRAINING, seed=7).forget(base(), request)
    assert torch.equal(alone.readout, retrained.readout)


def test_sisa_scores_are_the_mean_of_those_of_its_shards() -> None:
    models, readout = prepared("sisa").ensemble(base()).models, prepared("sisa").before(base())
    mean = torch.stack([model.readout @ model.readout.T for model in models]).mean(dim=0)
    assert torch.allclose(readout @ readout.T, mean, atol=1e-4)


def test_sisa_shards_are_even_and_share_nothing() -> None:
    partition = prepared("sisa").ensemble(base()).partition
    sizes = torch.bincount(partition.shard_of_edge)
    assert int(sizes.sum()) == base().graph.n_edges
    assert int(sizes.max() - sizes.min()) <= 1
    assert partition.lost == 0


@pytest.mark.parametrize(("strategy", "side"), [("ubp", 0), ("ibp", 1)])
def test_receraser_keeps_the_interactions_of_a_row_together(strategy: str, side: int) -> None:
    partition = prepared(f"receraser-{strategy}").ensemble(base()).partition
    pairs = torch.stack((base().graph.edges[side].long(), partition.shard_of_edge))
    assert torch.unique(pairs, dim=1).shape[1] == torch.unique(pairs[0]).numel()


def test_receraser_serves_rows_of_the_base_size_on_the_remaining_graph() -> None:
    result = prepared("receraser-inbp").forget(base(), UnlearningRequest.of(base(), forget=base().graph.edges[:, :4]))
    assert result.readout.shape == base().readout.shape
    expected = base().backbone.propagate(result.e0, result.graph)
    assert torch.allclose(result.readout, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["grapheraser-bekm", "grapheraser-blpa"])
def test_grapheraser_reports_what_is_lost_between_shards(name: str) -> None:
    ensemble = prepared(name).ensemble(base())
    in_shards = sum(model.graph.n_edges for model in ensemble.models)
    result = prepared(name).forget(base(), UnlearningRequest.of(base(), forget=base().graph.edges[:, :1]))
    assert result.lost == pytest.approx(1 - in_shards / base().graph.n_edges)
    assert all(
        not (first.graph.degree > 0).logical_and(second.graph.degree > 0).any()
        for number, first in enumerate(ensemble.models)
        for second in ensemble.models[:number]
    )


def test_an_interaction_between_shards_retrains_none() -> None:
    method = prepared("grapheraser-blpa")
    partition = method.ensemble(base()).partition
    between = base().graph.edges[:, partition.shard_of_edge == NO_SHARD][:, :2]
    result = method.forget(base(), UnlearningRequest.of(base(), forget=between))
    assert between.shape[1] == 2
    assert 0 < partition.lost < 1
    assert result.shards_hit == ()
    assert result.seconds["shards"] == result.seconds["slowest_shard"] == 0
    assert result.seconds["aggregate"] > 0
    assert not result.graph.contains(between).any()


def test_holders_are_found_and_strangers_have_none() -> None:
    graph = InteractionGraph(3, 3, torch.tensor([[0, 1, 2], [0, 1, 2]]))
    partition = Partition(graph, torch.tensor([1, NO_SHARD, 0]), 2)
    assert partition.holders(torch.tensor([[2, 0, 1, 0], [2, 0, 1, 2]])).tolist() == [0, 1, NO_SHARD, NO_SHARD]
    assert partition.lost == pytest.approx(1 / 3)
    assert partition.graph_of(1).edges.tolist() == [[0], [0]]


def test_the_rows_of_a_shard_go_back_to_where_they_came_from() -> None:
    graph = random_graph(40, 30, 25)
    rows = ShardRows(graph, own=True)
    assert (rows.inside_graph.degree > 0).all()
    assert rows.inside_graph.n_edges == graph.n_edges
    degree = rows.outside(rows.inside_graph.degree[:, None].float())
    assert torch.equal(degree[:, 0].long(), graph.degree)


def test_no_shards_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SISA(0)
