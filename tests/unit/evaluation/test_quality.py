import math

import pytest
import torch

from service.evaluation.quality import Regions, split_quality
from service.recommender.graph import InteractionGraph
from service.recommender.ranking import ranking_of_users, ranking_quality
from tests.unit.learning import random_graph


def test_regions_by_plain_loops() -> None:
    """Touched users keep something, one-hop users share an erased item, the rest is everybody else."""
    graph = random_graph(40, 30, 120, seed=3)
    erased = graph.edges[:, ::17]
    erased = torch.cat((erased, graph.edges_of_users(torch.tensor([int(graph.edges[0, 40])]))), dim=1)

    regions = Regions.of(graph, erased)

    gone = {tuple(pair) for pair in erased.T.tolist()}
    kept = [tuple(pair) for pair in graph.edges.T.tolist() if tuple(pair) not in gone]
    active = {user for user, _ in kept}
    touched = {user for user, _ in gone} & active
    items = {item for _, item in gone}
    one_hop = {user for user, item in kept if item in items} - touched
    assert regions.touched.tolist() == sorted(touched)
    assert regions.one_hop.tolist() == sorted(one_hop)
    assert regions.rest.tolist() == sorted(active - touched - one_hop)
    assert int(graph.edges[0, 40]) not in active


def test_split_quality_by_plain_loops() -> None:
    """Each region's means are those of its users, ranked one by one."""
    seen, test = random_graph(30, 40, 150, seed=1), random_graph(30, 40, 90, seed=2)
    test = test.without(seen.edges)
    readout = torch.randn(70, 5, generator=torch.Generator().manual_seed(0))
    touched, one_hop = torch.tensor([1, 4, 7]), torch.tensor([0, 2, 3, 9])

    split = split_quality(readout, seen, test, touched, one_hop, n=5)

    figures = {}
    for user in range(30):
        wanted = set(test.edges[1, test.edges[0] == user].tolist())
        known = set(seen.edges[1, seen.edges[0] == user].tolist())
        scores = (readout[30:] @ readout[user]).tolist()
        top = sorted(set(range(40)) - known, key=lambda item: -scores[item])[:5]
        gain = sum(1 / math.log2(place + 2) for place, item in enumerate(top) if item in wanted)
        ideal = sum(1 / math.log2(place + 2) for place in range(min(len(wanted), 5)))
        if wanted:
            figures[user] = (len(wanted & set(top)) / len(wanted), gain / ideal)
    rest = set(figures) - set(touched.tolist()) - set(one_hop.tolist())
    groups = {"overall": set(figures), "touched": set(touched.tolist()), "one_hop": set(one_hop.tolist()), "rest": rest}
    for name, users in groups.items():
        own = [figures[user] for user in users if user in figures]
        assert split[name]["n_users"] == len(own)
        assert split[name]["recall_at_5"] == pytest.approx(sum(recall for recall, _ in own) / len(own))
        assert split[name]["ndcg_at_5"] == pytest.approx(sum(ndcg for _, ndcg in own) / len(own))


def test_overall_is_the_ranking_quality() -> None:
    """The single pass gives what the plain function gives, whatever the width of the readout."""
    seen, test = random_graph(30, 40, 150, seed=1), random_graph(30, 40, 90, seed=2)
    test = test.without(seen.edges)
    for width in (1, 3, 40):
        readout = torch.randn(70, width, generator=torch.Generator().manual_seed(width))

        split = split_quality(readout, seen, test, torch.tensor([1]), torch.tensor([2]))
        quality = ranking_quality(readout, seen, test)
        users, recall, _ = ranking_of_users(readout, seen, test)

        assert split["overall"]["recall_at_20"] == pytest.approx(quality.recall)
        assert split["overall"]["ndcg_at_20"] == pytest.approx(quality.ndcg)
        assert users.numel() == quality.n_users == recall.numel()


def test_a_region_without_users_has_no_mean() -> None:
    """Nobody is touched: no figure is made up."""
    seen, test = random_graph(seed=1), random_graph(seed=2)
    nobody = torch.zeros(0, dtype=torch.long)

    split = split_quality(torch.randn(21, 2), seen, test, nobody, nobody)

    assert math.isnan(split["touched"]["ndcg_at_20"])
    assert split["rest"] == split["overall"]
    assert split_quality(torch.randn(21, 2), seen, test, nobody, nobody, rest_users=nobody)["rest"]["n_users"] == 0


def test_nothing_held_out_is_no_error() -> None:
    """Quality of an empty test part is 0 of 0 users."""
    empty = InteractionGraph(12, 9, torch.zeros(2, 0, dtype=torch.long))

    assert ranking_quality(torch.randn(21, 2), empty, empty).n_users == 0
