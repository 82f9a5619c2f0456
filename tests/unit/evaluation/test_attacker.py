import math

import pytest
import torch

from service.evaluation.attacker import AttackerConfig, attacker_auc, pair_features
from service.recommender.graph import InteractionGraph
from tests.unit.learning import random_graph


def world(seed: int = 0) -> tuple[InteractionGraph, torch.Tensor, torch.Tensor]:
    """Pairs without rhyme or reason: what remains, what is erased, what is held out."""
    graph = random_graph(120, 90, 4000, seed)
    order = torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(seed))
    erased, heldout = graph.edges[:, order[:500]], graph.edges[:, order[500:1700]]
    return graph.without(torch.cat((erased, heldout), dim=1)), erased, heldout


def memory(graph: InteractionGraph, pairs: torch.Tensor, width: int = 90) -> torch.Tensor:
    """A readout that knows the graph and these pairs by heart, beside noise: user rows are rows of the matrix."""
    matrix = torch.randn(graph.n_users, width, generator=torch.Generator().manual_seed(9)) / 3
    users, items = torch.cat((graph.edges, pairs), dim=1).long()
    matrix[users, items] += 1
    return torch.cat((matrix, torch.eye(graph.n_items)))


def test_features_by_plain_loops() -> None:
    """Score, rank, norms, cosine and degrees of each pair."""
    graph, pairs = random_graph(), random_graph(seed=1).edges.long()
    readout = torch.randn(21, 4, generator=torch.Generator().manual_seed(0))

    features = pair_features(readout, graph, pairs)

    for row, (user, item) in enumerate(pairs.T.tolist()):
        mine, its = readout[user], readout[12 + item]
        score = float(mine @ its)
        above = sum(float(mine @ other) > score + 1e-6 for other in readout[12:])
        expected = [
            score,
            math.log1p(above),
            float(mine.norm()),
            float(its.norm()),
            score / float(mine.norm() * its.norm()),
            math.log1p(int(graph.user_degree[user])),
            math.log1p(int(graph.item_degree[item])),
        ]
        assert features[row].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_model_that_remembers_is_found_out() -> None:
    """Erased pairs that are still known by heart look like members."""
    remaining, erased, heldout = world()

    assert attacker_auc(memory(remaining, erased), remaining, erased, heldout) > 0.9


def test_a_model_that_never_saw_them_gives_nothing_away() -> None:
    """Erased pairs that were never learnt are held-out pairs by another name."""
    remaining, erased, heldout = world()

    found = attacker_auc(memory(remaining, erased[:, :0]), remaining, erased, heldout)

    assert found == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("width", [1, 5, 90])
def test_any_width_and_the_same_again(width: int) -> None:
    """The seed decides, and nothing else does."""
    remaining, erased, heldout = world()
    readout = torch.randn(210, width, generator=torch.Generator().manual_seed(1))

    first = attacker_auc(readout, remaining, erased, heldout, AttackerConfig(seed=3))
    torch.manual_seed(1)
    again = attacker_auc(readout, remaining, erased, heldout, AttackerConfig(seed=3))

    assert first == again
    assert first == pytest.approx(0.5, abs=0.07)


def test_constant_readouts_and_too_few_pairs() -> None:
    """A row of zeros is no error, and three pairs are no sample."""
    remaining, erased, heldout = world()

    assert 0.4 < attacker_auc(torch.zeros(210, 2), remaining, erased, heldout) < 0.6
    assert math.isnan(attacker_auc(torch.ones(210, 2), remaining, erased[:, :3], heldout))
