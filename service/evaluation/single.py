"""Requests of one pair each, every one from the base: what most people would send."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Final

import torch
from torch import Generator, Tensor

from service.evaluation.methods import LatencyClass
from service.recommender.losses import pair_scores
from service.unlearning.protocol import ForgetResult, Unlearner
from service.unlearning.request import Mode, UnlearningRequest
from service.unlearning.state import TrainedState

REQUESTS: Final = {LatencyClass.INSTANT: 1000, LatencyClass.MODERATE: 24, LatencyClass.TRAINING: 2}
"""How many requests a method of this class gets at most: a number, not a time, so that a cell can be repeated."""


@dataclass(frozen=True)
class SinglePairResults:
    """What became of each pair and of its user.

    Shapes: `pairs` (2, n) int64; `scores` (n,) of each pair after its own request; `rows` (n, n_items) float32 the
    scores that its user then gives to all items; `negatives` (n,) the score of a pair of `negative_pairs` (2, n).
    """

    pairs: Tensor
    scores: Tensor
    rows: Tensor
    first: ForgetResult
    seconds: float
    """Median of a request."""


def pairs(edges: Tensor, latency: LatencyClass, *, whole: bool = False, seed: int = 0) -> Tensor:
    """(2, n) those of the (2, m) edges that are asked for: the first ones of a random order drawn once.

    `whole`: as many as any method gets, for the retraining, whose one model stands for all requests.
    """
    order = torch.randperm(edges.shape[1], generator=Generator().manual_seed(seed)).to(edges.device)
    return edges[:, order[: REQUESTS[LatencyClass.INSTANT if whole else latency]]].long()


def forget_each(unlearner: Unlearner, state: TrainedState, pairs: Tensor, mode: Mode) -> SinglePairResults:
    """Applies each pair as a request of its own.

    Cost: one request a pair, and one product of a row with all items; memory 4 n n_items bytes.
    """
    n_users, count = state.graph.n_users, pairs.shape[1]
    scores = torch.empty(count, device=state.e0.device)
    rows = torch.empty(count, state.graph.n_items, device=state.e0.device)
    seconds: list[float] = []
    first: ForgetResult | None = None
    for index in range(count):
        pair = pairs[:, index : index + 1]
        started = time.perf_counter()
        result = unlearner.forget(state, UnlearningRequest.of(state, **{mode: pair}))
        if result.readout.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        scores[index] = pair_scores(result.readout, n_users, pair[0], pair[1])[0]
        rows[index] = result.readout[pair[0, 0]] @ result.readout[n_users:].T
        first = first or result
    assert first is not None
    return SinglePairResults(pairs, scores, rows, first, statistics.median(seconds))
