"""How far a model has come on the way to a retrained one, and how surely that is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A figure measured on a sample of pairs, and its standard error; both nan where the sample cannot tell."""

    value: float
    error: float


def placements(scores: Tensor, among: Tensor) -> Tensor:
    """Of each score the share of `among` that lies below it, ties counted half; their mean is the AUC.

    Shapes: `scores` (m,), `among` (n,), n >= 1; the result (m,) float64 in [0, 1].
    """
    ordered = torch.sort(among).values
    below = torch.searchsorted(ordered, scores)
    not_above = torch.searchsorted(ordered, scores, right=True)
    return (below + not_above).double() / (2 * len(ordered))


def auc_estimate(erased: Tensor, heldout: Tensor) -> Estimate:
    """The chance that an erased pair scores above a held-out one, (m,) and (n,) scores; the error is DeLong's."""
    own, other = placements(erased, heldout), placements(heldout, erased)
    return Estimate(float(own.mean()), math.sqrt(_variance_of_mean(own) + _variance_of_mean(other)))


def retraining_share(before: Tensor, after: Tensor, retrained: Tensor) -> Estimate:
    """Share of the way from the mean before to the retrained mean that the mean after has gone: 0 none, 1 all, 2 twice.

    All three are values of the same erased pairs, (m,) float64 scores or `placements`, so that what is common to them
    cancels; the error is that of a ratio of two paired means, to first order. nan where the way is shorter than twice
    its own error: then these pairs cannot tell.
    """
    gone, way = before - after, before - retrained
    if not len(way) or abs(float(way.mean())) <= 2 * math.sqrt(_variance_of_mean(way)):
        return Estimate(math.nan, math.nan)
    length = float(way.mean())
    share = float(gone.mean()) / length
    return Estimate(share, math.sqrt(_variance_of_mean(gone - share * way)) / abs(length))


def _variance_of_mean(values: Tensor) -> float:
    return float(values.var()) / len(values) if len(values) > 1 else math.inf
