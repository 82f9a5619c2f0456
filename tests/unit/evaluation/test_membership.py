import math

import pytest
import torch
from torch import Tensor

from service.evaluation.membership import MatchedProbe, MembershipProbe, degree_bins, matched_auc
from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.unlearning.ranks import auc
from tests.unit.learning import blocks


def brute_force(erased: Tensor, heldout: Tensor, bins_erased: Tensor, bins_heldout: Tensor) -> tuple[float, int]:
    total, weight, alone = 0.0, 0, 0
    for score, part in zip(erased.tolist(), bins_erased.tolist(), strict=True):
        partners = [other for other, its in zip(heldout.tolist(), bins_heldout.tolist(), strict=True) if its == part]
        if partners:
            total += sum((score > other) + 0.5 * (score == other) for other in partners) / len(partners)
            weight += 1
        else:
            alone += 1
    return (total / weight if weight else math.nan), alone


@pytest.mark.parametrize("seed", range(5))
def test_matched_auc_by_plain_loops(seed: int) -> None:
    """Exact, ties and bins without a partner included."""
    generator = torch.Generator().manual_seed(seed)
    erased = torch.randint(6, (40,), generator=generator).float() / 3
    heldout = torch.randint(6, (50,), generator=generator).float() / 3
    bins_erased = torch.randint(8, (40,), generator=generator)
    bins_heldout = torch.randint(3, 9, (50,), generator=generator)

    value, alone = matched_auc(erased, heldout, bins_erased, bins_heldout)

    expected, left = brute_force(erased, heldout, bins_erased, bins_heldout)
    assert value == pytest.approx(expected)
    assert alone == left > 0


def test_a_single_bin_is_the_plain_auc() -> None:
    """Without bins there is nothing to match; without partners no figure."""
    erased, heldout = torch.randn(30), torch.randn(40)
    zeros = torch.zeros(40, dtype=torch.long)

    assert matched_auc(erased, heldout, zeros[:30], zeros)[0] == pytest.approx(auc(erased, heldout))
    value, alone = matched_auc(erased, heldout, zeros[:30] + 1, zeros)
    assert math.isnan(value)
    assert alone == 30


def popular_graph(generator: torch.Generator) -> tuple[InteractionGraph, Tensor]:
    """Users who take items by popularity alone, and half of what they took."""
    weight = torch.linspace(0.02, 0.6, 150)
    taken = torch.nonzero(torch.rand(200, 150, generator=generator) < weight).T
    held = torch.rand(taken.shape[1], generator=generator) < 0.4
    return InteractionGraph(200, 150, taken[:, ~held]), taken[:, held]


def test_a_score_that_knows_degrees_only_is_not_held_against_a_model() -> None:
    """Erased pairs are of liked items: the plain AUC calls popularity a leak, the matched one does not."""
    graph, unseen = popular_graph(torch.Generator().manual_seed(0))
    liked = torch.rand(unseen.shape[1], generator=torch.Generator().manual_seed(1)) < unseen[1] / 150
    erased, heldout = unseen[:, liked], unseen[:, ~liked]
    scores = graph.degree[200:].float()

    bins = degree_bins(graph, erased, heldout)
    matched, _ = matched_auc(scores[erased[1]], scores[heldout[1]], *bins)

    assert auc(scores[erased[1]], scores[heldout[1]]) > 0.6
    assert matched == pytest.approx(0.5, abs=0.05)


def test_bins_hold_a_heldout_pair_each() -> None:
    """Wherever there is an erased pair there is a held-out one, but for ends that were reset."""
    graph, unseen = popular_graph(torch.Generator().manual_seed(2))
    remaining = graph.without(graph.edges_of_users(torch.tensor([5])))

    erased_bins, heldout_bins = degree_bins(remaining, graph.edges[:, ::7], unseen)

    reset = graph.edges[0, ::7] == 5
    assert reset.any()
    assert (erased_bins == -1).equal(reset)
    assert set(erased_bins[~reset].tolist()) <= set(heldout_bins.tolist())
    assert torch.unique(heldout_bins).numel() > 20


def test_matched_figures_by_hand() -> None:
    """p is a mean sigmoid, and readouts may be of any width."""
    graph = blocks()
    probe = MembershipProbe.of(graph, graph.edges[:, ::10], graph.edges[:, 1::10])
    remaining = graph.without(torch.cat((probe.erased, probe.heldout), dim=1))
    matched = MatchedProbe.of(probe, remaining)
    for width in (1, 7):
        readout = torch.randn(200, width, generator=torch.Generator().manual_seed(width))

        figures = matched.measure(readout, 2 * readout)

        users, items = remaining.edges.long()
        kept = pair_scores(readout, 120, users, items)
        erased = pair_scores(readout, 120, probe.erased[0], probe.erased[1])
        assert figures.p_kept == pytest.approx(float(kept.double().sigmoid().mean()))
        assert figures.p_erased_before == pytest.approx(float((4 * erased).double().sigmoid().mean()), rel=1e-5)
        assert 0 <= figures.auc_matched <= 1
