from dataclasses import replace

import pytest
import torch

from service.evaluation.adversarial import adversarial_edges
from service.evaluation.gate import Gate, GateThresholds
from service.evaluation.membership import MembershipProbe
from service.unlearning.pretraining import Pretraining, PretrainingConfig
from service.unlearning.protocol import ForgetResult
from service.unlearning.ranks import auc
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState
from service.unlearning.unlearnrec import UnlearnRec
from tests.unit.learning import trained_blocks


@pytest.fixture(scope="module")
def state() -> TrainedState:
    """One trained base for this file."""
    return trained_blocks()


@pytest.fixture(scope="module")
def request_(state: TrainedState) -> UnlearningRequest:
    """A random 5 % of the interactions."""
    order = torch.randperm(state.graph.n_edges, generator=torch.Generator().manual_seed(4))
    return UnlearningRequest.of(state, forget=state.graph.edges[:, order[:60]])


@pytest.fixture(scope="module")
def result(state: TrainedState, request_: UnlearningRequest) -> ForgetResult:
    """The request, forgotten by a pre-trained encoder."""
    encoder = Pretraining(state, PretrainingConfig(steps=0)).run().encoder
    return UnlearnRec({"forget": encoder}).forget(state, request_)


@pytest.fixture(scope="module")
def gate(state: TrainedState) -> Gate:
    """The gate of that base, drift left aside: in a world this small every edge is a neighbour."""
    return Gate(state, GateThresholds(max_drift=1.0, min_quality=0.9))


def test_a_good_version_passes(gate: Gate, request_: UnlearningRequest, result: ForgetResult) -> None:
    """What the method gives goes through, and the figures are all there."""
    report = gate.check(request_, result)

    assert report.passed, report.reasons
    wanted = {
        "auc_heldout",
        "mi_bf",
        "mi_ng",
        "forget_mean_rank",
        "quality_ratio",
        "drift",
        "forget_residual",
        "ndcg_at_20",
    }
    assert wanted <= report.figures.keys()


def test_a_version_that_forgot_nothing_is_held_back(
    gate: Gate, state: TrainedState, request_: UnlearningRequest
) -> None:
    """The base itself still knows the batch."""
    untouched = ForgetResult(state.e0, state.readout, state.graph)

    report = gate.check(request_, untouched)

    assert not report.passed
    assert any("above their target" in reason for reason in report.reasons)


def test_a_version_that_went_half_the_way_is_held_back(
    gate: Gate, state: TrainedState, request_: UnlearningRequest, result: ForgetResult
) -> None:
    """What is left is more than a quarter of the way and the noise of sixty pairs, and is told as that share."""
    half = torch.lerp(state.readout, result.readout, 0.5)

    report = gate.check(request_, replace(result, readout=half))

    assert any("above their target" in reason for reason in report.reasons)
    left = report.figures["forget_residual"] / report.figures["forget_reach"]
    assert 0.3 < left < 0.7


def test_a_version_that_overshoots_is_held_back(gate: Gate, request_: UnlearningRequest, result: ForgetResult) -> None:
    """An unnaturally low score is a leak too."""
    users, items = request_.forget.long()
    readout = result.readout.clone()
    readout[users] -= 4 * readout[items + 120]

    report = gate.check(request_, replace(result, readout=readout))

    assert any("below their target" in reason for reason in report.reasons)


def test_a_single_pair_is_measured_and_not_judged_by_its_score(gate: Gate, state: TrainedState) -> None:
    """Far too low or not forgotten at all: one score says neither; the figures are there all the same."""
    pair = UnlearningRequest.of(state, forget=state.graph.edges[:, :1])
    user, item = (int(end) for end in pair.forget[:, 0])
    low, remaining = state.readout.clone(), state.graph.without(pair.edges)
    low[user] -= 4 * low[item + 120]

    for readout in (state.readout, low):
        report = gate.check(pair, ForgetResult(state.e0, readout, remaining))
        assert not any("target" in reason for reason in report.reasons)
        assert "forget_residual" in report.figures


def test_single_pairs_are_judged_together(gate: Gate, state: TrainedState, request_: UnlearningRequest) -> None:
    """The last of sixty batches of one pair each is what makes them enough: the version forgot none of them."""
    untouched = ForgetResult(state.e0, state.readout, state.graph.without(request_.edges))
    last = UnlearningRequest.of(state, forget=request_.forget[:, -1:])
    few = UnlearningRequest.of(state, forget=request_.forget[:, -8:])

    report = gate.check(last, untouched, request_, request_)

    assert report.figures["forget_interactions"] == 1
    assert report.figures["recent_forget_interactions"] == 60
    assert [reason for reason in report.reasons if reason.startswith("recent pairs, forget:")]
    assert gate.check(last, untouched, few, few).passed


