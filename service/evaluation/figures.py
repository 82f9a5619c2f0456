"""The figures of a model that was made to forget, beside those of the retrained ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor

from service.evaluation.attacker import attacker_auc
from service.evaluation.distances import distances_to_retrains
from service.evaluation.fidelity import effect_fidelity
from service.evaluation.group import CellGroup
from service.evaluation.quality import split_quality
from service.evaluation.relearn import relearn
from service.evaluation.single import SinglePairResults
from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.recommender.ranking import ranking_quality
from service.unlearning.protocol import ForgetResult
from service.unlearning.ranks import auc

BINS: Final = 60
OFF_SCALE: Final = 0.002
"""Share of the pairs, at either end, that the scale of the histograms leaves out."""


@dataclass(frozen=True)
class Figures:
    """Measures the models of one cell.

    Args:
        group: pairs and models to measure with.
        seed: of the cell.
        compared: with the retrained models; not so for methods that are another recommender.
        retrained: the model itself is the retrained one of this seed: it is compared with those of the other seeds.
    """

    group: CellGroup
    seed: int
    compared: bool = True
    retrained: bool = False

    @cached_property
    def others(self) -> list[Tensor]:
        """Readouts of the retrained models that this one is compared with."""
        return self.group.retrained_readouts(but=self.seed if self.retrained else None)

    def of(self, result: ForgetResult, before: Tensor) -> dict[str, Any]:
        """All figures of a result; `before` is the (n_nodes, D) readout that still knew the request."""
        probe = self.group.probe
        with torch.no_grad():
            membership = self._membership(result.readout, before)
            after = _scores(result.readout, probe.n_users, probe.erased)
            parts = {
                "quality": self._quality(result.readout),
                "membership": membership,
                "distances": self._distances(result.readout),
                "fidelity": self._fidelity(after, probe.erased),
                "histograms": self._histograms(result.readout, before),
            }
        membership["auc_attacker"] = attacker_auc(result.readout, self.group.remaining, probe.erased, probe.heldout)
        return parts

    def relearn_steps(self, result: ForgetResult, before: Tensor) -> int | None:
        """Steps until the model knows the request again; None for another recommender and for many models in one."""
        base, probe = self.group.base(self.seed).state, self.group.probe
        if not self.compared or result.e0.shape != base.e0.shape:
            return None
        p_before, p_after = (
            float(torch.sigmoid(_scores(readout, probe.n_users, probe.erased).double()).mean())
            for readout in (before, result.readout)
        )
        return relearn(base.backbone, result.e0, base.graph, probe.erased, p_before, p_after).steps

    def of_single_pairs(self, own: SinglePairResults, before: Tensor) -> dict[str, Any]:
        """The figures of many requests of one pair each: every pair and its user as that pair's own model has them.

        Quality and what concerns other users is that of the first request's model.
        """
        group = self.group
        with torch.no_grad():
            probe = replace(group.probe, erased=own.pairs)
            heldout = _scores(own.first.readout, probe.n_users, probe.heldout)
            membership = asdict(probe.measure(own.first.readout, before))
            p_erased = float(torch.sigmoid(own.scores.double()).mean())
            membership |= {
                "auc_heldout": auc(own.scores, heldout),
                "p_erased": p_erased,
                "p_erased_before": membership["mi_bf"] * membership["p_erased"],
                "mi_bf": membership["mi_bf"] * membership["p_erased"] / max(p_erased, 1e-12),
                "mi_ng": membership["p_negative"] / max(p_erased, 1e-12),
            }
            parts = {"quality": self._quality(own.first.readout), "membership": membership}
            parts["distances"] = self._single_distances(own)
            parts["fidelity"] = self._fidelity(own.scores, own.pairs)
            return parts

    def brief(self, readout: Tensor) -> dict[str, Any]:
        """Three figures that tell at a glance how a model does."""
        with torch.no_grad():
            quality = ranking_quality(readout, self.group.known, self.group.test)
            probe = self.group.probe
            erased, heldout = (_scores(readout, probe.n_users, pairs) for pairs in (probe.erased, probe.heldout))
            return {"recall_at_20": quality.recall, "ndcg_at_20": quality.ndcg, "auc_heldout": auc(erased, heldout)}

    def _quality(self, readout: Tensor) -> dict[str, Any]:
        regions = self.group.regions
        parts = (regions.touched, regions.one_hop)
        return dict(split_quality(readout, self.group.known, self.group.test, *parts, rest_users=regions.rest))

    def _membership(self, readout: Tensor, before: Tensor) -> dict[str, Any]:
        plain, matched = self.group.probe.measure(readout, before), self.group.matched.measure(readout, before)
        return asdict(plain) | asdict(matched)

    def _distances(self, readout: Tensor) -> dict[str, Any]:
        if not self.compared or not self.others:
            return {}
        base = self.group.base(self.seed).state.readout
        regions = self.group.regions.named()
        return dict(distances_to_retrains(readout, self.others, self.group.remaining, regions, base))

    def _fidelity(self, after: Tensor, pairs: Tensor) -> dict[str, Any]:
        """Of the pairs both of whose ends keep an interaction: the others were reset, by everybody alike."""
        if not self.compared or not self.others:
            return {}
        group, keeps = self.group, self.group.remaining.keeps(pairs)
        pairs, after = pairs[:, keeps], after[keeps]
        readouts = [group.base(self.seed).state.readout, *group.base_readouts(but=self.seed)]
        retrained, bases = (
            torch.stack([_scores(readout, group.probe.n_users, pairs) for readout in each])
            for each in (self.others, readouts)
        )
        change = after - bases[0]
        means = {"mean_change": change.mean(), "mean_change_retrain": (retrained.mean(dim=0) - bases[0]).mean()}
        return asdict(effect_fidelity(change, retrained, bases)) | means

    def _histograms(self, readout: Tensor, before: Tensor) -> dict[str, Any]:
        """How many pairs of each kind score how high, before and after; what is off the scale is in the end bins."""
        probe = self.group.probe
        kinds = {"erased": probe.erased, "kept": self.group.matched.kept, "negative": probe.negatives}
        scores = {
            name: {kind: _scores(each, probe.n_users, pairs) for kind, pairs in kinds.items()}
            for name, each in (("before", before), ("after", readout))
        }
        known = torch.cat(list(scores["before"].values())).sort().values
        tail = int(OFF_SCALE * known.numel())
        low, high = float(known[tail]), float(known[-1 - tail])
        high = high if high > low else low + 1.0
        edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64, device=known.device)
        return {"edges": edges.tolist()} | {
            name: {kind: _counts(values, edges) for kind, values in each.items()} for name, each in scores.items()
        }

    def _single_distances(self, own: SinglePairResults) -> dict[str, Any]:
        """Of the users of the pairs alone: their rows are those of their own models."""
        if not self.compared or not self.others:
            return {}
        group = self.group
        base, n_items = group.base(self.seed).state.readout, group.remaining.n_items
        keeps = group.remaining.user_degree[own.pairs[0]] > 0
        users, rows = own.pairs[0][keeps], own.rows[keeps]
        # Every request becomes a user of its own, whose row are its scores over unit vectors of the items.
        unit = torch.eye(n_items, device=rows.device)
        n = group.remaining.n_users
        models = [torch.cat((rows, unit))]
        models += [torch.cat((other[users] @ other[n:].T, unit)) for other in (*self.others, base)]
        seen = _repeated(group.remaining, users)
        everybody = {"touched": torch.arange(users.numel(), device=rows.device)}
        return dict(distances_to_retrains(models[0], models[1:-1], seen, everybody, models[-1]))


def _scores(readout: Tensor, n_users: int, pairs: Tensor) -> Tensor:
    return pair_scores(readout, n_users, pairs[0], pairs[1])


def _counts(values: Tensor, edges: Tensor) -> list[int]:
    places = torch.bucketize(values.double(), edges[1:-1], right=True)
    return [int(count) for count in torch.bincount(places, minlength=BINS)]


def _repeated(graph: InteractionGraph, users: Tensor) -> InteractionGraph:
    """The graph whose user r is `users[r]`: somebody may stand in it more than once."""
    edges = graph.edges.long()
    degree = graph.user_degree[users]
    start = (torch.cumsum(graph.user_degree, dim=0) - graph.user_degree)[users]
    row = torch.repeat_interleave(torch.arange(users.numel(), device=users.device), degree)
    place = torch.arange(row.numel(), device=users.device) - (torch.cumsum(degree, dim=0) - degree)[row]
    return InteractionGraph(users.numel(), graph.n_items, torch.stack((row, edges[1, start[row] + place])))
