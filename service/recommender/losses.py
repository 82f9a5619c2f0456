"""The losses of training: one function each."""

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import softplus

if TYPE_CHECKING:
    from service.recommender.backbones.base import Triples


def pair_scores(readout: Tensor, n_users: int, users: Tensor, items: Tensor) -> Tensor:
    """y_ui = <ebar_u, ebar_i> for pairs: readout (n, d), users and items (b,) rows -> (b,)."""
    return (readout[users] * readout[items + n_users]).sum(dim=-1)


def bpr_loss(readout: Tensor, n_users: int, batch: "Triples") -> Tensor:
    """Mean over the batch of softplus(y_uj - y_ui) = -log sig(y_ui - y_uj) (Rendle et al., UAI 2009)."""
    user = readout[batch.users]  # (b, d)
    preferred = readout[batch.positives + n_users] - readout[batch.negatives + n_users]  # (b, d)
    return softplus(-(user * preferred).sum(dim=-1)).mean()


def l2_loss(e0: Tensor, n_users: int, batch: "Triples") -> Tensor:
    """Half the squared norm of the batch's layer-0 rows, over the batch size."""
    rows = (e0[batch.users], e0[batch.positives + n_users], e0[batch.negatives + n_users])
    squares = rows[0].square().sum() + rows[1].square().sum() + rows[2].square().sum()
    return squares / (2 * batch.users.numel())
