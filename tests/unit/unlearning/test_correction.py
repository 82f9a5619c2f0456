import pytest
import torch
from torch import Tensor

from service.recommender.losses import pair_scores
from service.unlearning import correction
from service.unlearning.amplification import swap_graph
from service.unlearning.correction import least_disturbance
from service.unlearning.metric import ReadoutMetric
from service.unlearning.state import TrainedState
from tests.unit.learning import random_state, some_edges


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conjugate gradients that do not stop early."""
    monkeypatch.setattr(correction, "_STEPS", 200)
    monkeypatch.setattr(correction, "_TOLERANCE", 1e-7)


def _case(state: TrainedState, count: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs whose rows keep an interaction, the readout without them, and aims one below what they score."""
    edges = some_edges(state.graph, count)
    remaining = state.graph.without(edges)
    edges = edges[:, remaining.keeps(edges)].long()
    readout = swap_graph(state, remaining)
    aims = pair_scores(readout, state.graph.n_users, edges[0], edges[1]) - 1 - torch.rand(edges.shape[1])
    return edges, readout, aims


def _dense(state: TrainedState, edges: Tensor, readout: Tensor, aims: Tensor) -> Tensor:
    """The minimiser of x'Hx + |Ax - b|^2 / slack over all rows, in float64: the definition, with loops."""
    metric, n_users, size = ReadoutMetric.of(state), state.graph.n_users, state.e0.shape[1]
    degree = state.graph.without(edges).degree
    users, items = (torch.linalg.inv(side.double()) for side in (metric.users_inverse, metric.items_inverse))
    prices = [(count + 1) * (items if row < n_users else users) for row, count in enumerate(degree.tolist())]
    price: Tensor = torch.block_diag(*prices)  # type: ignore[no-untyped-call]
    rows = readout.double()
    moves, wanted = torch.zeros(edges.shape[1], price.shape[0], dtype=torch.float64), aims.double()
    for pair, (u, i) in enumerate(edges.T.tolist()):
        moves[pair].view(-1, size)[u] = rows[n_users + i]
        moves[pair].view(-1, size)[n_users + i] = rows[u]
        wanted[pair] = aims[pair] - rows[u] @ rows[n_users + i]
    moved = moves @ torch.linalg.solve(price, moves.T)
    slack = correction.SLACK * moved.diagonal().mean() + 1e-12
    system = price + moves.T @ moves / slack
    solution: Tensor = torch.linalg.solve(system, moves.T @ wanted / slack)
    return solution.view(-1, size)


def _linear_move(state: TrainedState, edges: Tensor, readout: Tensor, change: Tensor) -> Tensor:
    users, items = edges[0], edges[1] + state.graph.n_users
    return (change[users] * readout[items] + readout[users] * change[items]).sum(dim=1)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_the_minimiser_of_its_objective(seed: int) -> None:
    """Against a dense solution of the stationarity conditions."""
    state = random_state(seed=seed)
    edges, readout, aims = _case(state)

    change = least_disturbance(readout, state.graph.without(edges), edges, aims, ReadoutMetric.of(state))

    assert torch.allclose(change.double(), _dense(state, edges, readout, aims), atol=1e-4)


def test_stopping_early_is_near_the_minimiser() -> None:
    """The steps and the tolerance that ship reach it to a few hundredths."""
    state = random_state(60, 40, 600, size=8)
    edges, readout, aims = _case(state, 60)

    change = least_disturbance(readout, state.graph.without(edges), edges, aims, ReadoutMetric.of(state))

    expected = _dense(state, edges, readout, aims)
    assert (change - expected).norm() < 0.05 * expected.norm()


def test_only_rows_of_revoked_pairs_change() -> None:
    """Everybody else keeps the readout of the remaining graph."""
    state = random_state()
    edges, readout, aims = _case(state, 3)

    change = least_disturbance(readout, state.graph.without(edges), edges, aims, ReadoutMetric.of(state))

    touched = torch.zeros(state.graph.n_nodes, dtype=torch.bool)
    touched[edges[0]] = touched[edges[1] + state.graph.n_users] = True
    assert torch.equal(change.abs().sum(dim=1) > 0, touched)


@pytest.mark.usefixtures("exact")
def test_without_slack_every_pair_meets_its_aim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the product of two changes, which is left out."""
    monkeypatch.setattr(correction, "SLACK", 1e-6)
    state = random_state()
    edges, readout, aims = _case(state, 5)

    change = least_disturbance(readout, state.graph.without(edges), edges, aims, ReadoutMetric.of(state))

    wanted = aims - pair_scores(readout, state.graph.n_users, edges[0], edges[1])
    assert torch.allclose(_linear_move(state, edges, readout, change), wanted, atol=1e-2)


def test_no_pair_and_no_distance_change_nothing() -> None:
    """An empty request, and pairs that score what they should already."""
    state = random_state()
    edges, readout, _ = _case(state)
    remaining, metric = state.graph.without(edges), ReadoutMetric.of(state)
    met = pair_scores(readout, state.graph.n_users, edges[0], edges[1])

    assert not least_disturbance(readout, remaining, edges[:, :0], met[:0], metric).any()
    assert least_disturbance(readout, remaining, edges, met, metric).abs().max() < 1e-5


def test_the_order_of_pairs_has_no_effect() -> None:
    """Aims go with their pairs."""
    state = random_state()
    edges, readout, aims = _case(state)
    remaining, metric = state.graph.without(edges), ReadoutMetric.of(state)
    order = torch.randperm(edges.shape[1], generator=torch.Generator().manual_seed(3))

    once = least_disturbance(readout, remaining, edges, aims, metric)
    again = least_disturbance(readout, remaining, edges[:, order], aims[order], metric)

    assert torch.equal(once, again)
