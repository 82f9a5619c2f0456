"""LightGCN: propagation without weights (He et al., SIGIR 2020)."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from service.recommender.backbones.base import Triples
from service.recommender.backbones.options import at_least, known_readout, whole
from service.recommender.graph import InteractionGraph
from service.recommender.losses import bpr_loss, l2_loss
from service.recommender.propagation import propagate_sum


@dataclass(frozen=True)
class LightGCN:
    """E^(l+1) = S E^(l); the readout is the mean or the sum over layers 0..L.

    The readout sets the scale of the scores, and with it every figure that passes them through a sigmoid: keep one
    for a base and all that is compared with it.

    Source: LightGCN, equations (3), (4), (15); methods.md section 1.1.
    Cost: L products with S, O(L m d) time, O(N d) memory.
    """

    layers: int = 3
    readout: Literal["mean", "sum"] = "sum"
    weight_decay: float = 1e-2
    """Of the L2 term. On ML-1M with the sum readout 1e-2 gave NDCG .36 where the usual 1e-4 overfitted at .32."""

    name: ClassVar[str] = "lightgcn"

    def __post_init__(self) -> None:
        known_readout(self.readout)
        whole(layers=self.layers)
        at_least(0, layers=self.layers, weight_decay=self.weight_decay)

    def propagate(self, e0: Tensor, graph: InteractionGraph) -> Tensor:
        """P_S E0: (n_nodes, d) -> (n_nodes, d)."""
        total = propagate_sum(graph.adjacency, e0, self.layers)
        return total / (self.layers + 1) if self.readout == "mean" else total

    def loss(self, e0: Tensor, graph: InteractionGraph, batch: Triples, readout: Tensor | None = None) -> Tensor:
        """BPR on the readout plus L2 on the batch's layer-0 rows (convention (a) of methods.md 1.1)."""
        if readout is None:
            readout = self.propagate(e0, graph)
        return bpr_loss(readout, graph.n_users, batch) + self.weight_decay * l2_loss(e0, graph.n_users, batch)

    def config(self) -> dict[str, Any]:
        """Name and options as plain values."""
        return {"name": self.name, **asdict(self)}
