"""How much a change of one row disturbs the scores of everybody else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from service.unlearning.state import TrainedState

DAMPING = 0.03
"""Share of the mean diagonal that is added to a second moment: directions that no row uses cost something too."""


@dataclass(frozen=True)
class ReadoutMetric:
    """Inverse second moments of a base's readout, each row weighted by its interactions.

    Changing user u by D changes its scores by <D, ebar_i>: on average over interactions by D' M_I D with M_I the
    items' second moment. So M_I^-1 ebar_i is the direction that moves the score of item i and the other items least,
    and ebar_i' M_I^-1 ebar_i, its leverage, says how far one interaction can move it.

    Shapes: `items_inverse` and `users_inverse` (d, d) float32, symmetric positive definite.
    """

    items_inverse: Tensor
    users_inverse: Tensor

    @classmethod
    def of(cls, state: TrainedState) -> ReadoutMetric:
        """Of a base; cost O(N d^2 + d^3)."""
        n_users, degree = state.graph.n_users, state.graph.degree
        users, items = state.readout[:n_users], state.readout[n_users:]
        return cls(_inverse(items, degree[n_users:]), _inverse(users, degree[:n_users]))

    def item_leverage(self, items: Tensor) -> Tensor:
        """(m, d) rows of items -> (m,) ebar' M_I^-1 ebar, >= 0."""
        return ((items @ self.items_inverse) * items).sum(dim=1)

    def user_leverage(self, users: Tensor) -> Tensor:
        """(m, d) rows of users -> (m,) ebar' M_U^-1 ebar, >= 0."""
        return ((users @ self.users_inverse) * users).sum(dim=1)


def _inverse(rows: Tensor, weight: Tensor) -> Tensor:
    share = (weight / weight.sum().clamp(min=1)).double()
    exact = rows.double()
    moment = (exact * share[:, None]).T @ exact
    moment.diagonal().add_(DAMPING * moment.diagonal().mean().clamp(min=1e-12))
    inverse: Tensor = torch.linalg.inv(moment).float()
    return inverse
