"""What a forgotten pair should score: the score that a model which never saw it gives it, learnt from a shadow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores, rows_of
from service.unlearning.metric import ReadoutMetric
from service.unlearning.state import TrainedState

FEATURES = (
    "score",
    "score without the edge",
    "log user degree",
    "log item degree",
    "layer 0 with layer 0",
    "user's layer 0 with the item's rest",
    "item's layer 0 with the user's rest",
    "norm of the user",
    "norm of the item",
    "norm of the user's layer 0",
    "norm of the item's layer 0",
    "pull on the user",
    "pull on the item",
    "user with the mean item",
    "item with the mean user",
    "mean of the user's other scores",
    "mean of the item's other scores",
)
FORM = 2
"""What the stored numbers mean: raise it whenever the features or their use change, so that none is read amiss."""
CLIP = 4.0  # standard deviations: a pair unlike all that the shadow left out is treated like the nearest of them
_WITHOUT_EDGE = FEATURES.index("score without the edge")
RIDGE = 5e-2  # times the number of pairs, on standardised terms
CHUNK = 32_768
AT_ONCE = 4_096  # pairs whose rows are copied at a time: they fit into a cache


class PairFeatures:
    """What is known of a learnt pair that tells how its score will fall when the pair is forgotten.

    How hard training pulled the pair together shows in four things: how much of the score comes from layer 0, which
    only training moves; how surprising the pair still is, sig(-y); how free its rows were to follow (leverage: few
    other interactions, an unusual direction); and what the two rows score with everybody else.

    Args:
        state: the base. What does not depend on a request is computed here: O(m d + N d^2).
    """

    def __init__(self, state: TrainedState, metric: ReadoutMetric) -> None:
        self.state, self.metric = state, metric
        graph, readout = state.graph, state.readout
        self.user_sum, self.item_sum = _score_sums(state)
        users, items = readout[: graph.n_users], readout[graph.n_users :]
        self.mean_user, self.mean_item = users.mean(dim=0), items.mean(dim=0)

    def __call__(self, swapped: Tensor, remaining: InteractionGraph, edges: Tensor, revoked: Tensor) -> Tensor:
        """Features of revoked pairs.

        Args:
            swapped: (n_nodes, d) trained E0 read out on what remains.
            remaining: the graph without the whole request.
            edges: (2, m) int64 pairs to describe, among the revoked ones; both rows keep an interaction.
            revoked: (2, k) int64 the whole request.

        Returns:
            (m, len(FEATURES)) float32. Cost: O(m d^2 + k d).
        """
        user_means, item_means = self._other_means(remaining, revoked, edges)
        parts = (torch.split(part, AT_ONCE) for part in (edges[0], edges[1], user_means, item_means))
        return torch.cat([self._features(swapped, remaining, *part) for part in zip(*parts, strict=True)])

    def _features(
        self,
        swapped: Tensor,
        remaining: InteractionGraph,
        users: Tensor,
        items: Tensor,
        user_mean: Tensor,
        item_mean: Tensor,
    ) -> Tensor:
        state = self.state
        u, i = users, items + state.graph.n_users
        base_user, base_item = rows_of(state.readout, u), rows_of(state.readout, i)  # (m, d)
        user, item = rows_of(swapped, u), rows_of(swapped, i)
        user0, item0 = rows_of(state.e0, u), rows_of(state.e0, i)
        user_degree = remaining.user_degree[users].float()
        item_degree = remaining.item_degree[items].float()
        score = (user * item).sum(dim=1)
        own = (user0 * item0).sum(dim=1)
        surprise = torch.sigmoid(-score)
        columns = (
            (base_user * base_item).sum(dim=1),
            score,
            user_degree.log1p(),
            item_degree.log1p(),
            own,
            (user0 * item).sum(dim=1) - own,
            (item0 * user).sum(dim=1) - own,
            user.norm(dim=1),
            item.norm(dim=1),
            user0.norm(dim=1),
            item0.norm(dim=1),
            surprise * self.metric.item_leverage(item) / (user_degree + 1),
            surprise * self.metric.user_leverage(user) / (item_degree + 1),
            user @ self.mean_item,
            item @ self.mean_user,
            user_mean,
            item_mean,
        )
        return torch.stack(columns, dim=1)

    def _other_means(self, remaining: InteractionGraph, revoked: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Means of the base's scores over the interactions that the pair's user, and its item, keep: (m,) each."""
        scores = _scores(self.state, revoked)
        users = self.user_sum.index_add(0, revoked[0], -scores)
        items = self.item_sum.index_add(0, revoked[1], -scores)
        return (
            users[edges[0]] / remaining.user_degree[edges[0]],
            items[edges[1]] / remaining.item_degree[edges[1]],
        )


