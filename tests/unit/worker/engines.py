"""Engines that are real but for one thing that a test needs."""

from service.evaluation.gate import GateReport
from service.unlearning.protocol import ForgetResult
from service.worker.engine import ResolvedBatch, UnlearningEngine
from tests.factories.workers import Home

POISON = 7  # a user


class Strict(UnlearningEngine):
    """The real engine with a gate that refuses what was fine-tuned for less than `needed` epochs, or names user 7."""

    needed = 0
    asked: list[int]

    def gate(self, plan: ResolvedBatch, result: ForgetResult) -> GateReport:
        self.asked = [*getattr(self, "asked", []), result.fine_tune_epochs]
        bad = bool((plan.batch.edges[0] == POISON).any()) or result.fine_tune_epochs < self.needed
        report = super().gate(plan, result)
        return GateReport(not bad, report.figures, ("refused by the test",) if bad else ())


def poisonous(place: Home) -> tuple[int, int]:
    """A pair of the poisonous user."""
    return next(pair for pair in place.learnt if pair[0] == POISON)
