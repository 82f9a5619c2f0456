import pytest
import torch

from service.evaluation.corruption import CORRUPTIONS, CorruptionCase, corruptions, gate_rates, same_shape
from service.evaluation.gate import Gate, GateReport, GateThresholds
from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.recommender.ranking import ranking_quality
from service.unlearning.pretraining import Pretraining, PretrainingConfig
from service.unlearning.protocol import ForgetResult
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState
from service.unlearning.unlearnrec import UnlearnRec
from tests.unit.learning import random_graph, trained_blocks


@pytest.fixture(scope="module")
def state() -> TrainedState:
    """One trained base for this file."""
    return trained_blocks()


@pytest.fixture(scope="module")
def method(state: TrainedState) -> UnlearnRec:
    """A method that forgets well."""
    return UnlearnRec({"forget": Pretraining(state, PretrainingConfig(steps=0)).run().encoder})


@pytest.fixture(scope="module")
def request_(state: TrainedState) -> UnlearningRequest:
    """A random 5 % of the interactions."""
    order = torch.randperm(state.graph.n_edges, generator=torch.Generator().manual_seed(4))
    return UnlearningRequest.of(state, forget=state.graph.edges[:, order[:60]])


@pytest.fixture(scope="module")
def result(state: TrainedState, method: UnlearnRec, request_: UnlearningRequest) -> ForgetResult:
    """The request, forgotten."""
    return method.forget(state, request_)


def spoilt(
    name: str, state: TrainedState, method: UnlearnRec, request: UnlearningRequest, result: ForgetResult
) -> ForgetResult:
    return corruptions(method)[name](state, request, result, torch.Generator().manual_seed(0))


def mean_score(readout: torch.Tensor, request: UnlearningRequest) -> float:
    users, items = request.edges.long()
    return float(pair_scores(readout, 120, users, items).mean())


@pytest.mark.parametrize("name", [*CORRUPTIONS, "wrong_request"])
def test_each_is_repeatable_and_leaves_the_good_version_alone(
    name: str, state: TrainedState, method: UnlearnRec, request_: UnlearningRequest, result: ForgetResult
) -> None:
    """A corruption gives a readout that differs from the good one, the same for the same seed."""
    good, base = result.readout.clone(), state.readout.clone()

    first = spoilt(name, state, method, request_, result)
    again = spoilt(name, state, method, request_, result)

    assert first.readout.shape == good.shape
    assert not first.readout.equal(good)
    assert first.readout.nan_to_num(7).equal(again.readout.nan_to_num(7))
    assert result.readout.equal(good)
    assert state.readout.equal(base)


def test_scores_stand_where_the_names_say(
    state: TrainedState, method: UnlearnRec, request_: UnlearningRequest, result: ForgetResult
) -> None:
    """Nothing forgotten is the base, half is between, overshoot far below; the graph alone stops short."""
    before, good = mean_score(state.readout, request_), mean_score(result.readout, request_)
    scores = {
        name: mean_score(spoilt(name, state, method, request_, result).readout, request_)
        for name in ("nothing_forgotten", "half_forgotten", "graph_only", "overshoot", "wrong_request")
    }

    assert scores["nothing_forgotten"] == before
    assert good < scores["half_forgotten"] < before
    assert good < scores["graph_only"] < before
    assert scores["overshoot"] < good - (before - good)
    assert scores["wrong_request"] > (good + before) / 2


def test_noise_costs_quality_and_stale_rows_change_hands(
    state: TrainedState, method: UnlearnRec, request_: UnlearningRequest, result: ForgetResult
) -> None:
    """Noise loses more than 2 % of NDCG; stale rows are other nodes' rows of the same kind."""
    held_out = InteractionGraph(state.graph.n_users, state.graph.n_items, state.validation)
    base = ranking_quality(state.readout, state.graph, held_out).ndcg

    noisy = spoilt("noise", state, method, request_, result).readout
    stale = spoilt("stale_rows", state, method, request_, result).readout

    assert ranking_quality(noisy, state.graph, held_out).ndcg < 0.96 * base
    changed = (stale != result.readout).any(dim=1)
    assert int(changed[:120].sum()) == 12
    assert int(changed[120:].sum()) == 8
    for side in (slice(0, 120), slice(120, 200)):
        assert stale[side].sum(dim=1).sort().values.allclose(result.readout[side].sum(dim=1).sort().values)


def test_another_request_is_of_the_same_shape() -> None:
    """Whole users for whole users, whole items for whole items, pairs for pairs; never the ones asked for."""
    graph, generator = random_graph(40, 30, 300), torch.Generator().manual_seed(0)
    users = graph.edges_of_users(torch.tensor([3, 4]))
    items = graph.edges_of_items(torch.tensor([7]))
    pairs = graph.edges[:, ::9]

    other_users, other_items, other_pairs = (same_shape(graph, edges, generator) for edges in (users, items, pairs))

    chosen = torch.unique(other_users[0])
    assert chosen.numel() == 2
    assert not set(chosen.tolist()) & {3, 4}
    assert other_users.equal(graph.edges_of_users(chosen))
    assert other_items.equal(graph.edges_of_items(torch.unique(other_items[1])))
    assert other_pairs.shape == pairs.shape
    assert not InteractionGraph(40, 30, pairs).contains(other_pairs).any()
    assert same_shape(graph, pairs[:, :0], generator).shape == (2, 0)


def test_the_gate_stops_what_is_plainly_bad(
    state: TrainedState, method: UnlearnRec, request_: UnlearningRequest, result: ForgetResult
) -> None:
    """The rates come from the gate itself: the good version passes, gross corruptions do not."""
    gate = Gate(state, GateThresholds(max_drift=1.0, min_quality=0.9))
    names = ("nothing_forgotten", "overshoot", "nan", "wrong_request")
    cases = [CorruptionCase(request_, spoilt(name, state, method, request_, result), name) for name in names]

    rates = gate_rates(gate, [CorruptionCase(request_, result), *cases])

    assert rates["false_hold"] == 0
    assert rates["false_pass"] == dict.fromkeys(names, 0.0)
    assert rates["n"] == dict.fromkeys(("good", *names), 1)


def test_rates_are_shares(request_: UnlearningRequest, result: ForgetResult) -> None:
    """Counted by corruption; without a good version there is no rate of holding one back."""

    class EverySecond:
        count = 0

        def check(self, batch: UnlearningRequest, result: ForgetResult) -> GateReport:
            self.count += 1
            return GateReport(self.count % 2 == 0, {}, ())

    cases = [
        CorruptionCase(request_, result),
        CorruptionCase(request_, result),
        CorruptionCase(request_, result),
        CorruptionCase(request_, result, "nan"),
    ]

    rates = gate_rates(EverySecond(), cases)

    assert rates["false_hold"] == pytest.approx(2 / 3)
    assert rates["false_pass"] == {"nan": 1.0}
    assert gate_rates(EverySecond(), cases[3:])["false_hold"] is None
