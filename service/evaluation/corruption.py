"""Versions spoilt on purpose, and how often a gate falls for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import torch
from torch import Generator, Tensor

from service.evaluation.gate import GateReport
from service.recommender.graph import InteractionGraph
from service.recommender.ranking import ranking_quality
from service.unlearning.protocol import ForgetResult, Unlearner
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState, zero_isolated

Corruption = Callable[[TrainedState, UnlearningRequest, ForgetResult, Generator], ForgetResult]
"""Makes a bad version of a good one: (base, request, good result, randomness) -> bad result. Changes no input."""

OVERSHOOT = 4.0
STALE_SHARE = 0.1
NOISE_LOSS = 0.05  # of NDCG: well beyond what a gate may let pass
NOISE_START = 0.05  # of the rows' standard deviation
NOISE_DOUBLINGS = 10


def nothing_forgotten(
    state: TrainedState, request: UnlearningRequest, result: ForgetResult, generator: Generator
) -> ForgetResult:
    """The base is served, under the books of what remains."""
    return replace(result, e0=state.e0, readout=state.readout)


def half_forgotten(
    state: TrainedState, request: UnlearningRequest, result: ForgetResult, generator: Generator
) -> ForgetResult:
    """Halfway from the base to the result."""
    e0, readout = torch.lerp(state.e0, result.e0, 0.5), torch.lerp(state.readout, result.readout, 0.5)
    return replace(result, e0=e0, readout=readout)


def graph_only(
    state: TrainedState, request: UnlearningRequest, result: ForgetResult, generator: Generator
) -> ForgetResult:
    """The interactions leave the graph; the embeddings that learnt them stay."""
    with torch.no_grad():
        readout = zero_isolated(state.backbone.propagate(state.e0, result.graph), result.graph)
    return replace(result, e0=state.e0, readout=readout)


def overshoot(
    state: TrainedState, request: UnlearningRequest, result: ForgetResult, generator: Generator
) -> ForgetResult:
    """The rows of erased pairs are moved OVERSHOOT times as far as they should be."""
    rows = _rows(state, request)
    before = state.readout[rows]
    return _with_rows(result, rows, torch.lerp(before, result.readout[rows], OVERSHOOT), result.graph)


def noise(state: TrainedState, request: UnlearningRequest, result: ForgetResult, generator: Generator) -> ForgetResult:
    """Gaussian noise on all rows, as little as costs 5 % of the validation NDCG, by doubling."""
    scale = float(result.readout.std())
    direction = torch.randn(result.readout.shape, generator=generator, device=result.readout.device) * scale
    held_out = InteractionGraph(state.graph.n_users, state.graph.n_items, state.validation)
    held_out = held_out.without(held_out.edges[:, ~result.graph.keeps(held_out.edges)])
    limit = (1 - NOISE_LOSS) * ranking_quality(state.readout, state.graph, held_out).ndcg
    share = NOISE_START
    readout = result.readout
    for _ in range(NOISE_DOUBLINGS):
        readout = zero_isolated(result.readout + share * direction, result.graph)
        if ranking_quality(readout, state.graph, held_out).ndcg <= limit:
            break
        share *= 2
    return replace(result, readout=readout)


def stale_rows(
    state: TrainedState, request: UnlearningRequest, result: ForgetResult, generator: Generator
) -> ForgetResult:
    """A tenth of the users have one another's rows, a tenth of the items too: an index that is out of step."""
    n_users = state.graph.n_users
    moved = []
    for rows in (torch.arange(n_users), torch.arange(n_users, state.graph.n_nodes)):
        active = rows.to(result.readout.device)[result.graph.degree[rows] > 0]
        order = torch.randperm(active.numel(), generator=generator, device=active.device)
        moved.append(active[order[: max(round(STALE_SHARE * active.numel()), 2)]])
    target = torch.cat(moved)
    source = torch.cat([rows.roll(1) for rows in moved])  # a cycle: no row stays where it was
    return _with_rows(result, target, result.readout[source], result.graph)


def nan(state: TrainedState, request: UnlearningRequest, result: ForgetResult, generator: Generator) -> ForgetResult:
    """One number of one row is not a number."""
    readout = result.readout.clone()
    place = torch.randint(readout.numel(), (), generator=generator, device=readout.device)
    readout.view(-1)[place] = torch.nan
    return replace(result, readout=readout)


