"""The least disturbance: bring revoked pairs to what they should score and move the other scores least."""

from __future__ import annotations

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.losses import rows_of
from service.unlearning.metric import ReadoutMetric

SLACK = 0.03
"""Weight of the distance to the aims against the disturbance, relative to the mean pair's: aims are estimates, so a
pair that could be moved only at a great price may fall short."""
_STEPS = 20
_TOLERANCE = 1e-2  # of the residual: far below the error of the aims


def least_disturbance(
    readout: Tensor, remaining: InteractionGraph, edges: Tensor, aims: Tensor, metric: ReadoutMetric
) -> Tensor:
    """The change of the readout that brings revoked pairs to their aims.

    Among all changes D it is the one with the least

        sum_u (d_u + 1) D_u' M_I D_u + sum_i (d_i + 1) D_i' M_U D_i      (see `ReadoutMetric`)

    for which y_ui + <D_u, ebar_i> + <ebar_u, D_i> meets the aim t_ui of each pair. Rows with many interactions have
    more to lose and move less. Its dual has one unknown a pair, (K + SLACK) alpha = t - y, solved by conjugate
    gradients:

        D_u = sum_i alpha_ui M_I^-1 ebar_i / (d_u + 1),   D_i = sum_u alpha_ui M_U^-1 ebar_u / (d_i + 1).

    Only rows of revoked pairs change. The product <D_u, D_i> is left out.

    Args:
        readout: (n_nodes, d) on the remaining graph, users first.
        remaining: the graph without the request.
        edges: (2, m) int64 revoked pairs whose rows keep an interaction.
        aims: (m,) what they should score.
        metric: of the base.

    Returns:
        (n_nodes, d) D. Cost: O(m d) a step, at most 20 steps, and O((touched rows) d^2).
    """
    change = torch.zeros_like(readout)
    if not edges.shape[1]:
        return change
    users, user_of = torch.unique(edges[0], return_inverse=True)
    items, item_of = torch.unique(edges[1], return_inverse=True)
    system = _System(
        rows_of(readout, users),
        rows_of(readout, items + remaining.n_users),
        _Pattern(user_of, item_of, users.numel(), items.numel()),
        1 / (remaining.user_degree[users].float() + 1),
        1 / (remaining.item_degree[items].float() + 1),
        metric,
    )
    wanted = aims[system.pattern.order] - system.pattern.products(system.users, system.items)
    user_change, item_change = system.changes(system.solve(wanted))
    change[users], change[items + remaining.n_users] = user_change, item_change
    return change


class _Pattern:
    """The revoked pairs as a sparse matrix and its transpose, users by items, over touched rows only."""

    def __init__(self, user_of: Tensor, item_of: Tensor, n_users: int, n_items: int) -> None:
        self.order = torch.argsort(user_of * n_items + item_of)
        self.user_of, self.item_of = user_of[self.order], item_of[self.order]
        self.by_item = torch.argsort(self.item_of, stable=True)
        self.shape = (n_users, n_items)
        self.rows = _starts(self.user_of, n_users)
        self.columns = _starts(self.item_of, n_items)
        self.pairs = self.matrix(torch.zeros(self.user_of.numel(), device=self.user_of.device))

    def products(self, users: Tensor, items: Tensor) -> Tensor:
        """(m,) <users_u, items_i> of each pair, in pattern order: no copy of a row is made."""
        products: Tensor = torch.sparse.sampled_addmm(self.pairs, users, items.T, beta=0.0).values()
        return products

    def matrix(self, values: Tensor) -> Tensor:
        """(n_users, n_items) with (m,) values in pattern order."""
        return torch.sparse_csr_tensor(self.rows, self.item_of, values, self.shape, check_invariants=False)

    def transposed(self, values: Tensor) -> Tensor:
        """(n_items, n_users) with the same values."""
        users, shape = self.user_of[self.by_item], self.shape[::-1]
        return torch.sparse_csr_tensor(self.columns, users, values[self.by_item], shape, check_invariants=False)


def _starts(rows: Tensor, count: int) -> Tensor:
    ends = torch.cumsum(torch.bincount(rows, minlength=count), dim=0)
    return torch.cat((ends.new_zeros(1), ends))


class _System:
    """K alpha, where K holds how far moving one pair moves another."""

    def __init__(
        self,
        users: Tensor,
        items: Tensor,
        pattern: _Pattern,
        user_freedom: Tensor,
        item_freedom: Tensor,
        metric: ReadoutMetric,
    ) -> None:
        self.pattern = pattern
        self.user_freedom, self.item_freedom = user_freedom[:, None], item_freedom[:, None]
        self.users, self.items = users, items
        self.item_directions, self.user_directions = items @ metric.items_inverse, users @ metric.users_inverse
        item_leverage = (self.item_directions * items).sum(dim=1)
        user_leverage = (self.user_directions * users).sum(dim=1)
        u, i = pattern.user_of, pattern.item_of
        self.diagonal = item_leverage[i] * user_freedom[u] + user_leverage[u] * item_freedom[i]
        self.slack = SLACK * self.diagonal.mean() + 1e-12

    def changes(self, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """(m,) multipliers -> changes of the touched users and of the touched items."""
        users = self.pattern.matrix(alpha) @ self.item_directions
        items = self.pattern.transposed(alpha) @ self.user_directions
        return users * self.user_freedom, items * self.item_freedom

    def product(self, alpha: Tensor) -> Tensor:
        user_change, item_change = self.changes(alpha)
        moved = self.pattern.products(user_change, self.items) + self.pattern.products(self.users, item_change)
        return moved + self.slack * alpha

    def solve(self, wanted: Tensor) -> Tensor:
        """Conjugate gradients, preconditioned by the diagonal."""
        inverse = 1 / (self.diagonal + self.slack)
        alpha, residual = torch.zeros_like(wanted), wanted.clone()
        scaled = inverse * residual
        direction, norm = scaled.clone(), float(residual @ scaled)
        floor = norm * _TOLERANCE**2
        for _ in range(_STEPS):
            if norm <= floor:
                break
            image = self.product(direction)
            step = norm / float(direction @ image)
            alpha += step * direction
            residual -= step * image
            scaled = inverse * residual
            norm, previous = float(residual @ scaled), norm
            direction = scaled + (norm / previous) * direction
        return alpha
