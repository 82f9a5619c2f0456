"""The steps that compare with retraining: is it gone, and whose list changed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
from torch import Tensor

from service.cli.context import Home
from service.cli.demo.choice import Rows
from service.cli.demo.measure import DemoEvaluator, measure_many, most_changed, readout_of
from service.cli.demo.printing import DemoPrinter
from service.cli.demo.report import Comparison, ErasureFacts, ListFacts, ManyFacts, RetrainFacts
from service.cli.learn import epochs_told
from service.cli.terminal import Terminal, duration, short
from service.unlearning.request import UnlearningRequest

SHOWN = 10


@dataclass(frozen=True)
class ForgottenErasure:
    """An erasure that the model has forgotten: how it went, its pairs, (2, k) rows of the base, and its salt, hex."""

    facts: ErasureFacts
    pairs: Rows
    salt: str


@dataclass(frozen=True)
class RetrainingComparison:
    """Tells them.

    Args:
        terminal: shows how far a retraining is.
        show: prints.
        evaluator: of the base.
        titles: by item id.
        until: a second retraining is done where it ends before; seconds of the monotonic clock.
    """

    terminal: Terminal
    show: DemoPrinter
    evaluator: DemoEvaluator
    titles: Mapping[str, str]
    until: float

    def run(self, home: Home, one: ForgottenErasure, many: ForgottenErasure) -> tuple[Comparison, ManyFacts]:
        """Acts 8 and 9: retrain, measure, explain."""
        evaluator = self.evaluator
        self.show.section("8. Is it gone from the model? Ask one that never saw it")
        request = evaluator.request(np.concatenate((one.pairs, many.pairs), axis=1))
        retrained, seconds = self._retrain("Retraining", request)
        base = evaluator.base.state.readout
        after = readout_of(home.store, many.facts.version_after).to(base.device)
        readouts = {"before": base, "after": after, "retrain": retrained}
        quality = {name: evaluator.quality(readout) for name, readout in readouts.items()}
        of_one = evaluator.probe(evaluator.request(one.pairs).edges)
        comparison = Comparison(
            dict(quality),
            {name: evaluator.membership(of_one, readout) for name, readout in readouts.items()},
            RetrainFacts(seconds),
        )
        if time.monotonic() + seconds <= self.until:
            readouts["retrain_again"], _ = self._retrain("And again", request, other_seed=True)
            quality["retrain_again"] = evaluator.quality(readouts["retrain_again"])
        facts = measure_many(evaluator, readouts, many.pairs, many.facts)
        self.show.figures(quality, facts, evaluator.test.n_edges)
        self._explain(comparison, facts, one.facts)
        self._changed(readouts, many.pairs, facts.lists)
        return comparison, facts

    def _retrain(self, title: str, request: UnlearningRequest, *, other_seed: bool = False) -> tuple[Tensor, float]:
        with self.terminal.step(title, "epochs") as progress:
            return self.evaluator.retrain(request, epochs_told(progress), other_seed=other_seed)

    def _explain(self, comparison: Comparison, facts: ManyFacts, one: ErasureFacts) -> None:
        self.show.say(
            "AUC is the chance that an erased pair scores above a held-out one; p is a mean probability. MI-BF is p "
            "erased before over p erased now, MI-NG p never seen over p erased. More is not better: the aim is the "
            "retrained column. What scores higher leaks, what scores lower tells as well."
        )
        if "retrain_again" in facts.auc:
            self.show.say("The last column is a second retraining with another seed: no model can be nearer than that.")
        else:
            self.show.say("A second retraining, to see what another seed does to it, would take too long here.")
        self.show.shares(facts.share_by_auc, "The way to retraining, by AUC")
        by_auc, by_score = facts.share_by_auc["after"], facts.share_by_score["after"]
        if isnan(by_auc.value):
            self.show.say("Retraining moves these pairs no further than chance does: they cannot tell how far it is.")
        else:
            goal = "the mean of both retrainings" if "retrain_again" in facts.auc else "the retrained model"
            score = (
                "" if isnan(by_score.value) else f" By mean score it is {by_score.value:.0%} ± {by_score.error:.0%}."
            )
            self.show.say(
                f"100% is {goal}, ± one standard error over the pairs; beyond is too far, and no gain.{score}"
            )
        before, after, retrain = (comparison.membership[name].auc_heldout for name in ("before", "after", "retrain"))
        self.show.say(
            f"The first {one.matched} pairs alone: AUC {before:.3f} before, {after:.3f} after, {retrain:.3f} "
            "retrained; so few are uncertain by more than a tenth. docs/figures.md has thousands, and other data."
        )
        seconds = comparison.retrain.seconds
        self.show.say(
            f"Retraining took {duration(seconds)}, {short(seconds / max(one.seconds_apply, 1e-9))} times the "
            f"unlearning step of the first erasure ({duration(one.seconds_apply)})."
        )

    def _changed(self, readouts: Mapping[str, Tensor], pairs: Rows, lists: ListFacts) -> None:
        user, items = most_changed(self.evaluator, readouts, pairs, SHOWN)
        self.show.section(f"9. The list that changed most: user {self.evaluator.users[user]}")
        self.show.say(
            f"Of all {len(np.unique(pairs[0])):,} people of the second erasure, the one whose first {SHOWN} lost most "
            f"items; of those, the one of whom most was erased ({int((pairs[0] == user).sum())})."
        )
        self.show.change([(self._item(item), ranks) for item, ranks in items])
        chance = "."
        if lists.retrains is not None:
            chance = f", two retrained lists {lists.retrains:.1f} with each other: so much is chance in training."
        self.show.say(
            f"On average over these people, {lists.after_before:.1f} of {SHOWN} stayed. A retrained list shares "
            f"{lists.before_retrain:.1f} with the one before and {lists.after_retrain:.1f} with the one after{chance}"
        )

    def _item(self, row: int) -> Mapping[str, Any]:
        item_id = self.evaluator.items[row]
        return {"item_id": item_id, "title": self.titles.get(item_id)}
