"""SimGCL: LightGCN with a contrast between two noisy propagations (Yu et al., SIGIR 2022)."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from service.recommender.backbones.base import Triples
from service.recommender.backbones.options import above, at_least, known_readout, whole
from service.recommender.graph import InteractionGraph
from service.recommender.losses import bpr_loss, l2_loss, view_contrast
from service.recommender.propagation import product, propagate_sum


@dataclass(frozen=True)
class SimGCL:
    """The readout leaves layer 0 out: sum (or mean) over layers 1..L of S^l E0; views add noise at every layer.

    E'^(l+1) = S E'^(l) + noise * sign(S E'^(l)) (.) rownorm(U), U uniform in [0, 1), fresh for each layer and view.
    The sign has no gradient, so a view is the clean readout plus a constant, and all views share one backward pass.

    Source: SimGCL, equations (4)-(7); methods.md section 1.3.
    Cost: a step takes 2 L further products without a gradient, and O(nodes^2 d) for the contrast.
    """

    layers: int = 3
    readout: Literal["mean", "sum"] = "sum"
    weight_decay: float = 1e-3
    """Of the L2 term; smaller than LightGCN's, since layer 0 reaches the scores through the graph only."""
    noise: float = 0.1
    """Norm eps of a layer's noise, >= 0."""
    contrast_weight: float = 0.1
    """lambda of the contrast. ML-1M likes .1; on a few hundred rows it drowns the ranking, .01 does not."""
    temperature: float = 0.2
    """tau of the contrast, > 0."""
    contrast_nodes: int = 2048
    """Interactions of a batch whose users and items are contrasted: 2,048 is the batch of the paper's code."""

    name: ClassVar[str] = "simgcl"

    def __post_init__(self) -> None:
        known_readout(self.readout)
        whole(layers=self.layers, contrast_nodes=self.contrast_nodes)
        at_least(0, weight_decay=self.weight_decay, noise=self.noise, contrast_weight=self.contrast_weight)
        at_least(1, layers=self.layers, contrast_nodes=self.contrast_nodes)
        above(0, temperature=self.temperature)

    def propagate(self, e0: Tensor, graph: InteractionGraph) -> Tensor:
        """P_S E0 without layer 0: (n_nodes, d) -> (n_nodes, d); rows without an interaction are zero."""
        total = product(graph.adjacency, propagate_sum(graph.adjacency, e0, self.layers - 1))
        return total / self.layers if self.readout == "mean" else total

    def loss(self, e0: Tensor, graph: InteractionGraph, batch: Triples, readout: Tensor | None = None) -> Tensor:
        """BPR on the clean readout, L2 on the batch's layer-0 rows, and the contrast of two noisy views."""
        if readout is None:
            readout = self.propagate(e0, graph)
        clean = readout if self.readout == "sum" else readout * self.layers
        first, second = (clean + offset for offset in self._offsets(e0.detach(), graph, batch.seed))
        contrast = view_contrast(first, second, graph.n_users, batch, self.contrast_nodes, self.temperature)
        ranking = bpr_loss(readout, graph.n_users, batch) + self.weight_decay * l2_loss(e0, graph.n_users, batch)
        return ranking + self.contrast_weight * contrast

    @torch.no_grad()
    def _offsets(self, e0: Tensor, graph: InteractionGraph, seed: int) -> tuple[Tensor, ...]:
        """For each of two views its states minus the clean ones, summed over the layers: (n_nodes, d) each."""
        generator = torch.Generator(e0.device).manual_seed(seed)
        clean, both = e0, e0.new_zeros(e0.shape[0], 2, e0.shape[1])  # the views side by side: one product for both
        total = both.clone()
        for layer in range(self.layers):
            clean = graph.adjacency @ clean
            if layer:
                both = (graph.adjacency @ both.flatten(1)).view_as(both)
            uniform = torch.rand(both.shape, generator=generator, device=e0.device)
            both = both + self.noise * torch.sign(clean[:, None] + both) * normalize(uniform, dim=-1)
            total += both
        return total.unbind(dim=1)

    def config(self) -> dict[str, Any]:
        """Name and options as plain values."""
        return {"name": self.name, **asdict(self)}
