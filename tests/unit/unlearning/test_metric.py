import torch

from service.unlearning.metric import DAMPING, ReadoutMetric
from tests.unit.learning import random_state


def test_the_metric_is_the_inverse_of_the_damped_second_moments() -> None:
    """Each side's rows weighted by their interactions, with loops as the oracle."""
    state = random_state()
    n_users, size = state.graph.n_users, state.e0.shape[1]

    metric = ReadoutMetric.of(state)

    for inverse, rows, degree in (
        (metric.users_inverse, state.readout[:n_users], state.graph.user_degree),
        (metric.items_inverse, state.readout[n_users:], state.graph.item_degree),
    ):
        moment = torch.zeros(size, size, dtype=torch.float64)
        for row, count in zip(rows.double(), degree.tolist(), strict=True):
            moment += count / state.graph.n_edges * torch.outer(row, row)
        moment += DAMPING * moment.trace() / size * torch.eye(size, dtype=torch.float64)
        assert torch.allclose(inverse.double() @ moment, torch.eye(size, dtype=torch.float64), atol=1e-4)


def test_leverage_is_the_squared_length_in_the_metric() -> None:
    """Never negative, zero for a zero row, and users and items each have their own."""
    state = random_state()
    metric, n_users = ReadoutMetric.of(state), state.graph.n_users
    users = torch.cat((state.readout[:n_users], torch.zeros(1, 4)))
    items = state.readout[n_users:]

    of_users, of_items = metric.user_leverage(users), metric.item_leverage(items)

    assert torch.allclose(of_users, torch.stack([row @ metric.users_inverse @ row for row in users]), atol=1e-4)
    assert torch.allclose(of_items, torch.stack([row @ metric.items_inverse @ row for row in items]), atol=1e-4)
    assert (of_users >= 0).all()
    assert (of_items >= 0).all()
    assert of_users[-1] == 0


def test_a_direction_that_no_row_uses_has_a_finite_price() -> None:
    """Readouts of low rank have no inverse second moment without the damping."""
    state = random_state()
    state.e0[:, 0] = 0

    metric = ReadoutMetric.of(state)

    assert torch.isfinite(metric.users_inverse).all()
    assert (torch.linalg.eigvalsh(metric.items_inverse) > 0).all()
