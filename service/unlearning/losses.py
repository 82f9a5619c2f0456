"""The losses of UnlearnRec, equations (20)-(24), and the calibrated one of mode `forget`."""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, softplus

from service.recommender.backbones import Triples
from service.recommender.losses import info_nce

MAX_CONTRAST_NODES = 2048  # bounds the similarity matrix of the contrast to 2048 x 2048


def unlearning_loss(scores: Tensor) -> Tensor:
    """L_u = -mean log sig(-y) over the revoked pairs, equation (20): drives their scores down without end.

    Shapes: scores (m,) -> scalar.
    """
    return softplus(scores).mean() if scores.numel() else scores.sum()


def calibrated_loss(scores: Tensor, targets: Tensor, spread: float) -> Tensor:
    """Mean squared distance of the revoked pairs' scores to what unseen pairs like them score.

    Args:
        scores: (m,) now.
        targets: (m,) see `calibration.Calibration`.
        spread: standard deviation of scores, > 0; makes the loss independent of the backbone's scale.
    """
    return ((scores - targets) / spread).square().mean() if scores.numel() else scores.sum()


def positive_distribution(readout: Tensor, n_users: int, batch: Triples, temperature: float) -> Tensor:
    """Vector p of equation (21): log-softmax, over the batch's positive items, of each pair's own score.

    Shapes: readout (n_nodes, d), batch of b -> (b,).
    """
    scores = readout[batch.users] @ readout[batch.positives + n_users].T / temperature  # (b, b)
    return log_softmax(scores, dim=1).diagonal()


def preserving_loss(readout: Tensor, original: Tensor, n_users: int, batch: Triples, temperature: float) -> Tensor:
    """L_p = |p~ - p|^2, equation (22), a sum over the batch of remaining positives."""
    with torch.no_grad():
        before = positive_distribution(original, n_users, batch, temperature)
    return (positive_distribution(readout, n_users, batch, temperature) - before).square().sum()


def contrast_loss(clean: Tensor, dropped: Tensor, temperature: float) -> Tensor:
    """One layer's InfoNCE of equation (24) between clean states (no gradient) and those over S'_D.

    Shapes: clean and dropped (n, d) of the same nodes -> scalar.
    """
    return info_nce(clean.detach(), dropped, temperature)
