"""SGL: LightGCN with a contrast between two views that miss some edges each (Wu et al., SIGIR 2021)."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from service.recommender.backbones.base import Triples
from service.recommender.backbones.lightgcn import LightGCN
from service.recommender.backbones.options import above, at_least, below, known_readout, whole
from service.recommender.graph import InteractionGraph
from service.recommender.losses import view_contrast
from service.recommender.propagation import propagate_sum


@dataclass(frozen=True)
class SGL:
    """LightGCN's readout and loss, plus InfoNCE between its readouts on two randomly thinned graphs (SGL-ED).

    Every step draws two fresh views (the paper: every epoch), normalised by the degrees that remain in them.

    Source: SGL, equations (3), (7), (10)-(13); methods.md section 1.2.
    Cost: a step propagates three times instead of once, and O(nodes^2 d) for the contrast.
    """

    layers: int = 3
    readout: Literal["mean", "sum"] = "sum"
    weight_decay: float = 1e-2
    drop: float = 0.1
    """Share rho of the edges that a view misses, in [0, 1)."""
    contrast_weight: float = 0.02
    """lambda of the contrast. On ML-1M's validation part .02 did better than .1 (which overfits after two epochs)."""
    temperature: float = 0.2
    """tau of the contrast, > 0."""
    contrast_nodes: int = 2048
    """Interactions of a batch whose users and items are contrasted: 2,048 is the batch of the paper's code."""

    name: ClassVar[str] = "sgl"

    def __post_init__(self) -> None:
        known_readout(self.readout)
        whole(layers=self.layers, contrast_nodes=self.contrast_nodes)
        at_least(
            0,
            layers=self.layers,
            weight_decay=self.weight_decay,
            drop=self.drop,
            contrast_weight=self.contrast_weight,
        )
        at_least(1, contrast_nodes=self.contrast_nodes)
        above(0, temperature=self.temperature)
        below(1, drop=self.drop)

    def propagate(self, e0: Tensor, graph: InteractionGraph) -> Tensor:
        """P_S E0 as LightGCN has it: (n_nodes, d) -> (n_nodes, d)."""
        return self._main.propagate(e0, graph)

    def loss(self, e0: Tensor, graph: InteractionGraph, batch: Triples, readout: Tensor | None = None) -> Tensor:
        """LightGCN's loss plus `contrast_weight` times the contrast of two thinned views."""
        generator = torch.Generator(e0.device).manual_seed(batch.seed)
        first, second = self._view(e0, graph, generator), self._view(e0, graph, generator)
        contrast = view_contrast(first, second, graph.n_users, batch, self.contrast_nodes, self.temperature)
        return self._main.loss(e0, graph, batch, readout) + self.contrast_weight * contrast

    @property
    def _main(self) -> LightGCN:
        return LightGCN(self.layers, self.readout, self.weight_decay)

    def _view(self, e0: Tensor, graph: InteractionGraph, generator: torch.Generator) -> Tensor:
        # Sum or mean makes no difference to cosines.
        keep = torch.rand(graph.n_edges, generator=generator, device=e0.device) >= self.drop
        return propagate_sum(graph.thinned(keep), e0, self.layers)

    def config(self) -> dict[str, Any]:
        """Name and options as plain values."""
        return {"name": self.name, **asdict(self)}