def wrong_request(unlearner: Unlearner) -> Corruption:
    """The corruption that forgets another request of the same shape instead, with this method.

    The result is as the method gives it, its graph too: the books of what remains are those of the other request.
    """

    def forget_another(
        state: TrainedState, request: UnlearningRequest, result: ForgetResult, generator: Generator
    ) -> ForgetResult:
        forget, dislike = (same_shape(state.graph, edges, generator) for edges in (request.forget, request.dislike))
        return unlearner.forget(state, UnlearningRequest.of(state, forget=forget, dislike=dislike))

    return forget_another


CORRUPTIONS: Final[Mapping[str, Corruption]] = {
    "nothing_forgotten": nothing_forgotten,
    "half_forgotten": half_forgotten,
    "graph_only": graph_only,
    "overshoot": overshoot,
    "noise": noise,
    "stale_rows": stale_rows,
    "nan": nan,
}
"""Those that need no method, by name."""


def corruptions(unlearner: Unlearner) -> dict[str, Corruption]:
    """All corruptions by name; the method is needed to forget the wrong request."""
    return {**CORRUPTIONS, "wrong_request": wrong_request(unlearner)}


def same_shape(graph: InteractionGraph, edges: Tensor, generator: Generator) -> Tensor:
    """Another request like this one.

    Args:
        graph: of the base.
        edges: (2, m) in it.
        generator: the source of randomness.

    Returns:
        (2, m'): for a request of whole users, all edges of as many others; of whole items likewise; else m random
        edges, none of them asked for.
    """
    if not edges.shape[1]:
        return edges
    for side, degree, draw in (
        (0, graph.user_degree, graph.edges_of_users),
        (1, graph.item_degree, graph.edges_of_items),
    ):
        rows, counts = torch.unique(edges[side].long(), return_counts=True)
        if bool((counts == degree[rows]).all()):
            others = degree > 0
            others[rows] = False
            chosen = _some(torch.nonzero(others).flatten(), rows.numel(), generator)
            return draw(chosen)
    return graph.edges[:, _some(torch.nonzero(~_asked(graph, edges)).flatten(), edges.shape[1], generator)]


class VersionCheck(Protocol):
    """What decides whether a version may serve: `gate.Gate`, or another in its place."""

    def check(self, batch: UnlearningRequest, result: ForgetResult) -> GateReport:
        """Measures a candidate."""
        ...


@dataclass(frozen=True)
class CorruptionCase:
    """A version to be judged; `corruption` names how it was spoilt, None for a good one."""

    request: UnlearningRequest
    result: ForgetResult
    corruption: str | None = None


def gate_rates(gate: VersionCheck, cases: Iterable[CorruptionCase]) -> dict[str, Any]:
    """How often a gate passes what is bad and holds back what is good.

    Args:
        gate: of the base of all the cases.
        cases: looked at one after another, so they may be made on the way.

    Returns:
        `false_hold`: share of the good versions held back, None without any; `false_pass`: by corruption the share
        passed; `n`: by corruption how many, the good ones as `good`.
    """
    seen: dict[str, int] = {}
    passed: dict[str, int] = {}
    for case in cases:
        name = case.corruption or "good"
        seen[name] = seen.get(name, 0) + 1
        passed[name] = passed.get(name, 0) + gate.check(case.request, case.result).passed
    rates = {name: passed[name] / count for name, count in seen.items()}
    good = rates.pop("good", None)
    return {"false_hold": None if good is None else 1 - good, "false_pass": rates, "n": seen}


def _rows(state: TrainedState, request: UnlearningRequest) -> Tensor:
    users, items = request.edges.long()
    rows: Tensor = torch.unique(torch.cat((users, items + state.graph.n_users)))
    return rows


def _with_rows(result: ForgetResult, rows: Tensor, values: Tensor, graph: InteractionGraph) -> ForgetResult:
    return replace(result, readout=zero_isolated(result.readout.index_copy(0, rows, values), graph))


def _asked(graph: InteractionGraph, edges: Tensor) -> Tensor:
    asked = torch.zeros(graph.n_edges, dtype=torch.bool, device=graph.device)
    position, found = graph.find(edges)
    asked[position[found]] = True
    return asked


def _some(rows: Tensor, count: int, generator: Generator) -> Tensor:
    return rows[torch.randperm(rows.numel(), generator=generator, device=rows.device)[:count]]
