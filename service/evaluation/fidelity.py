"""Does a method change the erased pairs' scores as retraining does, pair by pair?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

BOOTSTRAPS = 200
CHUNK = 4_000_000  # pairs drawn at once
CONSTANT = 1e-12  # of the mean square: a spread below it is rounding


@dataclass(frozen=True)
class Fidelity:
    """How a method's change of the erased pairs' scores goes with retraining's mean change.

    `correlation` is Pearson's; `slope` that of retraining's change on the method's, by least squares with intercept:
    1 is calibrated, above 1 the method moves too little, below 1 too much or at random. `..._se` are standard errors
    from a bootstrap over pairs. None where one side is constant.

    A base's own noise stands in both changes and makes them agree. `..._other_bases` measure retraining's change from
    the mean of the *other* bases, which leaves it out; None with a single base.

    `noise_ceiling` is the correlation of one retrained model's change with the others' mean change, averaged over
    them: no method can be expected above it. None with a single retrained model.
    """

    correlation: float | None
    correlation_se: float | None
    slope: float | None
    slope_se: float | None
    correlation_other_bases: float | None
    correlation_other_bases_se: float | None
    slope_other_bases: float | None
    slope_other_bases_se: float | None
    noise_ceiling: float | None
    noise_ceiling_other_bases: float | None


def effect_fidelity(change: Tensor, retrained: Tensor, bases: Tensor, base: int = 0, seed: int = 0) -> Fidelity:
    """Fidelity of a method on the erased pairs (methods.md section 6.4 asks for Retrain as the reference).

    Args:
        change: (m,) the method's score after forgetting minus that of base number `base`.
        retrained: (R, m) scores of models retrained with R seeds, R >= 1; where the method is one of them, the others.
        bases: (B, m) scores of bases trained with B seeds, B >= 1.
        base: the one that the method started from.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes that do not go together.

    Cost: O((R + B + 200) m).
    """
    if retrained.ndim != 2 or bases.ndim != 2 or {retrained.shape[1], bases.shape[1]} != {change.numel()}:
        shapes = tuple(tuple(part.shape) for part in (change, retrained, bases))
        msg = f"Scores have shapes {shapes}; expected (m,), (R, m) and (B, m)."
        raise ValueError(msg)
    change, retrained, bases = change.double(), retrained.double(), bases.double()
    mean, own = retrained.mean(dim=0), bases[base]
    others = bases[torch.arange(bases.shape[0], device=bases.device) != base]
    far = others.mean(dim=0)  # nan for a single base, and so are the figures
    ceilings = _ceiling(retrained, own, own), _ceiling(retrained, own, far)
    return Fidelity(*_fit(change, mean - own, seed), *_fit(change, mean - far, seed), *ceilings)


_Fit = tuple[float | None, float | None, float | None, float | None]


def _fit(method: Tensor, retraining: Tensor, seed: int) -> _Fit:
    """Correlation, its standard error, slope, its standard error."""
    figures = _correlation_and_slope(method[None], retraining[None])[0]
    generator = Generator(method.device).manual_seed(seed)
    rows = max(CHUNK // max(method.numel(), 1), 1)
    draws = []
    for start in range(0, BOOTSTRAPS if method.numel() > 1 else 0, rows):
        shape = (min(rows, BOOTSTRAPS - start), method.numel())
        drawn = torch.randint(method.numel(), shape, generator=generator, device=method.device)
        draws.append(_correlation_and_slope(method[drawn], retraining[drawn]))
    errors = torch.cat(draws).std(dim=0) if draws else torch.full_like(figures, torch.nan)
    return _known(figures[0]), _known(errors[0]), _known(figures[1]), _known(errors[1])


def _correlation_and_slope(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation, and the slope of y on x, of each row: (b, m), (b, m) -> (b, 2); nan where undefined."""
    xx, yy = _centred(x), _centred(y)
    product, square_x, square_y = (xx * yy).mean(dim=1), xx.square().mean(dim=1), yy.square().mean(dim=1)
    varies_x = square_x > CONSTANT * x.square().mean(dim=1)
    varies_y = square_y > CONSTANT * y.square().mean(dim=1)
    figures = torch.stack((product / (square_x * square_y).sqrt(), product / square_x), dim=1)
    return figures.masked_fill(~(varies_x & varies_y)[:, None], torch.nan)


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(dim=1, keepdim=True)


def _ceiling(retrained: Tensor, own: Tensor, start: Tensor) -> float | None:
    """Mean correlation of one retrained model's change from `own` with the others' mean change from `start`."""
    count = retrained.shape[0]
    if count < 2:
        return None
    rest = (retrained.sum(dim=0) - retrained) / (count - 1)  # (R, m)
    return _known(_correlation_and_slope(retrained - own, rest - start)[:, 0].mean())


def _known(value: Tensor) -> float | None:
    number = float(value)
    return number if number == number else None  # nan alone differs from itself
