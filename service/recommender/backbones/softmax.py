"""LightGCN trained with a sampled softmax: each interaction competes with thousands of items instead of one."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from service.recommender.backbones.base import Triples
from service.recommender.backbones.lightgcn import LightGCN
from service.recommender.backbones.options import at_least, known_readout, whole
from service.recommender.graph import InteractionGraph
from service.recommender.losses import l2_loss, sampled_softmax_loss


@dataclass(frozen=True)
class SoftmaxLightGCN:
    """LightGCN's readout, and the sampled softmax in the place of BPR.

    Source: Wu et al., On the Effectiveness of Sampled Softmax Loss for Item Recommendation, TOIS 2024, equation (5),
    without their cosine and temperature: scores stay inner products.
    Cost: as LightGCN, and O(b sampled d) a step.
    """

    layers: int = 3
    readout: Literal["mean", "sum"] = "sum"
    weight_decay: float = 3e-2
    """Of the L2 term."""
    sampled: int = 1024
    """Items that all interactions of a batch compete with, >= 1: the batch's own negatives."""

    name: ClassVar[str] = "lightgcn_softmax"

    def __post_init__(self) -> None:
        known_readout(self.readout)
        whole(layers=self.layers, sampled=self.sampled)
        at_least(0, layers=self.layers, weight_decay=self.weight_decay)
        at_least(1, sampled=self.sampled)

    def propagate(self, e0: Tensor, graph: InteractionGraph) -> Tensor:
        """P_S E0 as LightGCN has it: (n_nodes, d) -> (n_nodes, d)."""
        return LightGCN(self.layers, self.readout).propagate(e0, graph)

    def loss(self, e0: Tensor, graph: InteractionGraph, batch: Triples, readout: Tensor | None = None) -> Tensor:
        """The sampled softmax on the readout, plus L2 on the batch's layer-0 rows."""
        if readout is None:
            readout = self.propagate(e0, graph)
        ranking = sampled_softmax_loss(readout, graph.n_users, batch, self.sampled)
        return ranking + self.weight_decay * l2_loss(e0, graph.n_users, batch)

    def config(self) -> dict[str, Any]:
        """Name and options as plain values."""
        return {"name": self.name, **asdict(self)}
