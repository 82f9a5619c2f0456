"""Matrix factorisation: embeddings without propagation, also those that were trained elsewhere."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from service.recommender.backbones.base import Triples
from service.recommender.backbones.options import at_least
from service.recommender.graph import InteractionGraph
from service.recommender.losses import bpr_loss, l2_loss


@dataclass(frozen=True)
class MatrixFactorisation:
    """The readout is E0 itself: any model whose score is an inner product of two vectors is of this form.

    The graph has no part in the readout, so swapping it forgets nothing: whoever unlearns must move E0.

    Source: BPR-MF, Rendle et al., UAI 2009.
    Cost: O(b d) a step.
    """

    weight_decay: float = 1e-2
    """Of the L2 term."""

    name: ClassVar[str] = "matrix_factorisation"

    def __post_init__(self) -> None:
        at_least(0, weight_decay=self.weight_decay)

    def propagate(self, e0: Tensor, graph: InteractionGraph) -> Tensor:
        """A copy of E0: (n_nodes, d) -> (n_nodes, d)."""
        return e0.clone()  # a readout may be written to

    def loss(self, e0: Tensor, graph: InteractionGraph, batch: Triples, readout: Tensor | None = None) -> Tensor:
        """BPR plus L2 on the batch's rows."""
        if readout is None:
            readout = e0
        return bpr_loss(readout, graph.n_users, batch) + self.weight_decay * l2_loss(e0, graph.n_users, batch)

    def config(self) -> dict[str, Any]:
        """Name and options as plain values."""
        return {"name": self.name, **asdict(self)}
