"""The contract of an unlearning method."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState


class Guarantee(StrEnum):
    """What a method promises about what it leaves behind."""

    EXACT = "exact"
    APPROXIMATE = "approximate"


@dataclass(frozen=True)
class ForgetResult:
    """A model from which a request is gone.

    Shapes: `e0` and `readout` (n_nodes, d) float32; `graph` holds the interactions that remain; `seconds` names each
    step and its duration.
    """

    e0: Tensor
    readout: Tensor
    graph: InteractionGraph
    fine_tune_epochs: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


class Unlearner(Protocol):
    """A method that makes a trained model forget.

    A method derives from this class, names its `guarantee`, and its docstring says its source and cost.
    """

    guarantee: Guarantee

    def prepare(self, state: TrainedState) -> None:
        """Pays the method's one-off cost for a base, before any request."""
        ...

    def before(self, state: TrainedState) -> Tensor:
        """(n_nodes, d) the readout that the method serves before any request: the base's, but for methods that train
        models of their own.
        """
        return state.readout

    def forget(self, state: TrainedState, request: UnlearningRequest) -> ForgetResult:
        """The model without the request. Requests are cumulative: always from the base, never from a result."""
        ...
