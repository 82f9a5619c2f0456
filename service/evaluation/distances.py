"""How far two models' recommendations for the same people are apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Generator, Tensor

from service.recommender.graph import InteractionGraph

CHUNK = 128  # users compared at once: bounds memory to CHUNK x n_items doubles a model
MAX_USERS = 1_000
MEASURES = ("js", "activation", "overlap")


@dataclass(frozen=True)
class DistanceConfig:
    """What is compared, and on whom."""

    temperature: float = 1.0
    """Scores are divided by it before the softmax, > 0: methods whose scores are of another scale need another."""
    n: int = 20
    """Length of the lists whose overlap is taken."""
    max_users: int = MAX_USERS
    """Users sampled of a region."""
    seed: int = 0
    """Decides which."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            msg = f"The temperature is {self.temperature}; it must be above 0."
            raise ValueError(msg)


@dataclass(frozen=True)
class Distance:
    """Means over users (methods.md section 6.4); nan for no users.

    `js`: Jensen-Shannon divergence of the softmax over the items, in nats, in [0, ln 2]. `activation`: L2 norm of the
    difference of the two, in [0, sqrt 2]. `overlap`: Jaccard index of the two top-n lists, in [0, 1], 1 for the same.
    """

    js: float
    activation: float
    overlap: float
    n_users: int


def distance(
    first: Tensor, second: Tensor, seen: InteractionGraph, users: Tensor, config: DistanceConfig | None = None
) -> Distance:
    """Distance of two models.

    Args:
        first: (n_nodes, d) readout, of any width.
        second: (n_nodes, d') readout.
        seen: interactions masked from both: what remains to train on.
        users: (k,) user rows; of more than `max_users` a sample is taken.
        config: temperature, length of the lists, sample.

    Cost: O(users * n_items * (d + d')), memory 128 x n_items doubles a model.
    """
    return _distances([first, second], [(0, 1)], seen, users, config or DistanceConfig())[0]


def distances_to_retrains(
    readout: Tensor,
    retrains: Sequence[Tensor],
    seen: InteractionGraph,
    regions: Mapping[str, Tensor],
    before: Tensor | None = None,
    config: DistanceConfig | None = None,
) -> dict[str, dict[str, float]]:
    """Mean distance of a method to several retrained models, beside that of the retrained models to one another.

    Args:
        readout: (n_nodes, d) of the method.
        retrains: (n_nodes, d) of models retrained with different seeds; where the method is one of them, the others.
        seen: interactions masked in all of them.
        regions: (k,) user rows by name, see `quality.Regions.named`.
        before: (n_nodes, d) of the model that still knew the request.
        config: see `distance`.

    Returns:
        By region: `{js,activation,overlap}_to_retrain`; `..._floor`, the mean over all pairs of retrained models, nan
        for less than two; with `before` also `..._none`, its mean distance to them; `n_users`. Each model's scores
        are computed once a user.

    Raises:
        ValueError: no retrained model.
    """
    if not retrains:
        msg = "There is no retrained model to measure the distance to."
        raise ValueError(msg)
    models = [*retrains, readout, *([] if before is None else [before])]
    count = len(retrains)
    kinds = {
        "to_retrain": [(each, count) for each in range(count)],
        "floor": list(combinations(range(count), 2)),
        "none": [] if before is None else [(each, count + 1) for each in range(count)],
    }
    pairs = [pair for kind in kinds.values() for pair in kind]
    wanted = [kind for kind in kinds if kind != "none" or before is not None]
    figures = {}
    for region, users in regions.items():
        found = dict(zip(pairs, _distances(models, pairs, seen, users, config or DistanceConfig()), strict=True))
        figures[region] = {
            f"{measure}_{kind}": _mean([getattr(found[pair], measure) for pair in kinds[kind]])
            for kind in wanted
            for measure in MEASURES
        } | {"n_users": found[pairs[0]].n_users}
    return figures


def _distances(
    models: Sequence[Tensor],
    pairs: Sequence[tuple[int, int]],
    seen: InteractionGraph,
    users: Tensor,
    config: DistanceConfig,
) -> list[Distance]:
    """The distance of each pair of models."""
    users = _sample(users.long(), seen, config)
    sums = torch.zeros(len(pairs), len(MEASURES), dtype=torch.float64, device=users.device)
    for part, mask in _chunks(users, seen):
        views = [_View(model, seen.n_users, part, mask, config) for model in models]
        sums += torch.stack([views[first].compare(views[second]) for first, second in pairs])
    means = sums / users.numel() if users.numel() else torch.full_like(sums, torch.nan)
    return [Distance(js, activation, overlap, users.numel()) for js, activation, overlap in means.tolist()]


class _View:
    """What one model recommends to a chunk of users: probabilities (b, n_items), their entropy, and the list."""

    def __init__(self, readout: Tensor, n_users: int, users: Tensor, mask: Tensor, config: DistanceConfig) -> None:
        scores = (readout[users] @ readout[n_users:].T).double().masked_fill_(mask, -torch.inf)
        top = torch.topk(scores, min(config.n, scores.shape[1]), dim=1).indices
        self.listed = torch.zeros_like(mask).scatter_(1, top, True) & ~mask  # a short list holds no seen items
        self.p = torch.softmax(scores / config.temperature, dim=1)
        self.entropy = _entropy(self.p)

    def compare(self, other: _View) -> Tensor:
        """(3,) sums over the users of js, activation and overlap."""
        # JS(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2: one logarithm a pair of models.
        js = _entropy((self.p + other.p) / 2) - (self.entropy + other.entropy) / 2
        activation = torch.linalg.vector_norm(self.p - other.p, dim=1)
        common, either = (self.listed & other.listed).sum(dim=1), (self.listed | other.listed).sum(dim=1)
        return torch.stack((js.clamp(min=0).sum(), activation.sum(), (common.double() / either).sum()))


def _entropy(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p).sum(dim=1)


def _chunks(users: Tensor, seen: InteractionGraph) -> Iterator[tuple[Tensor, Tensor]]:
    """Users in parts, and for each part (b, n_items) bool of the items that they have seen."""
    ends = torch.cumsum(seen.user_degree, dim=0)
    for part in torch.split(users, CHUNK):
        degree = seen.user_degree[part]
        rows = torch.repeat_interleave(torch.arange(part.numel(), device=part.device), degree)
        inside = torch.arange(rows.numel(), device=part.device) - (torch.cumsum(degree, dim=0) - degree)[rows]
        items = seen.edges[1, (ends[part] - degree)[rows] + inside].long()
        mask = torch.zeros(part.numel(), seen.n_items, dtype=torch.bool, device=part.device)
        mask[rows, items] = True
        yield part, mask


def _sample(users: Tensor, seen: InteractionGraph, config: DistanceConfig) -> Tensor:
    users = users[seen.user_degree[users] < seen.n_items]  # who has seen everything has no list
    generator = Generator(users.device).manual_seed(config.seed)
    return users[torch.randperm(users.numel(), generator=generator, device=users.device)[: config.max_users]]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