def test_a_history_that_mostly_goes_may_fall_low(gate: Gate, state: TrainedState) -> None:
    """Whoever keeps a few of their interactions scores low for the rest, retrained or not: no overshoot."""
    degrees = state.graph.user_degree
    edges = state.graph.edges_of_users(torch.topk(degrees, 12).indices)
    order = torch.argsort(edges[0], stable=True)
    edges = edges[:, order]
    kept = torch.cat((torch.ones(1, dtype=torch.bool), edges[0, 1:] != edges[0, :-1]))  # one of each
    request = UnlearningRequest.of(state, forget=edges[:, ~kept])
    assert request.n_edges >= 9

    users, items = request.forget.long()
    readout = state.readout.clone()
    readout[users] -= 4 * readout[items + 120]
    report = gate.check(request, ForgetResult(state.e0, readout, state.graph.without(request.edges)))

    assert report.figures["forget_residual"] < 0
    assert not any("below their target" in reason for reason in report.reasons)


def test_a_version_that_ruins_the_ranking_is_held_back(
    gate: Gate, request_: UnlearningRequest, result: ForgetResult
) -> None:
    """Noise in the embeddings costs quality and drifts."""
    noise = torch.randn(result.readout.shape, generator=torch.Generator().manual_seed(0))

    report = gate.check(request_, replace(result, readout=result.readout + 3 * noise))

    assert any("quality" in reason for reason in report.reasons)
    assert any("remaining scores moved" in reason for reason in report.reasons)


def test_a_version_with_nan_is_held_back(gate: Gate, request_: UnlearningRequest, result: ForgetResult) -> None:
    """Not a number never serves, and never reaches a manifest."""
    readout = result.readout.clone()
    readout[0, 0] = torch.nan

    report = gate.check(request_, replace(result, readout=readout))

    assert "not finite" in report.reasons[0]
    assert all(value == value for value in report.figures.values())


def test_disliked_pairs_must_be_forgotten_at_least(
    gate: Gate, state: TrainedState, request_: UnlearningRequest
) -> None:
    """Mode `dislike` may go lower than `forget`, never less far."""
    request = UnlearningRequest.of(state, dislike=request_.forget)
    untouched = ForgetResult(state.e0, state.readout, state.graph)
    low = state.readout.clone()
    low[request.dislike[0].long()] -= 4 * low[request.dislike[1].long() + state.graph.n_users]

    assert any("dislike: pairs score" in reason for reason in gate.check(request, untouched).reasons)
    assert not any("dislike" in reason for reason in gate.check(request, replace(untouched, readout=low)).reasons)


def test_an_empty_batch_passes(gate: Gate, state: TrainedState) -> None:
    """Nothing to check is nothing to hold back."""
    report = gate.check(UnlearningRequest.of(state), ForgetResult(state.e0, state.readout, state.graph))

    assert report.passed
    assert report.figures["n_interactions"] == 0


def test_a_whole_user_passes(gate: Gate, state: TrainedState) -> None:
    """A reset row has no score to compare; the rest is measured."""
    encoder = Pretraining(state, PretrainingConfig(steps=0)).run().encoder
    request = UnlearningRequest.of(state, forget=state.graph.edges_of_users(torch.tensor([5])))

    report = gate.check(request, UnlearnRec({"forget": encoder}).forget(state, request))

    assert report.passed, report.reasons


def test_auc_counts_ties_half() -> None:
    """Against the definition, pair by pair."""
    first, second = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([0.0, 2.0])

    pairs = [(a > b) + 0.5 * (a == b) for a in first.tolist() for b in second.tolist()]

    assert auc(first, second) == pytest.approx(sum(pairs) / len(pairs))
    assert auc(first, second[:0]) == 0.5


def test_membership_figures_by_hand(state: TrainedState) -> None:
    """MI-BF and MI-NG are ratios of mean probabilities."""
    probe = MembershipProbe.of(state.graph, state.graph.edges[:, :50], state.validation)

    figures = probe.measure(state.readout / 2, state.readout)

    users, items = state.graph.edges[:, :50].long()
    scores = (state.readout[users] * state.readout[items + 120]).sum(dim=1)
    assert figures.mi_bf == pytest.approx(float(scores.sigmoid().mean() / (scores / 4).sigmoid().mean()), rel=1e-5)
    assert figures.mi_ng == pytest.approx(figures.p_negative / figures.p_erased)


def test_adversarial_edges_are_new_and_least_probable(state: TrainedState) -> None:
    """None is an interaction already, and they score below what is."""
    edges = adversarial_edges(state.readout, state.graph, 0.05, seed=0)

    users, items = edges.long()
    scores = (state.readout[users] * state.readout[items + 120]).sum(dim=1)
    assert edges.shape[1] == round(0.05 * state.graph.n_edges)
    assert not state.graph.contains(edges).any()
    assert float(scores.max()) < float((state.readout[:120] @ state.readout[120:].T).median())
