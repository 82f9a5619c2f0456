"""A trained attacker: how well can somebody who knows the remaining data spot the erased pairs?"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Generator, Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, leaky_relu

from service.recommender.graph import InteractionGraph
from service.unlearning.ranks import auc

CHUNK = 2048  # pairs ranked at once: bounds the score matrix to CHUNK x n_items
MIN_PAIRS = 20  # of a kind; from fewer nothing is learnt
CLAMP = 5.0  # standard deviations: a single far-off feature decides nothing
N_FEATURES = 7


@dataclass(frozen=True)
class AttackerConfig:
    """How the attacker is trained."""

    max_pairs: int = 5_000
    """Of each of the four kinds of pairs: members and non-members to train on, erased and non-members to judge by."""
    hidden: int = 16
    """Width of the one hidden layer."""
    steps: int = 150
    """Of Adam on all training pairs at once."""
    learning_rate: float = 2e-2
    weight_decay: float = 1e-3
    """L2 on the weights."""
    seed: int = 0


def attacker_auc(
    readout: Tensor,
    remaining: InteractionGraph,
    erased: Tensor,
    heldout: Tensor,
    config: AttackerConfig | None = None,
) -> float:
    """AUC with which an attacker, trained on this very model, takes erased pairs for members (methods.md section 6.4).

    It learns to tell remaining pairs from one half of the held-out ones, and is judged on the erased pairs against
    the other half. A small network on y, the item's log rank for the user, |e_u|, |e_i|, their cosine and the log
    degrees of both, standardised.

    Args:
        readout: (n_nodes, d) of the model under attack, of any width.
        remaining: what it may still know: the members, and the degrees.
        erased: (2, m) integer pairs; those of which an end was reset are left out.
        heldout: (2, k) integer pairs that no model has learnt.
        config: of the attacker.

    Returns:
        In [0, 1]; .5 cannot be told apart; compare it with Retrain's. nan where there are fewer than 20 pairs of a
        kind. Same inputs and seed, same figure.

    Cost: O(users of the sample * n_items * d), memory 2,048 x n_items.
    """
    config = config or AttackerConfig()
    generator = Generator(readout.device).manual_seed(config.seed)
    heldout = _shuffled(heldout[:, remaining.keeps(heldout)], generator)
    half = heldout.shape[1] // 2
    kinds = (
        _shuffled(remaining.edges, generator),
        heldout[:, :half],
        _shuffled(erased[:, remaining.keeps(erased)], generator),
        heldout[:, half:],
    )
    pairs = [kind[:, : config.max_pairs].long() for kind in kinds]
    # As many members as non-members, or the attacker would learn the shares.
    balanced = min(pairs[0].shape[1], pairs[1].shape[1])
    pairs[0], pairs[1] = pairs[0][:, :balanced], pairs[1][:, :balanced]
    sizes = [kind.shape[1] for kind in pairs]
    if min(sizes) < MIN_PAIRS:
        return float("nan")
    features = pair_features(readout.detach(), remaining, torch.cat(pairs, dim=1))
    features = _standardised(features, features[: 2 * balanced])
    member, other, suspect, control = torch.split(features, sizes)
    attack = _Attack(config, generator, readout.device)
    attack.train(torch.cat((member, other)), torch.arange(2 * balanced, device=readout.device) < balanced)
    with torch.no_grad():
        return auc(attack(suspect), attack(control))


def pair_features(readout: Tensor, graph: InteractionGraph, pairs: Tensor) -> Tensor:
    """What the attacker sees of pairs.

    Shapes: readout (n_nodes, d), pairs (2, m) int64 -> (m, 7) float32: y, log(1 + items that score higher for the
    user), |e_u|, |e_i|, cosine, log(1 + degree) of user and item.
    """
    users, items = pairs
    order = torch.argsort(users, stable=True)  # so that a chunk scores each of its users once
    catalogue = readout[graph.n_users :]
    scores, ranks = readout.new_empty(users.numel()), readout.new_empty(users.numel())
    for part in torch.split(order, CHUNK):
        own, row = torch.unique(users[part], return_inverse=True)
        table = (readout[own] @ catalogue.T)[row]  # (b, n_items)
        scores[part] = table.gather(1, items[part, None]).squeeze(1)
        ranks[part] = (table > scores[part, None]).sum(dim=1).to(ranks.dtype)
    norms = torch.linalg.vector_norm(readout, dim=1)
    user_norm, item_norm = norms[users], norms[items + graph.n_users]
    cosine = scores / (user_norm * item_norm).clamp(min=1e-12)
    degrees = (graph.user_degree[users].float().log1p(), graph.item_degree[items].float().log1p())
    return torch.stack((scores, ranks.log1p(), user_norm, item_norm, cosine, *degrees), dim=1).float()


class _Attack:
    """A network of one hidden layer, its weights drawn from a generator of its own."""

    def __init__(self, config: AttackerConfig, generator: Generator, device: torch.device) -> None:
        def drawn(rows: int, columns: int) -> Tensor:
            return torch.randn(rows, columns, generator=generator, device=device) / sqrt(rows)

        hidden, output = drawn(N_FEATURES, config.hidden), drawn(config.hidden, 1)
        self.config = config
        self.parts = [hidden, hidden.new_zeros(config.hidden), output, output.new_zeros(1)]

    def __call__(self, features: Tensor) -> Tensor:
        """(m, 7) features -> (m,) logits of being a member."""
        first, first_bias, second, second_bias = self.parts
        logits: Tensor = leaky_relu(features @ first + first_bias) @ second + second_bias
        return logits.squeeze(1)

    def train(self, features: Tensor, is_member: Tensor) -> None:
        """Logistic loss on all pairs at once."""
        for part in self.parts:
            part.requires_grad_()
        config, wanted = self.config, is_member.float()
        optimiser = torch.optim.Adam(self.parts, lr=config.learning_rate, weight_decay=config.weight_decay)
        with torch.enable_grad():
            for _ in range(config.steps):
                optimiser.zero_grad()
                loss = binary_cross_entropy_with_logits(self(features), wanted)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()


def _shuffled(pairs: Tensor, generator: Generator) -> Tensor:
    return pairs[:, torch.randperm(pairs.shape[1], generator=generator, device=pairs.device)]


def _standardised(features: Tensor, reference: Tensor) -> Tensor:
    scale = reference.std(dim=0).clamp(min=1e-6)
    return ((features - reference.mean(dim=0)) / scale).clamp(-CLAMP, CLAMP)
