"""What each influence method does to a small trained world."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.unlearning.influence import CEU, GIF, IFRU, SCIF
from service.unlearning.influence.ifru import importances
from service.unlearning.influence.newton import NewtonStep, touched, within
from service.unlearning.influence.objective import FixedTriples, Objective
from service.unlearning.influence.scif import _batches
from service.unlearning.protocol import Guarantee, Unlearner
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState, zero_isolated
from tests.unit.learning import trained_blocks

METHODS: dict[str, Callable[[], Unlearner]] = {
    "gif": GIF,
    "gif-cg": lambda: GIF(solver="cg"),
    "ceu": CEU,
    "ceu-literal": lambda: CEU(literal=True),
    "ifru": IFRU,
    "scif": SCIF,
}


@pytest.fixture(scope="module")
def state() -> TrainedState:
    """One trained base for all tests of this file; nothing here changes it."""
    return trained_blocks()


@pytest.fixture(scope="module")
def settled(state: TrainedState) -> TrainedState:
    """The base moved on to where its fixed-triples objective is nearly flat: there a Newton step means what it says."""
    objective = Objective(state.backbone, FixedTriples.draw(state.graph))
    e0 = state.e0.clone()
    optimiser = torch.optim.Adam([e0], lr=2e-2)
    for _ in range(600):
        e0.grad = objective.gradient(e0, state.graph)
        optimiser.step()
    return TrainedState(state.graph, state.validation, e0, state.backbone)


@pytest.fixture(scope="module")
def request_(state: TrainedState) -> UnlearningRequest:
    """Some of the edges, in both modes."""
    order = torch.randperm(state.graph.n_edges, generator=torch.Generator().manual_seed(0))
    return UnlearningRequest.of(
        state, forget=state.graph.edges[:, order[:15]], dislike=state.graph.edges[:, order[15:20]]
    )


def _mean_score(state: TrainedState, readout: Tensor, edges: Tensor) -> float:
    users, items = edges.long()
    return float(pair_scores(readout, state.graph.n_users, users, items).mean())


@pytest.mark.parametrize("name", METHODS)
def test_an_empty_request_gives_the_base(name: str, state: TrainedState) -> None:
    """Bit for bit."""
    result = METHODS[name]().forget(state, UnlearningRequest.of(state))

    assert torch.equal(result.e0, state.e0)
    assert torch.equal(result.readout, state.readout)
    assert result.graph is state.graph


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_did(name: str, state: TrainedState, request_: UnlearningRequest) -> None:
    """Approximate, timed by step, the remaining graph, a readout that follows from e0, and the same on a repeat."""
    method = METHODS[name]()
    before = state.e0.clone()

    result, again = method.forget(state, request_), METHODS[name]().forget(state, request_)

    assert method.guarantee is Guarantee.APPROXIMATE
    assert method.report is not None  # type: ignore[attr-defined]
    assert not result.graph.contains(request_.edges).any()
    propagated = state.backbone.propagate(result.e0, result.graph)
    assert torch.equal(result.readout, zero_isolated(propagated, result.graph))
    assert {"solve", "propagate"} <= result.seconds.keys()
    assert torch.equal(result.e0, again.e0)
    assert torch.equal(state.e0, before)


@pytest.mark.parametrize("name", ["gif", "gif-cg", "ceu", "ifru"])
def test_forgotten_pairs_fall(name: str, settled: TrainedState, request_: UnlearningRequest) -> None:
    """Below the base and below what swapping the graph does alone; what remains moves less."""
    result = METHODS[name]().forget(settled, request_)

    edges = request_.edges
    swapped = settled.backbone.propagate(settled.e0, result.graph)
    fall = _mean_score(settled, settled.readout, edges) - _mean_score(settled, result.readout, edges)
    assert fall > 0
    assert _mean_score(settled, result.readout, edges) < _mean_score(settled, swapped, edges)
    kept = result.graph.edges
    assert abs(_mean_score(settled, settled.readout, kept) - _mean_score(settled, result.readout, kept)) < fall / 2


def test_both_modes_are_alike(state: TrainedState, request_: UnlearningRequest) -> None:
    as_one = UnlearningRequest.of(state, forget=request_.edges)

    assert torch.allclose(CEU().forget(state, request_).e0, CEU().forget(state, as_one).e0)


@pytest.mark.parametrize("name", METHODS)
def test_a_whole_user_can_go(name: str, state: TrainedState) -> None:
    """The row is zero afterwards, not merely moved."""
    method = METHODS[name]()

    result = method.forget(state, UnlearningRequest.of(state, forget=state.graph.edges_of_users(torch.tensor([3]))))

    assert not result.e0[3].any()
    assert not result.readout[3].any()
    assert torch.isfinite(result.e0).all()


@pytest.mark.parametrize("hops", [0, 1, 2])
def test_rows_beyond_the_hops_stay(hops: int, state: TrainedState) -> None:
    """GIF-k: the full step, with rows further from the request left out."""
    request = UnlearningRequest.of(state, forget=state.graph.edges[:, :1])
    near = within(state.graph, touched(state, request), hops)
    method = GIF(solver="cg", hops=hops)

    moved = (method.forget(state, request).e0 != state.e0).any(dim=1)

    full = GIF(solver="cg").forget(state, request).e0
    assert torch.equal(method.forget(state, request).e0[near], full[near])
    assert not moved[~near].any()
    assert moved[near].all()
    assert near.sum() < state.graph.n_nodes
    assert method.report is not None
    assert method.report.rows == int(near.sum())


def test_hops_are_steps_along_interactions() -> None:
    """On a path u0 - i0 - u1 - i1 - u2."""
    graph = InteractionGraph(3, 2, torch.tensor([[0, 1, 1, 2], [0, 0, 1, 1]]))
    start = torch.tensor([True, False, False, False, False])

    assert within(graph, start, 0).tolist() == start.tolist()
    assert within(graph, start, 1).tolist() == [True, False, False, True, False]
    assert within(graph, start, 2).tolist() == [True, True, False, True, False]


def test_short_neumann_series_move_less(settled: TrainedState, request_: UnlearningRequest) -> None:
    """The published default of five iterations hardly forgets."""
    short, long = (GIF(iterations=count).forget(settled, request_).e0 - settled.e0 for count in (5, 100))

    assert short.norm() < long.norm()


def test_an_indefinite_hessian_is_damped_as_much_as_it_takes(
    state: TrainedState, settled: TrainedState, request_: UnlearningRequest
) -> None:
    """The series of a base far from its optimum stays sound; one at its optimum keeps the damping asked for."""
    far, near = GIF(), GIF()

    far.forget(state, request_)
    near.forget(settled, request_)

    assert far.report is not None
    assert near.report is not None
    assert not far.report.solver.stopped_early
    assert far.report.damping > far.report.solver.scale / 3
    assert near.report.damping < 0.01 * near.report.solver.scale


def test_damping_shortens_the_step(settled: TrainedState, request_: UnlearningRequest) -> None:
    light, heavy = (CEU(damping=damping).forget(settled, request_).e0 - settled.e0 for damping in (0.1, 10.0))

    assert heavy.norm() < light.norm() / 2


def test_the_trust_region_bounds_every_row(state: TrainedState, request_: UnlearningRequest) -> None:
    method = CEU(damping=1e-3, radius=0.05)

    result = method.forget(state, request_)

    alive = result.graph.degree > 0
    length = (result.e0 - state.e0).norm(dim=1)[alive]
    assert bool((length <= 0.05 * state.e0.norm(dim=1)[alive] * 1.001).all())
    assert method.report is not None
    assert method.report.capped > 0


def test_the_literal_ceu_carries_no_direct_term(state: TrainedState, request_: UnlearningRequest) -> None:
    """Its right side is the spillover, its damping the paper's; the pairs hardly notice."""
    literal, adapted = CEU(literal=True), CEU()

    step = literal.forget(state, request_).e0 - state.e0
    other = adapted.forget(state, request_).e0 - state.e0

    prepared = literal._prepared
    assert prepared is not None
    lost = ~state.graph.without(request_.edges).contains(state.graph.edges)
    difference = prepared.objective.difference(state.e0, state.graph.without(request_.edges), lost)
    assert torch.equal(literal._right(difference), difference.spillover)
    assert torch.equal(adapted._right(difference), difference.total)
    assert literal.report is not None
    assert literal.report.damping == pytest.approx(0.01 * state.graph.n_edges)
    assert step.norm() < other.norm()


