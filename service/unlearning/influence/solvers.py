"""Solvers of (H + c I) x = g where H is given by its products, with guards.

Source: methods.md sections 3.2 and 10.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
Ending = Literal["converged", "limit", "indefinite", "diverged"]


@dataclass(frozen=True)
class SolverReport:
    """How a solver fared.

    Args:
        iterations: products with the matrix that led to the solution, restarts not counted.
        residual: |g - (H + c I) x| / |g| of the solution that was returned.
        ending: `converged` to the tolerance; `limit` of iterations reached; `indefinite`: negative curvature was met,
            the last sound iterate is returned; `diverged`: no scale tried was large enough, or a figure overflowed.
        restarts: how often the Neumann series began anew with twice the scale.
        scale: of the Neumann series, after restarts; 0 for others.
    """

    iterations: int
    residual: float
    ending: Ending
    restarts: int = 0
    scale: float = 0.0

    @property
    def stopped_early(self) -> bool:
        """Whether a guard ended it."""
        return self.ending in ("indefinite", "diverged")


def conjugate_gradient(
    product: Product, right: Tensor, limit: int, tolerance: float = 1e-4, start: Tensor | None = None
) -> tuple[Tensor, SolverReport]:
    """Conjugate gradients; stops at the relative residual or, flagged, where the matrix shows itself indefinite.

    Args:
        product: x -> A x for symmetric A; positive definite, or the guard steps in.
        right: g.
        limit: of iterations.
        tolerance: of |g - A x| / |g|.
        start: x0; zero where it is left out, which spares a product.

    Returns:
        x like g, and the report.
    """
    solution = torch.zeros_like(right) if start is None else start.clone()
    residual = right.clone() if start is None else right - product(start)
    size = _squared(right)
    if not size:
        return torch.zeros_like(right), SolverReport(0, 0.0, "converged")
    direction, norm, done = residual.clone(), _squared(residual), 0
    ending: Ending = "limit"
    while norm > tolerance**2 * size and done < limit:
        image = product(direction)
        bend = float(direction.flatten() @ image.flatten())
        if not bend > 0:
            ending = "indefinite" if bend <= 0 else "diverged"  # the rest is not a number
            break
        step = norm / bend
        solution.add_(direction, alpha=step)
        residual.sub_(image, alpha=step)
        norm, previous = _squared(residual), norm
        direction.mul_(norm / previous).add_(residual)
        done += 1
    if norm <= tolerance**2 * size:
        ending = "converged"
    return solution, SolverReport(done, (norm / size) ** 0.5, ending)


def neumann(
    product: Product, right: Tensor, limit: int, scale: float, tolerance: float = 1e-4, max_restarts: int = 6
) -> tuple[Tensor, SolverReport]:
    """The Neumann series h <- g + h - A h / scale, x = h / scale (GIF's solver).

    g - A x of the current x is the change of h, so the residual costs nothing. Its norm is log-convex along the
    iterations for symmetric A: once it grows, it grows for good. Where it grows along positive curvature the scale was
    below lambda_max / 2: twice the scale, from the start. Where it grows along negative curvature no scale helps: the
    iterate before is returned, flagged. After T iterations an eigendirection mu is recovered to 1 - (1 - mu / scale)^T.

    Args:
        product: x -> A x for symmetric A = H + c I.
        right: g.
        limit: of iterations T.
        scale: > lambda_max(A) / 2.
        tolerance: of |g - A x| / |g|.
        max_restarts: with twice the scale each.

    Returns:
        x like g, and the report.
    """
    size = _squared(right)
    if not size:
        return torch.zeros_like(right), SolverReport(0, 0.0, "converged", scale=scale)
    restarts = 0
    while True:
        state, change, norm = right.clone(), right, size  # h, g - A x of x before, its square
        solution, done = torch.zeros_like(right), 0
        ending: Ending = "limit"
        while done < limit:
            following = right - product(state) / scale
            grown = _squared(following)
            # NaN is growth, too; the factor is for rounding
            if not grown <= norm * 1.001 and not grown <= tolerance**2 * size:
                steady = float(change.flatten() @ following.flatten()) > 0  # overshooting alternates
                ending = "indefinite" if steady else "diverged"
                break
            solution, change, norm, done = state / scale, following, grown, done + 1
            if norm <= tolerance**2 * size:
                ending = "converged"
                break
            state = state + following
        if ending != "diverged" or restarts == max_restarts:
            return solution, SolverReport(done, (norm / size) ** 0.5, ending, restarts, scale)
        restarts, scale = restarts + 1, 2 * scale


def power_iteration(product: Product, like: Tensor, iterations: int = 20, seed: int = 0) -> float:
    """The largest |eigenvalue| of a symmetric matrix, from below. Cost: one product an iteration."""
    generator = torch.Generator(like.device).manual_seed(seed)
    vector = torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
    largest = 0.0
    for _ in range(iterations):
        vector = product(vector / vector.norm().clamp(min=1e-30))
        largest = float(vector.norm())
    return largest


def capped(step: Tensor, e0: Tensor, radius: float) -> tuple[Tensor, float]:
    """Row v of a step, (n, d), shortened to radius |E0_v| where it is longer, and the share of moved rows that were."""
    if math.isinf(radius):  # times a zero row it would not be a number
        return step, 0.0
    length = step.norm(dim=1)
    allowed = radius * e0.norm(dim=1)
    factor = (allowed / length.clamp(min=1e-30)).clamp(max=1)
    moved = int((length > 0).sum())
    return step * factor[:, None], float((factor < 1).sum()) / max(moved, 1)


def _squared(tensor: Tensor) -> float:
    return float(tensor.flatten() @ tensor.flatten())
