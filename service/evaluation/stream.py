"""Many requests in a row: what is left of the model, and whether the hundredth takes longer than the first."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from service.evaluation.protocols import STREAM_BATCHES
from service.unlearning.protocol import ForgetResult, Unlearner
from service.unlearning.request import Mode, UnlearningRequest
from service.unlearning.state import TrainedState

MEASURE_EVERY: Final = 20
"""Batches between two measurements."""

Measure = Callable[[Tensor], dict[str, Any]]


@dataclass(frozen=True)
class Stream:
    """A request that comes in batches, in an order drawn once.

    Args:
        edges: (2, m) the whole request.
        batches: how many parts, all of the same size but for one.
        measure_every: batches between two measurements.
        every: batches that are applied at once; 1 applies each by itself, a slow method takes `measure_every`.
    """

    edges: Tensor
    batches: int = STREAM_BATCHES
    measure_every: int = MEASURE_EVERY
    every: int = 1
    seed: int = 0

    def parts(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Number of the last batch, counted from 1; the edges since the last part; all edges so far."""
        order = torch.randperm(self.edges.shape[1], generator=torch.Generator().manual_seed(self.seed))
        edges = self.edges[:, order.to(self.edges.device)]
        ends = torch.linspace(0, edges.shape[1], self.batches + 1).round().long().tolist()
        last = 0
        for number in range(self.every, self.batches + 1, self.every):
            yield number, edges[:, ends[last] : ends[number]], edges[:, : ends[number]]
            last = number


@dataclass
class StreamResult:
    """How one way of applying a stream went. `points` are measurements, `seconds` one a request."""

    result: ForgetResult
    points: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def tenths(self) -> dict[str, float | None]:
        """Median seconds of a request in the first and in the last tenth of them."""
        size = max(len(self.seconds) // 10, 1)
        if not self.seconds:
            return {"first_tenth": None, "last_tenth": None}
        return {
            "first_tenth": statistics.median(self.seconds[:size]),
            "last_tenth": statistics.median(self.seconds[-size:]),
        }


def cumulative(unlearner: Unlearner, state: TrainedState, stream: Stream, mode: Mode, measure: Measure) -> StreamResult:
    """Each request is everything so far and starts from the base: how the service works.

    Args:
        unlearner: prepared for `state`.
        state: the base.
        stream: what is asked for.
        mode: of the requests.
        measure: the figures of a readout.
    """

    def apply(_new: Tensor, so_far: Tensor) -> ForgetResult:
        return unlearner.forget(state, UnlearningRequest.of(state, **{mode: so_far}))

    return _follow(stream, apply, measure, StreamResult(_untouched(state)))


def stepwise(unlearner: Unlearner, state: TrainedState, stream: Stream, mode: Mode, measure: Measure) -> StreamResult:
    """Each request is the last batch alone and starts from the last result: what errors add up to.

    A result becomes a base by its layer 0 and its graph; what a method knows of the first base (an encoder, a factor)
    it keeps where it can.
    """
    current = state

    def apply(new: Tensor, _so_far: Tensor) -> ForgetResult:
        nonlocal current
        result = unlearner.forget(current, UnlearningRequest.of(current, **{mode: new}))
        current = TrainedState(result.graph, state.validation, result.e0, state.backbone)
        return result

    return _follow(stream, apply, measure, StreamResult(_untouched(state)))


def _untouched(state: TrainedState) -> ForgetResult:
    return ForgetResult(state.e0, state.readout, state.graph)


def _follow(
    stream: Stream, apply: Callable[[Tensor, Tensor], ForgetResult], measure: Measure, result: StreamResult
) -> StreamResult:
    total = max(stream.edges.shape[1], 1)
    for number, new, so_far in stream.parts():
        started = time.perf_counter()
        result.result = apply(new, so_far)
        if result.result.readout.is_cuda:
            torch.cuda.synchronize()
        result.seconds.append(time.perf_counter() - started)
        if number % stream.measure_every == 0 or number == stream.batches:
            point = {"batch": number, "share": so_far.shape[1] / total, "seconds": result.seconds[-1]}
            result.points.append(point | measure(result.result.readout))
    return result
