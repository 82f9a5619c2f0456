"""A stream of requests: what is asked for at each point, from where, and what is measured."""

import torch
from torch import Tensor

from service.evaluation.methods import LatencyClass
from service.evaluation.single import forget_each, pairs
from service.evaluation.stream import Stream, StreamResult, cumulative, stepwise
from service.unlearning.baselines import GraphSwap
from service.unlearning.protocol import ForgetResult, Guarantee, Unlearner
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState
from tests.unit.learning import trained_blocks


class Witness(Unlearner):
    """Notes what it is asked for."""

    guarantee = Guarantee.EXACT

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def prepare(self, state: TrainedState) -> None:
        """Nothing."""

    def forget(self, state: TrainedState, request: UnlearningRequest) -> ForgetResult:
        """Only the graph changes."""
        self.asked.append((state.graph.n_edges, request.n_edges))
        return ForgetResult(state.e0, state.readout, state.graph.without(request.edges))


def a_request(state: TrainedState, count: int = 40) -> Tensor:
    order = torch.randperm(state.graph.n_edges, generator=torch.Generator().manual_seed(3))
    return state.graph.edges[:, order[:count]]


def nothing(_readout: Tensor) -> dict[str, float]:
    return {}


def test_a_cumulative_request_is_everything_so_far_and_starts_from_the_base() -> None:
    state, witness = trained_blocks(epochs=1), Witness()
    stream = Stream(a_request(state), batches=8, measure_every=2)

    course = cumulative(witness, state, stream, "forget", nothing)

    assert witness.asked == [(state.graph.n_edges, 5 * batch) for batch in range(1, 9)]
    assert [point["batch"] for point in course.points] == [2, 4, 6, 8]
    assert [point["share"] for point in course.points] == [0.25, 0.5, 0.75, 1.0]


def test_a_step_is_the_last_batch_and_starts_from_the_last_result() -> None:
    state, witness = trained_blocks(epochs=1), Witness()
    stream = Stream(a_request(state), batches=8, measure_every=2)

    course = stepwise(witness, state, stream, "forget", nothing)

    assert witness.asked == [(state.graph.n_edges - 5 * batch, 5) for batch in range(8)]
    assert course.result.graph.n_edges == state.graph.n_edges - 40


def test_both_ways_end_alike_where_nothing_adds_up() -> None:
    state = trained_blocks(epochs=2)
    stream = Stream(a_request(state), batches=4)

    one, other = (way(GraphSwap(), state, stream, "forget", nothing) for way in (cumulative, stepwise))

    torch.testing.assert_close(one.result.readout, other.result.readout)


def test_a_slow_method_gets_several_batches_at_once_and_is_measured_at_the_same_points() -> None:
    state, slow, fast = trained_blocks(epochs=1), Witness(), Witness()
    edges = a_request(state)

    many = cumulative(fast, state, Stream(edges, batches=8, measure_every=4), "forget", nothing)
    few = cumulative(slow, state, Stream(edges, batches=8, measure_every=4, every=4), "forget", nothing)

    assert len(slow.asked) == 2
    assert slow.asked == fast.asked[3::4]
    assert [point["batch"] for point in few.points] == [point["batch"] for point in many.points]


def test_the_first_and_the_last_tenth_are_told_apart() -> None:
    state = trained_blocks(epochs=1)
    course = StreamResult(ForgetResult(state.e0, state.readout, state.graph), seconds=[1.0, 1.0, *[5.0] * 16, 2.0, 2.0])

    assert course.tenths() == {"first_tenth": 1.0, "last_tenth": 2.0}


def test_each_pair_is_a_request_of_its_own_from_the_base() -> None:
    state, swap = trained_blocks(epochs=2), GraphSwap()
    asked = pairs(a_request(state), LatencyClass.MODERATE)

    own = forget_each(swap, state, asked, "forget")

    assert asked.shape == (2, 24)
    for index in (0, 7, 23):
        alone = swap.forget(state, UnlearningRequest.of(state, forget=asked[:, index : index + 1])).readout
        user, item = asked[:, index]
        torch.testing.assert_close(own.rows[index], alone[user] @ alone[state.graph.n_users :].T)
        torch.testing.assert_close(own.scores[index], own.rows[index, item])


def test_a_slow_method_gets_the_first_of_the_pairs_that_a_fast_one_gets() -> None:
    edges = a_request(trained_blocks(epochs=1))

    few, many = pairs(edges, LatencyClass.TRAINING), pairs(edges, LatencyClass.INSTANT)

    assert torch.equal(few, many[:, : few.shape[1]])
