"""The shadow: one more model, trained without a simulated request, that shows what retraining does to scores."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from service.recommender.losses import pair_scores
from service.recommender.training import EpochReport, Training, TrainingConfig
from service.unlearning.amplification import swap_graph
from service.unlearning.calibration import Calibration
from service.unlearning.corrector import Corrector
from service.unlearning.expectation import Expectation, PairFeatures
from service.unlearning.metric import ReadoutMetric
from service.unlearning.ranks import auc
from service.unlearning.simulation import share_of_pairs
from service.unlearning.state import TrainedState

SHADOW_SEEDS = 10_000
"""Added to the seed of a base's training: a shadow shares no random number with it."""
MIN_PAIRS = 4_000
"""A shadow leaves out at least so many pairs, but no more than a twentieth of all."""
FEWEST_PAIRS = 300
"""From fewer pairs than these the regression learns noise, and quantiles are the better aim (docs/learning.md)."""
_ROUNDS = 24


@dataclass(frozen=True)
class Shadow:
    """What a shadow learnt of pairs that it never saw.

    Shapes: `edges` (2, m) int64 pairs of the base's graph; `scores` (m,) the shadow's scores of them, with mean and
    standard deviation of its held-out scores brought to the base's. The shadow itself is not kept.
    """

    edges: Tensor
    scores: Tensor
    seconds: float

    @classmethod
    def train(
        cls,
        state: TrainedState,
        training: TrainingConfig,
        share: float,
        seed: int,
        report: Callable[[EpochReport], None] | None = None,
        checkpoint: Path | None = None,
    ) -> Shadow:
        """Trains one.

        Args:
            state: the base.
            training: the settings that the base was trained with; the seed is replaced.
            share: of the interactions that it does not see, in (0, 0.05]; small, so that what is left is much like
                what a real request leaves.
            seed: decides which, and the training.
            report: called after each epoch.
            checkpoint: a file from which the training is taken up again; taken away once it is done.

        Cost: a whole training.
        """
        started = time.perf_counter()
        graph = state.graph
        generator = torch.Generator(graph.device).manual_seed(SHADOW_SEEDS + seed)
        share = min(max(share, MIN_PAIRS / max(graph.n_edges, 1)), 0.05)
        edges = share_of_pairs(share)(graph, generator)
        remaining = graph.without(edges)
        edges = edges[:, remaining.keeps(edges)].long()
        config = replace(training, seed=SHADOW_SEEDS + seed)
        run = Training(state.backbone, remaining, state.validation, config, state.e0.device)
        e0 = run.run_afresh_or_on(report, checkpoint).e0
        with torch.no_grad():
            readout = state.backbone.propagate(e0, remaining)
            scores = _on_scale_of(state, readout, _scores(state, readout, edges))
        return cls(edges, scores, time.perf_counter() - started)


def learn_expectation(
    state: TrainedState, shadow: Shadow, calibration: Calibration | None = None
) -> Expectation | None:
    """How the base's own features of a pair tell what a model that never saw it scores.

    A regression predicts means, so what it predicts is spread less than what it has seen; where scores are skewed, the
    same mean then stands at another place among the held-out scores. So the whole correction is tried on the shadow's
    own pairs, and the level is set at which their rank among held-out scores is the one that they have in the shadow.

    Returns:
        None where the shadow has fewer than FEWEST_PAIRS to show, pairs that were the last of their row not counted.
    """
    if shadow.edges.shape[1] < FEWEST_PAIRS:
        return None
    with torch.no_grad():
        remaining = state.graph.without(shadow.edges)
        swapped = swap_graph(state, remaining)
        features = PairFeatures(state, ReadoutMetric.of(state))
        fitted = Expectation.fit(features(swapped, remaining, shadow.edges, shadow.edges), shadow.scores)
        corrector = Corrector(state, fitted, calibration)
        aims = corrector.aims(swapped, remaining, shadow.edges, "forget", shadow.edges)
        readout = swapped + corrector.meet(swapped, remaining, shadow.edges, aims)
        held = state.validation.long()
        wanted = auc(shadow.scores, _scores(state, state.readout, held))
        return fitted.shifted(_shift_to(wanted, _scores(state, readout, shadow.edges), _scores(state, readout, held)))


def _shift_to(wanted: float, scores: Tensor, held_out: Tensor) -> float:
    """What to add to scores so that they stand above held-out ones with this probability."""
    reach = float(held_out.std(correction=0))
    low, high = -reach, reach
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if auc(scores + middle, held_out) < wanted else (low, middle)
    return low


def _on_scale_of(state: TrainedState, readout: Tensor, scores: Tensor) -> Tensor:
    # Two trainings differ in the level and the spread of all their scores; only the rest is about the pairs.
    held = state.validation.long()
    own, wanted = _scores(state, readout, held), _scores(state, state.readout, held)
    spread = wanted.std(correction=0).clamp(min=1e-6) / own.std(correction=0).clamp(min=1e-6)
    return (scores - own.mean()) * spread + wanted.mean()


def _scores(state: TrainedState, readout: Tensor, edges: Tensor) -> Tensor:
    return pair_scores(readout, state.graph.n_users, edges[0], edges[1])
