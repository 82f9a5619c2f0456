from dataclasses import astuple

import numpy as np
import pytest
import torch
from torch import Tensor

from service.evaluation.fidelity import effect_fidelity


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_figures_by_numpy() -> None:
    """Pearson's correlation and the least-squares slope with intercept, against own and other bases."""
    change, retrained, bases = normal(200, seed=0), normal(3, 200, seed=1), normal(3, 200, seed=2)
    bases[1] -= change

    found = effect_fidelity(change, retrained, bases, base=1)

    for suffix, start in (("", bases[1]), ("_other_bases", (bases[0] + bases[2]) / 2)):
        wanted = (retrained.mean(dim=0) - start).double().numpy()
        own = change.double().numpy()
        assert getattr(found, f"correlation{suffix}") == pytest.approx(np.corrcoef(own, wanted)[0, 1])
        assert getattr(found, f"slope{suffix}") == pytest.approx(np.polyfit(own, wanted, 1)[0])
    ceilings = [
        np.corrcoef(retrained[one] - bases[1], retrained[[a, b]].mean(dim=0) - bases[1])[0, 1]
        for one, a, b in ((0, 1, 2), (1, 0, 2), (2, 0, 1))
    ]
    assert found.noise_ceiling == pytest.approx(float(np.mean(ceilings)), rel=1e-5)


def test_retrainings_own_mean_is_calibrated() -> None:
    """Correlation and slope 1, also with a constant on top, and without error."""
    retrained, bases = normal(3, 100, seed=1), normal(2, 100, seed=2)

    found = effect_fidelity(retrained.double().mean(dim=0) - bases[0].double() + 3, retrained, bases)

    assert found.correlation == pytest.approx(1)
    assert found.slope == pytest.approx(1)
    assert found.correlation_se == pytest.approx(0, abs=1e-9)


def test_the_slope_says_in_which_direction_a_method_is_off() -> None:
    """Half the move gives 2, twice the move .5; noise in the method's move lowers both figures."""
    wanted = normal(5000, seed=0)
    retrained, bases = wanted[None], torch.zeros(1, 5000)

    half = effect_fidelity(wanted / 2, retrained, bases)
    twice = effect_fidelity(wanted * 2, retrained, bases)
    noisy = effect_fidelity(wanted + normal(5000, seed=1), retrained, bases)

    assert half.slope == pytest.approx(2)
    assert twice.slope == pytest.approx(0.5)
    assert half.correlation == twice.correlation == pytest.approx(1)
    assert noisy.slope == pytest.approx(0.5, abs=0.03)
    assert noisy.correlation == pytest.approx(0.5**0.5, abs=0.03)


def test_a_bases_own_noise_does_not_pass_for_fidelity() -> None:
    """A method that only undoes its base's noise agrees with retraining measured from that base, from no other."""
    bases, retrained = normal(4, 4000, seed=0), normal(3, 4000, seed=1)

    found = effect_fidelity(-bases[2], retrained, bases, base=2)

    assert found.correlation is not None
    assert found.correlation > 0.7
    assert found.correlation_other_bases == pytest.approx(0, abs=0.05)
    assert found.noise_ceiling is not None
    assert found.noise_ceiling > 0.4


def test_standard_errors_are_those_of_the_formula() -> None:
    """The bootstrap comes near the textbook error of a slope."""
    x, noise = normal(2000, seed=3), normal(2000, seed=4)

    found = effect_fidelity(x, (x + noise)[None], torch.zeros(1, 2000))

    assert found.slope_se == pytest.approx(1 / 2000**0.5, rel=0.2)
    assert found == effect_fidelity(x, (x + noise)[None], torch.zeros(1, 2000))


def test_what_is_not_defined_is_none() -> None:
    """A method that moves nothing, a single pair, no pair at all; a single base; a single retrained model."""
    retrained, bases = normal(2, 50, seed=0), normal(2, 50, seed=1)

    still = effect_fidelity(torch.full((50,), 0.1), retrained, bases)
    lone = effect_fidelity(normal(50, seed=2), retrained[:1], bases[:1])

    assert astuple(still)[:8] == (None,) * 8
    assert still.noise_ceiling is not None
    assert lone.correlation is not None
    assert lone.correlation_other_bases is lone.slope_other_bases is lone.noise_ceiling is None
    for count in (0, 1):
        nothing = effect_fidelity(torch.zeros(count), retrained[:, :count], bases[:, :count])
        assert astuple(nothing) == (None,) * 10


def test_shapes_must_go_together() -> None:
    """Scores of other pairs are refused."""
    with pytest.raises(ValueError, match="shapes"):
        effect_fidelity(torch.zeros(3), torch.zeros(2, 4), torch.zeros(2, 4))
