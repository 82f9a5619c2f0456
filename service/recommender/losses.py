"""The losses of training: one function each."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, softplus

if TYPE_CHECKING:
    from service.recommender.backbones.base import Triples


def pair_scores(readout: Tensor, n_users: int, users: Tensor, items: Tensor) -> Tensor:
    """y_ui = <ebar_u, ebar_i> for pairs: readout (n, d), users and items (b,) rows -> (b,)."""
    return (rows_of(readout, users) * rows_of(readout, items + n_users)).sum(dim=-1)


def rows_of(table: Tensor, rows: Tensor) -> Tensor:
    """(n, d) table and (m,) integer rows -> (m, d). Indexing gives the same, at several times the cost on a CPU."""
    return table.index_select(0, rows)


def bpr_loss(readout: Tensor, n_users: int, batch: "Triples") -> Tensor:
    """Mean over the batch of softplus(y_uj - y_ui) = -log sig(y_ui - y_uj) (Rendle et al., UAI 2009)."""
    user = rows_of(readout, batch.users)  # (b, d)
    preferred = rows_of(readout, batch.positives + n_users) - rows_of(readout, batch.negatives + n_users)  # (b, d)
    return softplus(-(user * preferred).sum(dim=-1)).mean()


def sampled_softmax_loss(readout: Tensor, n_users: int, batch: "Triples", sampled: int) -> Tensor:
    """Mean over the batch of -log(exp(y_ui) / sum_j exp(y_uj)), the sum over all items estimated from some.

    The negatives of the batch's first triples serve all of it: a nearly uniform sample of the items, weighted up to
    their number.

    Args:
        readout: (n_nodes, d), users first.
        n_users: separates user rows from item rows.
        batch: its users and positives make the loss.
        sampled: first negatives that are taken, each item once.

    Cost: O(b sampled d) time and O(b sampled) memory.
    """
    items = torch.unique(batch.negatives[:sampled]) + n_users
    users = rows_of(readout, batch.users)
    liked = pair_scores(readout, n_users, batch.users, batch.positives)
    share = items.numel() / (readout.shape[0] - n_users)
    others = torch.logsumexp(users @ rows_of(readout, items).T, dim=1) - math.log(share)
    return softplus(others - liked).mean()  # log(e^y + e^others) - y


def l2_loss(e0: Tensor, n_users: int, batch: "Triples") -> Tensor:
    """Half the squared norm of the batch's layer-0 rows, over the batch size; a row counts as often as it is named.

    Counting costs O(b + n d) and no copy of the rows.
    """
    named = torch.cat((batch.users, batch.positives + n_users, batch.negatives + n_users))
    times = torch.bincount(named, minlength=e0.shape[0]).to(e0.dtype)
    return (e0.square().sum(dim=1) @ times) / (2 * batch.users.numel())


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean over rows v of -log softmax_w(cos(first_v, second_w) / temperature) at w = v (van den Oord et al., 2018).

    Shapes: first and second (n, d), two views of the same nodes -> scalar. Cost: O(n^2 d) time, O(n^2) memory.
    """
    similarity = normalize(first, dim=1) @ normalize(second, dim=1).T / temperature  # (n, n)
    return cross_entropy(similarity, torch.arange(first.shape[0], device=first.device))


def view_contrast(
    first: Tensor, second: Tensor, n_users: int, batch: "Triples", nodes: int, temperature: float
) -> Tensor:
    """`info_nce` of the batch's users plus that of its positive items, between two views of all nodes.

    Args:
        first: (n_nodes, d) one view's readout.
        second: (n_nodes, d) the other's.
        n_users: separates user rows from item rows.
        batch: its first interactions say which nodes.
        nodes: of the batch's interactions at most so many are looked at: bounds the similarity matrices.
        temperature: tau, > 0.
    """
    users, items = torch.unique(batch.users[:nodes]), torch.unique(batch.positives[:nodes]) + n_users
    return info_nce(first[users], second[users], temperature) + info_nce(first[items], second[items], temperature)
