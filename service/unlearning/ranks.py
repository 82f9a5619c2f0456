"""How often one set of scores stands above another."""

import torch
from torch import Tensor


def auc(first: Tensor, second: Tensor) -> float:
    """Probability that an entry of `first` is above one of `second`, ties counted half; .5 where either is empty.

    Shapes: (n,), (m,) -> float. Cost: O((n + m) log m).
    """
    if not first.numel() or not second.numel():
        return 0.5
    ordered = torch.sort(second).values
    below = torch.searchsorted(ordered, first.contiguous(), right=False)
    not_above = torch.searchsorted(ordered, first.contiguous(), right=True)
    return float((below + not_above).double().mean() / (2 * second.numel()))
