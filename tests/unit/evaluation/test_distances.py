import math
from dataclasses import astuple

import pytest
import torch
from torch import Tensor

from service.evaluation.distances import Distance, DistanceConfig, distance, distances_to_retrains
from service.recommender.graph import InteractionGraph
from tests.unit.learning import random_graph

EVERYBODY = torch.arange(12)


def readout(seed: int, width: int = 4, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(21, width, generator=torch.Generator().manual_seed(seed))


def brute_force(first: Tensor, second: Tensor, seen: InteractionGraph, temperature: float, n: int) -> list[float]:
    sums = [0.0, 0.0, 0.0]
    for user in range(12):
        known = set(seen.edges[1, seen.edges[0] == user].tolist())
        items = [item for item in range(9) if item not in known]
        lists, softmaxes = [], []
        for model in (first, second):
            scores = {item: float(model[user].double() @ model[12 + item].double()) for item in items}
            lists.append(set(sorted(items, key=lambda item, own=scores: -own[item])[:n]))
            total = sum(math.exp(score / temperature) for score in scores.values())
            softmaxes.append([math.exp(score / temperature) / total for score in scores.values()])
        for p, q in zip(*softmaxes, strict=True):
            middle = (p + q) / 2
            sums[0] += (p * math.log(p / middle) + q * math.log(q / middle)) / 2
        sums[1] += math.dist(*softmaxes)
        sums[2] += len(lists[0] & lists[1]) / len(lists[0] | lists[1])
    return [value / 12 for value in sums]


@pytest.mark.parametrize(("temperature", "n"), [(1.0, 3), (0.5, 20)])
def test_distance_by_plain_loops(temperature: float, n: int) -> None:
    """Divergence, activation and overlap of two models of different widths."""
    first, second, seen = readout(0, 4), readout(1, 2), random_graph()

    found = distance(first, second, seen, EVERYBODY, DistanceConfig(temperature=temperature, n=n))

    assert list(astuple(found)[:3]) == pytest.approx(brute_force(first, second, seen, temperature, n), rel=1e-5)
    assert found.n_users == 12


def test_divergence_is_symmetric_and_at_most_ln_2() -> None:
    """Whichever model comes first, and however sure both are."""
    seen = random_graph()
    config = DistanceConfig(n=3)
    for scale in (0.1, 1.0, 50.0):
        there = distance(readout(0, scale=scale), readout(1, scale=scale), seen, EVERYBODY, config)
        back = distance(readout(1, scale=scale), readout(0, scale=scale), seen, EVERYBODY, config)

        assert there == back
        assert 0 < there.js <= math.log(2) + 1e-12


def test_a_model_is_at_no_distance_from_itself() -> None:
    """Nor from itself written in another basis or another width."""
    own, seen = readout(0), random_graph()
    padded = torch.cat((own, torch.zeros(21, 30)), dim=1)

    assert distance(own, own, seen, EVERYBODY) == Distance(0.0, 0.0, 1.0, 12)
    assert distance(own, padded, seen, EVERYBODY, DistanceConfig(n=3)).js == pytest.approx(0, abs=1e-10)


def test_seen_items_do_not_count() -> None:
    """Two models that differ in what is masked alone are the same."""
    seen = InteractionGraph(12, 9, torch.stack((torch.arange(12), torch.full((12,), 4))))
    own = readout(0)
    other = own.clone()
    other[12 + 4] += 7

    assert distance(own, other, seen, EVERYBODY) == Distance(0.0, 0.0, 1.0, 12)


def test_users_are_sampled_by_seed() -> None:
    """At most as many as asked for, the same ones again; nobody gives no figure, nor who has seen all."""
    seen = random_graph(400, 9, 900)
    first, second = (torch.randn(409, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    config = DistanceConfig(max_users=150, seed=1)

    found = distance(first, second, seen, torch.arange(400), config)

    assert found.n_users == 150
    assert found == distance(first, second, seen, torch.arange(400), config)
    assert found != distance(first, second, seen, torch.arange(400), DistanceConfig(max_users=150, seed=2))
    assert math.isnan(distance(first, second, seen, torch.arange(0)).js)
    full = InteractionGraph(400, 9, torch.stack((torch.full((9,), 3), torch.arange(9))))
    assert distance(first, second, full, torch.tensor([3, 4])).n_users == 1


def test_means_over_retrained_models_and_their_floor() -> None:
    """The convenience is the plain distance, averaged."""
    own, before, seen = readout(9), readout(8), random_graph()
    retrains = [readout(seed) for seed in range(3)]
    regions = {"touched": torch.tensor([0, 3, 5]), "rest": torch.tensor([1, 2])}

    found = distances_to_retrains(own, retrains, seen, regions, before)

    for name, users in regions.items():
        to = [distance(own, each, seen, users) for each in retrains]
        none = [distance(before, each, seen, users) for each in retrains]
        floor = [distance(retrains[a], retrains[b], seen, users) for a, b in ((0, 1), (0, 2), (1, 2))]
        for kind, group in (("to_retrain", to), ("none", none), ("floor", floor)):
            for measure in ("js", "activation", "overlap"):
                expected = sum(getattr(each, measure) for each in group) / 3
                assert found[name][f"{measure}_{kind}"] == pytest.approx(expected)
        assert found[name]["n_users"] == users.numel()
    assert math.isnan(distances_to_retrains(own, retrains[:1], seen, regions)["rest"]["js_floor"])
    assert "js_none" not in distances_to_retrains(own, retrains, seen, regions)["rest"]


def test_senseless_requests_are_refused() -> None:
    """No retrained model, no temperature."""
    with pytest.raises(ValueError, match="no retrained"):
        distances_to_retrains(readout(0), [], random_graph(), {})
    with pytest.raises(ValueError, match="temperature"):
        DistanceConfig(temperature=0)
