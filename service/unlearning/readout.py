"""The readout of a model that has been made to forget."""

from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.unlearning.state import TrainedState, zero_isolated


def unlearned_readout(
    state: TrainedState, e0: Tensor, remaining: InteractionGraph, correction: Tensor | None = None
) -> Tensor:
    """Ebar~ = P_r E0~ + correction, rows without an interaction zero.

    Args:
        state: gives the backbone.
        e0: (n_nodes, d) shifted embeddings E0~.
        remaining: the graph without the request.
        correction: (n_nodes, d) of `corrector.Corrector`; left out by the published method.
    """
    readout = state.backbone.propagate(e0, remaining)
    return zero_isolated(readout if correction is None else readout + correction, remaining)