def test_the_residual_says_how_much_the_step_made_up_for(settled: TrainedState, request_: UnlearningRequest) -> None:
    """A diagnostic of CEU, never a certificate."""
    method = CEU()

    method.forget(settled, request_)

    assert method.residual is not None
    assert method.residual.after < method.residual.before / 2
    assert method.residual.squared_step > 0
    method.forget(settled, UnlearningRequest.of(settled))
    assert method.residual is None


def test_importance_spreads_as_written(state: TrainedState, request_: UnlearningRequest) -> None:
    """s_1 = D'^-1 (A + I) s_0, by dense matrices."""
    graph = state.graph
    dense = torch.eye(graph.n_nodes)
    users, items = graph.edges.long()
    dense[users, items + graph.n_users] = dense[items + graph.n_users, users] = 1
    lost = torch.zeros(graph.n_nodes)
    ends = torch.cat((request_.edges[0], request_.edges[1] + graph.n_users)).long()
    lost.index_add_(0, ends, torch.ones(ends.numel()))
    width = dense.sum(dim=1)

    assert torch.allclose(importances(graph, request_, 0), lost / width, atol=1e-6)
    assert torch.allclose(importances(graph, request_, 1), dense @ (lost / width) / width, atol=1e-6)


@pytest.mark.parametrize(("keep_frac", "hops"), [(0.6, 1), (0.2, 1), (0.6, 0)])
def test_pruned_rows_stay(keep_frac: float, hops: int, state: TrainedState, request_: UnlearningRequest) -> None:
    """The most important share of the rows moves, the request's own always."""
    method = IFRU(keep_frac=keep_frac, hops=hops)
    own = touched(state, request_)

    moved = (method.forget(state, request_).e0 != state.e0).any(dim=1)

    assert moved[own].all()
    assert int(moved.sum()) <= keep_frac * state.graph.n_nodes + int(own.sum())
    assert hops or torch.equal(moved, own)