@dataclass(frozen=True)
class Expectation:
    """The score that retraining would give a forgotten pair: its score without the edge, and what is still to come.

    The rest is a ridge regression on the features and their products. So what little is known shrinks to the graph's
    own effect, which for a backbone that leaves layer 0 out is most of it.

    Learnt from a shadow, a model trained once without a simulated request: there the answer is known for thousands of
    pairs. It describes the base's way of learning, not any person: it holds no row of anybody.

    Shapes: `mean` and `scale` (k,) of the features; `weight` (1 + k + k (k + 1) / 2,), bias first; float32.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor

    @classmethod
    def fit(cls, features: Tensor, scores: Tensor) -> Expectation:
        """Fits to the shadow's scores.

        Args:
            features: (m, k) of the pairs that the shadow never saw, in the base.
            scores: (m,) the shadow's scores of them, on the base's scale.
        """
        mean, scale = features.mean(dim=0), features.std(dim=0, correction=0).clamp(min=1e-6)
        terms = _terms(_standardised(features, mean, scale)).double()
        penalty = torch.full((terms.shape[1],), RIDGE * terms.shape[0], dtype=torch.float64, device=terms.device)
        penalty[0] = 0.0
        normal = terms.T @ terms
        normal.diagonal().add_(penalty)
        weight = torch.linalg.solve(normal, terms.T @ (scores - features[:, _WITHOUT_EDGE]).double())
        return cls(mean, scale, weight.float())

    def __call__(self, features: Tensor) -> Tensor:
        """(m, k) features -> (m,) scores."""
        standardised = _standardised(features, self.mean, self.scale)
        k = standardised.shape[1]
        square = standardised.new_zeros(k, k)
        first, second = torch.triu_indices(k, k, device=square.device)
        square[first, second] = self.weight[k + 1 :]
        rest = standardised @ self.weight[1 : k + 1] + ((standardised @ square) * standardised).sum(dim=1)
        return features[:, _WITHOUT_EDGE] + self.weight[0] + rest

    def shifted(self, by: float) -> Expectation:
        """The same, every score higher by this much."""
        weight = self.weight.clone()
        weight[0] += by
        return Expectation(self.mean, self.scale, weight)

    def tensors(self) -> dict[str, Tensor]:
        """As stored beside an encoder's own tensors, on the CPU."""
        named = {"expectation_mean": self.mean, "expectation_scale": self.scale, "expectation_weight": self.weight}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], device: torch.device | None = None) -> Expectation | None:
        """What `tensors` stored; None where nothing was."""
        if "expectation_weight" not in tensors:
            return None
        return cls(*(tensors[f"expectation_{name}"].to(device) for name in ("mean", "scale", "weight")))


def _standardised(features: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return ((features - mean) / scale).clamp(-CLIP, CLIP)


def _terms(standardised: Tensor) -> Tensor:
    """(m, k) -> (m, 1 + k + k (k + 1) / 2): a one, the features, and their products in pairs."""
    first, second = torch.triu_indices(standardised.shape[1], standardised.shape[1], device=standardised.device)
    one, products = torch.ones_like(standardised[:, :1]), standardised[:, first] * standardised[:, second]
    return torch.cat((one, standardised, products), dim=1)


def _score_sums(state: TrainedState) -> tuple[Tensor, Tensor]:
    """(n_users,) and (n_items,) sums of the base's scores over each row's interactions."""
    graph = state.graph
    users, items = state.e0.new_zeros(graph.n_users), state.e0.new_zeros(graph.n_items)
    for part in torch.split(graph.edges, CHUNK, dim=1):
        scores = _scores(state, part.long())
        users.index_add_(0, part[0].long(), scores)
        items.index_add_(0, part[1].long(), scores)
    return users, items


def _scores(state: TrainedState, edges: Tensor) -> Tensor:
    return pair_scores(state.readout, state.graph.n_users, edges[0], edges[1])
