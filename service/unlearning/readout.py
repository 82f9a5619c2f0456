"""The readout of a model that has been made to forget."""

from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.unlearning.state import TrainedState, zero_isolated


def unlearned_readout(state: TrainedState, e0: Tensor, remaining: InteractionGraph, extra: float) -> Tensor:
    """The readout of shifted embeddings on the remaining graph, the graph's own effect amplified.

    Ebar~ = P_r E0~ + extra (P_r E0 - P E0), with P the propagation on the base's graph and P_r on what remains; as P_r
    is linear this is one propagation, P_r (E0~ + extra E0) - extra Ebar. Rows without an interaction are zero.

    Args:
        state: the base, (E0, Ebar).
        e0: (n_nodes, d) shifted embeddings E0~.
        remaining: the graph without the request.
        extra: amplification - 1; 0 is the published method.
    """
    if not extra:
        return zero_isolated(state.backbone.propagate(e0, remaining), remaining)
    readout = state.backbone.propagate(e0 + extra * state.e0, remaining) - extra * state.readout
    return zero_isolated(readout, remaining)
