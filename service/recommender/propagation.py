"""Linear propagation over the interaction graph."""

from typing import Any

import torch
from torch import Tensor


def polynomial(adjacency: Tensor, x: Tensor, layers: int) -> Tensor:
    """sum_{l=0..layers} S^l x by Horner's rule: one sparse product a layer.

    Shapes: adjacency (n, n) sparse, x (n, d) float32 -> (n, d).
    """
    total = x if layers else x.clone()  # a readout may be written to
    for _ in range(layers):
        total = torch.addmm(x, adjacency, total)
    return total


class _Polynomial(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, adjacency: Tensor, layers: int) -> Tensor:
        ctx.adjacency, ctx.layers = adjacency, layers
        return polynomial(adjacency, x, layers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        # S is symmetric, so the backward is the same polynomial: nothing is kept but S itself.
        return polynomial(ctx.adjacency, gradients[0].contiguous(), ctx.layers), None, None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed
        return matrix @ x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed @ gradients[0].contiguous(), None, None


def propagate_sum(adjacency: Tensor, x: Tensor, layers: int) -> Tensor:
    """`polynomial` with a gradient for x; adjacency must be symmetric."""
    result: Tensor = _Polynomial.apply(x, adjacency, layers)  # type: ignore[no-untyped-call]
    return result


def product(matrix: Tensor, x: Tensor, transposed: Tensor | None = None) -> Tensor:
    """matrix @ x with a gradient for x: (n, n) sparse, (n, d) -> (n, d).

    Args:
        matrix: a sparse CSR matrix.
        x: dense.
        transposed: the matrix's transpose; left out for a symmetric one.
    """
    result: Tensor = _Product.apply(x, matrix, matrix if transposed is None else transposed)  # type: ignore[no-untyped-call]
    return result