def test_changed_data_is_that_of_nodes_that_lost_enough(state: TrainedState) -> None:
    request = UnlearningRequest.of(state, forget=state.graph.edges[:, :1])
    remaining = state.graph.without(request.edges)
    users, items = state.graph.edges
    user, item = request.edges[:, 0]

    some = IFRU(threshold=0.01)._spilled(state, remaining, request)

    assert torch.equal(some, (users == user) | (items == item))
    assert not IFRU(threshold=0.9)._spilled(state, remaining, request).any()


def test_scif_moves_the_users_of_the_request_alone(state: TrainedState, request_: UnlearningRequest) -> None:
    result = SCIF().forget(state, request_)

    moved = torch.nonzero((result.e0 != state.e0).any(dim=1)).flatten()
    assert torch.equal(moved, torch.unique(request_.edges[0]).long())
    edges = request_.edges
    assert _mean_score(state, result.readout, edges) < _mean_score(state, state.readout, edges)


def test_scif_solves_the_block_of_each_user(state: TrainedState, request_: UnlearningRequest) -> None:
    """H_u and g_u written out for one user."""
    method = SCIF(damping=0.2, radius=math.inf)
    user = int(request_.edges[0, 0])

    step = (method.forget(state, request_).e0 - state.e0)[user]

    assert method._prepared is not None
    _, triples, readout = method._prepared
    mine = state.graph.edges[0] == user
    q = readout[state.graph.n_users + triples.targets[mine].flatten()]
    likely = torch.sigmoid(q @ readout[user])
    block = q.T @ torch.diag(likely * (1 - likely)) @ q + 1e-2 * mine.sum() * torch.eye(16)
    block += 0.2 * block.diagonal().mean() * torch.eye(16)
    asked = request_.edges[1, request_.edges[0] == user].long()
    gradient = -0.5 * readout[state.graph.n_users + asked].sum(dim=0)
    assert torch.allclose(step, torch.linalg.solve(block, gradient), atol=1e-5)


def test_scif_gives_the_same_in_small_batches(state: TrainedState, request_: UnlearningRequest) -> None:
    """Memory is bounded by the budget, not by the request."""
    whole, parted = SCIF().forget(state, request_).e0, SCIF(budget=1).forget(state, request_).e0

    assert torch.allclose(whole, parted, atol=1e-6)
    assert _batches([2, 3, 3, 9], width=1, budget=8) == [slice(0, 2), slice(2, 3), slice(3, 4)]


def test_what_is_prepared_serves_one_base(state: TrainedState, request_: UnlearningRequest) -> None:
    """Prepared once for all requests to a base, anew for another."""
    method: NewtonStep = CEU()
    method.prepare(state)
    prepared = method._prepared

    method.forget(state, request_)
    assert method._prepared is prepared

    other = TrainedState(state.graph, state.validation, state.e0 * 0.9, state.backbone)
    method.forget(other, request_)
    assert method._prepared is not prepared
