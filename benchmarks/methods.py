"""Methods that need more than the service does: `expunge evaluate --methods-from benchmarks.methods`."""

from typing import Final

from service.evaluation.methods import LatencyClass, Method, MethodContext
from service.unlearning.protocol import Unlearner


def _als(context: MethodContext) -> Unlearner:
    from benchmarks.references import Als

    return Als(seed=context.seed, threads=1)


METHODS: Final = {"als": Method(_als, latency=LatencyClass.MODERATE, reference=True, stepwise=False)}
