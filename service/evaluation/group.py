"""What the cells of one data set, backbone and protocol share: data, request, trained models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from service.evaluation.grid import Recipe
from service.evaluation.membership import MatchedProbe, MembershipProbe
from service.evaluation.model_cache import ModelCache, TrainedModel
from service.evaluation.protocols import Scenario, Split
from service.evaluation.quality import Regions
from service.recommender.graph import InteractionGraph
from service.recommender.training import best_device
from service.unlearning.request import Mode, UnlearningRequest
from service.unlearning.state import TrainedState


@dataclass
class CellGroup:
    """The models and pairs that all methods of a group are measured with; each is made when it is first asked for.

    Nothing here that is made of the test part is ever handed to a method: methods get a `TrainedState`, which holds
    neither it nor the request, and, once they are prepared, a `UnlearningRequest`.

    Args:
        split: the data.
        scenario: the request.
        recipe: of the backbone.
        model_cache: where trained models are kept.
        retrain_seeds: of the retrained models that everything is compared with.
        device: where methods compute.
    """

    split: Split
    scenario: Scenario
    recipe: Recipe
    model_cache: ModelCache
    retrain_seeds: tuple[int, ...]
    device: torch.device = field(default_factory=best_device)

    def __post_init__(self) -> None:
        self._bases: dict[int, TrainedModel] = {}
        self._retrained: dict[int, TrainedModel] = {}

    def base(self, seed: int) -> TrainedModel:
        """The model that must forget: the same object for the same seed."""
        return self._get(self._bases, self.model_cache.base, seed)

    def retrained(self, seed: int) -> TrainedModel:
        """The model that never saw the request."""
        return self._get(self._retrained, self.model_cache.retrained, seed)

    def _get(self, kept: dict[int, TrainedModel], make: Callable[..., TrainedModel], seed: int) -> TrainedModel:
        if seed not in kept:
            made = make(self.split, self.scenario, self.recipe.backbone, self.recipe.training, seed)
            kept[seed] = TrainedModel(made.state.to(self.device), made.seconds, made.epochs)
        return kept[seed]

    def request(self, state: TrainedState, mode: Mode, edges: Tensor | None = None) -> UnlearningRequest:
        """These edges, or all of the scenario's, to be forgotten by a base."""
        asked = self.scenario.edges if edges is None else edges
        return UnlearningRequest.of(state, **{mode: asked})

    def retrained_readouts(self, but: int | None = None) -> list[Tensor]:
        """(n_nodes, d) each; `but` leaves one seed out."""
        return [self.retrained(seed).state.readout for seed in self.retrain_seeds if seed != but]

    def base_readouts(self, but: int | None = None) -> list[Tensor]:
        """(n_nodes, d) each, of the seeds of the retrained models; `but` leaves one out."""
        return [self.base(seed).state.readout for seed in self.retrain_seeds if seed != but]

    @cached_property
    def probe(self) -> MembershipProbe:
        """Erased, held-out (the test part) and negative pairs, the same for all."""
        graph = self.scenario.trained_on.to(self.device)
        edges = self.scenario.edges.to(self.device)
        return MembershipProbe.of(graph, edges, self.split.test.edges.to(self.device))

    @cached_property
    def matched(self) -> MatchedProbe:
        """The same pairs, compared among like degrees."""
        return MatchedProbe.of(self.probe, self.remaining)

    @cached_property
    def regions(self) -> Regions:
        """Who stands how near to the request."""
        return Regions.of(self.scenario.trained_on.to(self.device), self.scenario.edges.to(self.device))

    @cached_property
    def remaining(self) -> InteractionGraph:
        """What a retrained model learns from."""
        return self.scenario.remaining.to(self.device)

    @cached_property
    def known(self) -> InteractionGraph:
        """What a ranking masks."""
        return self.split.known.to(self.device)

    @cached_property
    def test(self) -> InteractionGraph:
        """What a ranking should find."""
        return self.split.test.to(self.device)
