"""Whether a model may serve: every score is finite, scores tell items and people apart, and ranks beat knowing nothing.

A training that diverged, or vectors of another scale, give numbers that look like any others: these are the checks
that every model passes before it is published, whoever trained it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.ranking import RankingQuality, ranking_of_users

LARGEST_SCORE = float(torch.finfo(torch.float32).max) / 4
SAMPLE = 256  # people whose scores are looked at
SAME = 1e-6  # of the largest score: differences below it are rounding
CERTAIN = 3.0  # standard errors
HALF = 0.5
SAFE_RATE = 0.1  # learning rates up to here are usual


class Unsound(ArithmeticError):
    """A model that must not serve; the text says what is wrong with it and what the likely cause is."""


class Diverged(Unsound):
    """A training whose numbers left what float32 can hold."""


@dataclass(frozen=True)
class RankingComparison:
    """Validation NDCG@20 of a model beside that of popularity, over the same people.

    `behind`: how far the model is behind half of popularity, in standard errors over people; negative where it is not.
    """

    model: RankingQuality
    popularity: float
    behind: float


def flaw(readout: Tensor, graph: InteractionGraph) -> str | None:
    """What is wrong with the scores of a model, as a clause; None where nothing is.

    Args:
        readout: (n_nodes, d) float32, users first.
        graph: what it serves; rows without an interaction are passed over.

    Cost: O(n_nodes d), and the scores of 256 people.
    """
    if not bool(torch.isfinite(readout).all()):
        return "it holds values that are not finite"
    if largest_score(readout, graph.n_users) > LARGEST_SCORE:
        return "the products of its vectors are beyond what float32 can hold, so its scores would not be finite"
    with torch.no_grad():
        return _sameness(readout, graph)


def refuse_flaw(readout: Tensor, graph: InteractionGraph, cause: str) -> None:
    """Raises Unsound where `flaw` finds something; `cause` is a sentence that names the likely cause."""
    wrong = flaw(readout, graph)
    if wrong is not None:
        msg = f"The model must not serve: {wrong}. {cause}"
        raise Unsound(msg)


def largest_score(readout: Tensor, n_users: int) -> float:
    """A bound of every score that can be asked for, and of every partial sum on the way to it.

    Cauchy and Schwarz: |<u, v>| <= |u| |v|. A person who is folded in is a sum of up to n_items item vectors over the
    root of their number, so their norm is at most sqrt(n_items) times the largest of an item.
    """
    norms = torch.linalg.vector_norm(readout, dim=1, dtype=torch.float64)
    users, items = norms[:n_users], norms[n_users:]
    if not items.numel():
        return 0.0
    item = float(items.max())
    return item * max(float(users.max()) if users.numel() else 0.0, item * sqrt(items.numel()))


def compare(readout: Tensor, graph: InteractionGraph, validation: Tensor) -> RankingComparison:
    """A model beside popularity, on the held-out pairs of each person; `validation` is (2, k)."""
    held_out = InteractionGraph(graph.n_users, graph.n_items, validation.to(graph.device))
    _, recall, ndcg = ranking_of_users(readout, graph, held_out)
    popularity = graph.degree[:, None].to(torch.float32).clone()
    popularity[: graph.n_users] = 1.0
    _, _, popular = ranking_of_users(popularity, graph, held_out)
    n = max(ndcg.numel(), 1)
    quality = RankingQuality.of_users(recall, ndcg)
    short = HALF * popular - ndcg
    error = float(short.std()) / sqrt(n) if ndcg.numel() > 1 else float("inf")
    behind = float(short.sum()) / n / error if error > 0 else 0.0
    return RankingComparison(quality, float(popular.sum()) / n, behind)


def judge(readout: Tensor, graph: InteractionGraph, validation: Tensor, cause: str) -> RankingComparison:
    """Make sure that a model may serve, and return how it ranks.

    Args:
        readout: (n_nodes, d) float32, users first.
        graph: what it has learnt.
        validation: (2, k) pairs held out of the graph.
        cause: a sentence that names the likely cause, for whoever is refused.

    Raises:
        Unsound: its scores are not finite or do not tell items or people apart, or, beyond chance, it ranks held-out
            interactions less than half as well as popularity does.
    """
    refuse_flaw(readout, graph, cause)
    found = compare(readout, graph, validation)
    if found.behind > CERTAIN:
        msg = (
            f"The model must not serve: it ranks held-out interactions far worse than popularity does (NDCG@20 "
            f"{found.model.ndcg:.4f} against {found.popularity:.4f}). {cause}"
        )
        raise Unsound(msg)
    return found


def cause_of(learning_rate: float, usual: float = 5e-3) -> str:
    """The likely cause of a training that came to nothing, with what to do."""
    if learning_rate > SAFE_RATE:
        return f"The likely cause is the learning rate ({learning_rate:g}); {usual:g} is usual."
    return f"Likely causes are the learning rate ({learning_rate:g}) and the options of the backbone: lower them."


def _sameness(readout: Tensor, graph: InteractionGraph) -> str | None:
    users = torch.nonzero(graph.user_degree).flatten()[:SAMPLE]
    items = torch.nonzero(graph.item_degree).flatten() + graph.n_users
    if not users.numel() or items.numel() < 2:
        return None
    scores = readout[users] @ readout[items].T  # (people, items)
    scale = scores.abs().amax(dim=1)  # (people,)
    spread = scores.amax(dim=1) - scores.amin(dim=1)
    flat = (spread <= SAME * scale).double().mean()
    if float(flat) > HALF:
        return "its scores are the same for every item, so nothing is ranked"
    apart = (scores.amax(dim=0) - scores.amin(dim=0)).amax()
    if users.numel() > 1 and float(apart) <= SAME * float(scale.amax()):
        return "its scores are the same for every user, so nothing is personal"
    return None
