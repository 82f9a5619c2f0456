"""Solvers against a direct solution, and their guards."""

import pytest
import torch
from torch import Tensor

from service.recommender.backbones import LightGCN
from service.unlearning.influence.newton import DampedProduct
from service.unlearning.influence.objective import Curvature, FixedTriples, Objective
from service.unlearning.influence.solvers import capped, conjugate_gradient, neumann, power_iteration
from tests.unit.learning import random_graph


def _symmetric(eigenvalues: list[float], seed: int = 0) -> Tensor:
    size = len(eigenvalues)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    return basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.T


def _right(size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def _toy() -> tuple[Curvature, Tensor]:
    """A Gauss-Newton matrix of a toy base, and it written down."""
    graph = random_graph()
    graph.__dict__["adjacency"] = graph.adjacency.double()
    e0 = torch.randn(graph.n_nodes, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    objective = Objective(LightGCN(layers=2), FixedTriples.draw(graph))
    curvature = Curvature(objective, e0, gauss_newton=True)
    columns = [curvature.product(unit).flatten() for unit in torch.eye(e0.numel()).double().view(-1, *e0.shape)]
    return curvature, torch.stack(columns)


@pytest.mark.parametrize("solver", ["cg", "neumann"])
def test_solvers_reach_the_exact_newton_step(solver: str) -> None:
    """(H + c I)^-1 g with the matrix of a toy base written down."""
    curvature, matrix = _toy()
    damping, right = 2.0, _right(matrix.shape[0])
    exact = torch.linalg.solve(matrix + damping * torch.eye(matrix.shape[0]), right)
    product, shaped = DampedProduct(curvature, damping), right.view(curvature.shape)

    if solver == "cg":
        step, report = conjugate_gradient(product, shaped, 500, 1e-9)
    else:
        scale = 1.1 * power_iteration(product, shaped)
        step, report = neumann(product, shaped, 5000, scale, 1e-9)

    assert report.ending == "converged"
    assert report.residual <= 1e-9
    assert torch.allclose(step.flatten(), exact, atol=1e-6)


def test_a_restricted_solution_is_that_of_the_block() -> None:
    """IFRU: rows outside B stay where they are, and H_BB alone decides."""
    curvature, matrix = _toy()
    rows = torch.arange(curvature.shape[0]) % 3 == 0
    right = _right(matrix.shape[0]).view(curvature.shape) * rows[:, None]

    step, _ = conjugate_gradient(DampedProduct(curvature, 1.0, rows), right, 500, 1e-9)

    inside = rows[:, None].expand(curvature.shape).flatten()
    block = matrix[inside][:, inside] + torch.eye(int(inside.sum()))
    assert torch.allclose(step.flatten()[inside], torch.linalg.solve(block, right.flatten()[inside]), atol=1e-6)
    assert not step.flatten()[~inside].any()


def test_neumann_takes_a_larger_scale_where_its_own_is_too_small() -> None:
    """It would diverge at scale 1; it starts anew with twice that until it does not."""
    matrix, right = _symmetric([1.0, 3.0, 10.0]), _right(3)

    step, report = neumann(matrix.mv, right, 1000, scale=1.0)

    assert report.ending == "converged"
    assert report.restarts == 3
    assert report.scale == 8.0
    assert torch.allclose(step, torch.linalg.solve(matrix, right), atol=1e-3)


def test_neumann_gives_up_on_scales_that_never_suffice() -> None:
    """The last sound iterate comes back: finite, whatever the series did."""
    step, report = neumann(_symmetric([1.0, 1e9]).mv, _right(2), 1000, scale=1.0, max_restarts=2)

    assert report.ending == "diverged"
    assert report.stopped_early
    assert report.restarts == 2
    assert torch.isfinite(step).all()


def test_neumann_stops_along_negative_curvature() -> None:
    """No scale helps there, so none is tried; the residual at its smallest is kept."""
    matrix, right = _symmetric([-1.0, 2.0, 5.0]), _right(3)

    step, report = neumann(matrix.mv, right, 1000, scale=6.0)

    assert report.ending == "indefinite"
    assert report.restarts == 0
    assert report.residual == pytest.approx(float((right - matrix @ step).norm() / right.norm()))


def test_neumann_recovers_an_eigendirection_in_part() -> None:
    """1 - (1 - mu / scale)^T: why a short series forgets little."""
    matrix = torch.diag(torch.tensor([0.1, 5.0]))

    step, report = neumann(matrix.mv, torch.ones(2), 10, scale=10.0)

    expected = (1 - (1 - torch.tensor([0.01, 0.5])) ** 10) / torch.tensor([0.1, 5.0])
    assert torch.allclose(step, expected, rtol=1e-4)
    assert report.ending == "limit"
    assert report.iterations == 10


def test_conjugate_gradient_flags_an_indefinite_matrix() -> None:
    step, report = conjugate_gradient(_symmetric([-1.0, -2.0, 5.0]).mv, _right(3), 50)

    assert report.ending == "indefinite"
    assert torch.isfinite(step).all()


def test_conjugate_gradient_flags_what_is_not_a_number() -> None:
    step, report = conjugate_gradient(lambda x: x * torch.nan, _right(3), 50)

    assert report.ending == "diverged"
    assert torch.isfinite(step).all()


def test_conjugate_gradient_may_start_elsewhere() -> None:
    """Another start, the same solution; the exact one needs no iteration."""
    matrix, right = _symmetric([1.0, 2.0, 4.0]), _right(3)
    exact = torch.linalg.solve(matrix, right)

    step, report = conjugate_gradient(matrix.mv, right, 50, 1e-9, start=torch.ones(3, dtype=torch.float64))
    _, at_once = conjugate_gradient(matrix.mv, right, 50, 1e-9, start=exact)

    assert torch.allclose(step, exact)
    assert report.ending == at_once.ending == "converged"
    assert at_once.iterations == 0


def test_nothing_to_solve_is_solved() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    for step, report in (conjugate_gradient(lambda x: x, zero, 5), neumann(lambda x: x, zero, 5, 1.0)):
        assert not step.any()
        assert report.ending == "converged"


def test_power_iteration_finds_the_largest_eigenvalue() -> None:
    assert power_iteration(_symmetric([1.0, 2.0, 8.0]).mv, _right(3)) == pytest.approx(8.0, rel=1e-3)


def test_the_trust_region_shortens_long_rows_only() -> None:
    """Row norms 1 and 5 under a cap of 2 each; a row that stays does not count."""
    step = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 0.0]])

    shortened, share = capped(step, torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 0.0]]), radius=1.0)

    assert torch.allclose(shortened.norm(dim=1), torch.tensor([1.0, 2.0, 0.0]))
    assert share == 0.5
    assert torch.equal(capped(step, torch.zeros(3, 2), radius=float("inf"))[0], step)
