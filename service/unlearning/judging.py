"""Judging an encoder on held-out simulated requests of every shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.recommender.ranking import ranking_quality
from service.recommender.sampling import sample_negatives
from service.unlearning.amplification import swap_graph
from service.unlearning.corrector import Corrector
from service.unlearning.encoder import InfluenceEncoder
from service.unlearning.idm import InfluenceDependencyMatrix
from service.unlearning.ranks import auc
from service.unlearning.readout import unlearned_readout
from service.unlearning.request import Mode
from service.unlearning.simulation import SHAPES, Shape, simulate
from service.unlearning.state import TrainedState

HELD_OUT_SEED = 7_919  # simulated requests for judging come from a stream of their own
RANKED_USERS = 1_000  # users on whom the quality ratio is measured


@dataclass(frozen=True)
class ShapeFigures:
    """How one simulated shape was forgotten.

    `auc` separates the revoked pairs' scores from those of held-out pairs: .5 cannot be told apart. `shift` and
    `wanted` are mean score changes, reached and aimed at, in units of the held-out scores' standard deviation.
    `negatives` is the mean score of random unseen pairs minus that of the revoked ones, in the same unit.
    """

    n_edges: int
    auc: float
    shift: float
    wanted: float
    negatives: float


@dataclass(frozen=True)
class Judgement:
    """An encoder's figures by shape, and two summaries.

    `score`, lower is better: mode `forget`, the mean over shapes of |shift - wanted|; mode `dislike`, minus the mean
    gap between random unseen pairs and revoked ones. `quality_ratio`: the lowest validation NDCG of any shape over
    that of the base.
    """

    shapes: dict[str, ShapeFigures]
    score: float
    quality_ratio: float


@dataclass(frozen=True)
class _HeldOut:
    shape: str
    remaining: InteractionGraph
    idm: InfluenceDependencyMatrix
    edges: Tensor  # (2, m) of rows that keep an interaction
    aims: Tensor
    correction: Tensor


class Judge:
    """Held-out simulated requests, the same for every encoder that is judged.

    Args:
        state: the base.
        corrector: of that base; gives the scores to aim at, and the correction of encoders that ask for one.
        mode: decides what a good encoder is.
        seed: of the pre-training run; the judge draws from another stream.
        shapes: of the requests; default all.
    """

    def __init__(
        self,
        state: TrainedState,
        corrector: Corrector,
        mode: Mode,
        seed: int,
        shapes: Mapping[str, Shape] = SHAPES,
    ) -> None:
        self.state, self.mode, self.spread = state, mode, corrector.calibration.spread
        generator = torch.Generator(state.e0.device).manual_seed(HELD_OUT_SEED + seed)
        self.requests = [self._hold(name, shape, corrector, generator) for name, shape in shapes.items()]
        self.requests = [request for request in self.requests if request.edges.shape[1]]
        users = torch.randint(state.graph.n_users, (20_000,), generator=generator, device=state.e0.device)
        self.negatives = torch.stack((users, sample_negatives(state.graph, users, generator)))
        self.ranked = _of_users(state, RANKED_USERS, generator)

    def _hold(self, name: str, shape: Shape, corrector: Corrector, generator: torch.Generator) -> _HeldOut:
        edges = simulate(shape, self.state.graph, generator)
        remaining = self.state.graph.without(edges)
        idm = InfluenceDependencyMatrix(self.state.graph, edges)
        counted = edges[:, remaining.keeps(edges)].long()
        with torch.no_grad():
            swapped = swap_graph(self.state, remaining)
            aims = corrector.aims(swapped, remaining, counted, self.mode, edges.long())
            correction = corrector.meet(swapped, remaining, counted, aims, stretch=self.mode == "forget")
        return _HeldOut(name, remaining, idm, counted, aims, correction)

    def __call__(self, encoder: InfluenceEncoder) -> Judgement:
        """Figures of an encoder; changes nothing and draws nothing."""
        shapes, ratios = {}, []
        with torch.no_grad():
            for request in self.requests:
                e0 = self.state.e0 + encoder.shift(request.idm, self.state.readout)
                correction = request.correction if encoder.config.correct else None
                readout = unlearned_readout(self.state, e0, request.remaining, correction)
                shapes[request.shape] = self._figures(request, readout)
                ratios.append(self._quality_ratio(request, readout))
        return Judgement(shapes, self._score(shapes), min(ratios, default=1.0))

    def _figures(self, request: _HeldOut, readout: Tensor) -> ShapeFigures:
        before = self._scores(self.state.readout, request.edges)
        after = self._scores(readout, request.edges)
        held_out = self._scores(readout, self.state.validation.long())
        return ShapeFigures(
            n_edges=request.edges.shape[1],
            auc=auc(after, held_out),
            shift=float((after - before).mean()) / self.spread,
            wanted=float((request.aims - before).mean()) / self.spread,
            negatives=float(self._scores(readout, self.negatives).mean() - after.mean()) / self.spread,
        )

    def _score(self, shapes: dict[str, ShapeFigures]) -> float:
        count = max(len(shapes), 1)
        if self.mode == "forget":
            return sum(abs(figures.shift - figures.wanted) for figures in shapes.values()) / count
        return -sum(figures.negatives for figures in shapes.values()) / count

    def _scores(self, readout: Tensor, edges: Tensor) -> Tensor:
        return pair_scores(readout, self.state.graph.n_users, edges[0], edges[1])

    def _quality_ratio(self, request: _HeldOut, readout: Tensor) -> float:
        # Revoked pairs stay masked, as the service suppresses them; a reset row can be found by no model.
        lost = self.ranked.edges[:, ~request.remaining.keeps(self.ranked.edges)]
        ranked = self.ranked.without(lost)
        before = ranking_quality(self.state.readout, self.state.graph, ranked).ndcg
        return ranking_quality(readout, self.state.graph, ranked).ndcg / before if before else 1.0


def _of_users(state: TrainedState, count: int, generator: torch.Generator) -> InteractionGraph:
    """The validation part of `count` random users."""
    graph = InteractionGraph(state.graph.n_users, state.graph.n_items, state.validation)
    order = torch.randperm(graph.n_users, generator=generator, device=state.e0.device)
    order = order[graph.user_degree[order] > 0][:count]
    return InteractionGraph(graph.n_users, graph.n_items, graph.edges_of_users(order))
