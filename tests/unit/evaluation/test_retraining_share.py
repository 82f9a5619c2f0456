"""The share of the way to retraining, and how surely it is known."""

import math

import pytest
import torch

from service.evaluation.retraining_share import auc_estimate, placements, retraining_share
from service.unlearning.ranks import auc


def test_the_mean_placement_is_the_auc() -> None:
    """Ties are counted half."""
    random = torch.Generator().manual_seed(0)
    erased = torch.randint(20, (50,), generator=random).float()
    heldout = torch.randint(20, (80,), generator=random).float()

    assert float(placements(erased, heldout).mean()) == pytest.approx(auc(erased, heldout))
    assert auc_estimate(erased, heldout).value == pytest.approx(auc(erased, heldout))


def test_the_error_is_how_much_samples_differ() -> None:
    """Of 2,000 samples of 40 and 200 pairs, to a tenth."""
    random = torch.Generator().manual_seed(0)
    samples = [
        auc_estimate(torch.randn(40, generator=random) + 0.5, torch.randn(200, generator=random)) for _ in range(2_000)
    ]

    spread = torch.tensor([sample.value for sample in samples]).std()

    assert samples[0].error == pytest.approx(float(spread), rel=0.25)
    assert torch.tensor([sample.error for sample in samples]).mean() == pytest.approx(float(spread), rel=0.1)


def test_the_share_of_the_way() -> None:
    """Nothing, three quarters, all of it, beyond."""
    random = torch.Generator().manual_seed(0)
    before = torch.randn(500, generator=random).double()
    way = 1 + 0.1 * torch.randn(500, generator=random).double()

    for share in (0.0, 0.75, 1.0, 1.5):
        measured = retraining_share(before, before - share * way, before - way)

        assert measured.value == pytest.approx(share)
        assert measured.error == pytest.approx(0, abs=1e-9)


def test_the_error_of_the_share_is_how_much_samples_differ() -> None:
    """What is common to the models cancels, though pairs differ a hundred times as much."""
    random = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(1_000):
        before = 100 * torch.randn(100, generator=random).double()
        after = before - 0.5 + 0.3 * torch.randn(100, generator=random).double()
        samples.append(retraining_share(before, after, before - 1 + 0.3 * torch.randn(100, generator=random).double()))

    spread = torch.tensor([sample.value for sample in samples]).std()

    assert torch.tensor([sample.error for sample in samples]).mean() == pytest.approx(float(spread), rel=0.1)


@pytest.mark.parametrize("n_pairs", [0, 1, 100])
def test_a_way_that_chance_makes_tells_nothing(n_pairs: int) -> None:
    """Two models of other seeds, nothing retrained."""
    random = torch.Generator().manual_seed(0)
    before, retrained = torch.randn(2, n_pairs, generator=random).double()

    assert math.isnan(retraining_share(before, before - 1, retrained).value)
