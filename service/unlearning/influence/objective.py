"""The BPR objective over fixed triples: its gradient and its curvature in closed form.

Every backbone has a linear, symmetric readout Ebar = P_S E0, so no autograd is needed, and no row of a triple is ever
gathered. Let M(w) be the symmetric (N, N) matrix with +w_t at (u, i) and -w_t at (u, j) of each triple t, and a, b the
first and second derivative of the loss by the margin x = y_ui - y_uj. Then

    gradient   P_S M(a) Ebar + lambda E0
    H V        P_S [M(b dx) Ebar + M(a) D] + lambda V,    D = P_S V,  dx_t = <D_u, e_i - e_j> + <e_u, D_i - D_j>

and the Gauss-Newton form leaves M(a) D out. Margins are sampled dense products over M's pattern, the rest are sparse
products with it; beyond (N, d) only scalars a triple are held, so there is nothing to stream.

Source: methods.md sections 3, 3.1 and 10.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import softplus

from service.recommender.backbones import Backbone
from service.recommender.graph import InteractionGraph
from service.recommender.sampling import sample_negatives


@dataclass(frozen=True)
class FixedTriples:
    """T(E): every interaction (u, i) of a graph with k negatives j, the same in every evaluation.

    Shapes: `targets` (m, 1 + k) int64 item rows in the order of `graph.edges`: the positive, then its negatives.
    Memory: O(m k) scalars.
    """

    graph: InteractionGraph
    targets: Tensor

    @classmethod
    def draw(cls, graph: InteractionGraph, k_neg: int = 1, seed: int = 0) -> FixedTriples:
        """Draws k_neg >= 1 negatives for each interaction, uniform over what the user has no interaction with."""
        if k_neg < 1:
            msg = f"Each interaction needs a negative; k_neg is {k_neg}."
            raise ValueError(msg)
        generator = torch.Generator(graph.device).manual_seed(seed)
        users, positives = graph.edges.long()
        negatives = sample_negatives(graph, users.repeat_interleave(k_neg), generator).view(-1, k_neg)
        return cls(graph, torch.cat((positives[:, None], negatives), dim=1))

    @property
    def n_triples(self) -> int:
        """|T| = m k."""
        return self.targets.numel() - self.targets.shape[0]

    @cached_property
    def user_ends(self) -> Tensor:
        """(n_users + 1,) int32: user u's entries of `targets.flatten()` are those in [ends[u], ends[u + 1])."""
        ends = torch.cumsum(self.graph.user_degree, dim=0) * self.targets.shape[1]
        return torch.cat((ends.new_zeros(1), ends)).int()

    @cached_property
    def _by_target(self) -> Tensor:
        return torch.argsort(self.targets.flatten(), stable=True)

    @cached_property
    def _pattern(self) -> tuple[Tensor, Tensor]:
        """Row ends and columns of M: users' rows in the order of `targets`, items' rows in that of `_by_target`."""
        users = self.graph.edges[0].repeat_interleave(self.targets.shape[1])
        seen = torch.bincount(self.targets.flatten(), minlength=self.graph.n_items)
        item_ends = (torch.cumsum(seen, dim=0) + self.targets.numel()).int()
        columns = torch.cat((self.targets.flatten().int() + self.graph.n_users, users[self._by_target]))
        return torch.cat((self.user_ends, item_ends)), columns

    def margins(self, users: Tensor, items: Tensor) -> Tensor:
        """<users_u, items_i - items_j> of each triple: (n_users, w) and (n_items, w) -> (m, k). Cost: O(|T| w)."""
        scores = self.scores(users, items)
        return scores[:, :1] - scores[:, 1:]

    def scores(self, users: Tensor, items: Tensor) -> Tensor:
        """<users_u, items_t> of each target t: (n_users, w) and (n_items, w) -> (m, 1 + k)."""
        pattern = torch.sparse_csr_tensor(
            self.user_ends,
            self.targets.flatten().int(),
            users.new_zeros(self.targets.numel()),
            (self.graph.n_users, self.graph.n_items),
            check_invariants=False,
        )
        scores: Tensor = torch.sparse.sampled_addmm(pattern, users, items.T, beta=0.0).values()
        return scores.view_as(self.targets)

    def signed(self, weights: Tensor) -> Tensor:
        """M(w), (n_nodes, n_nodes) sparse CSR, of (m, k) weights."""
        entries = torch.cat((weights.sum(dim=1, keepdim=True), -weights), dim=1).flatten()
        ends, columns = self._pattern
        values = torch.cat((entries, entries[self._by_target]))
        shape = (self.graph.n_nodes, self.graph.n_nodes)
        return torch.sparse_csr_tensor(ends, columns, values, shape, check_invariants=False)

    def occurrences(self, counted: Tensor | None = None) -> Tensor:
        """(n_nodes,) int64: in how many triples a node stands; `counted` (m,) bool, all where it is left out."""
        edges, targets = self.graph.edges, self.targets
        if counted is not None:
            edges, targets = edges[:, counted], targets[counted]
        k_neg = targets.shape[1] - 1
        users = torch.bincount(edges[0], minlength=self.graph.n_users) * k_neg
        positives = torch.bincount(edges[1], minlength=self.graph.n_items) * k_neg
        return torch.cat((users, positives + torch.bincount(targets[:, 1:].flatten(), minlength=self.graph.n_items)))


@dataclass(frozen=True)
class GradientDifference:
    """g = grad F(E0; S, T(E)) - grad F(E0; S_r, T(E_r)), split (methods.md 10.1).

    Shapes: `direct` (n_nodes, d), supervision that is lost; `spillover` (n_nodes, d), propagation that has changed.
    """

    direct: Tensor
    spillover: Tensor

    @property
    def total(self) -> Tensor:
        """g, (n_nodes, d): +H^-1 g is the Newton step."""
        return self.direct + self.spillover


@dataclass(frozen=True)
class Objective:
    """F(E0; S, T) = sum_t softplus(-x_t) + sum_v lambda_v / 2 |E0_v|^2, lambda_v = weight_decay * (v's places in T).

    A sum, not a mean, and so is everything derived from it. The L2 term is that of the backbones (each triple carries
    weight_decay / 2 of its three layer-0 rows); as triples disappear with a request, it has a part in g. The contrast
    of SGL and SimGCL is left out (ssl=off, methods.md 3.6).

    In all methods `graph` says what is propagated over, and `counted`, (m,) bool in the order of `triples.graph.edges`,
    whose triples are summed: all where it is left out.
    """

    backbone: Backbone
    triples: FixedTriples

    @property
    def _n_users(self) -> int:
        return self.triples.graph.n_users

    def decay(self, counted: Tensor | None = None) -> Tensor:
        """(n_nodes, 1) float32 lambda; backbones without a `weight_decay` have none."""
        strength = float(getattr(self.backbone, "weight_decay", 0.0))
        return strength * self.triples.occurrences(counted)[:, None].float()

    def loss(self, e0: Tensor, graph: InteractionGraph, counted: Tensor | None = None) -> Tensor:
        """F, a scalar; without a gradient."""
        losses = softplus(-self.margins(self.readout(e0, graph)))
        total = losses.sum() if counted is None else losses[counted].sum()
        return total + (self.decay(counted) * e0.square()).sum() / 2

    def gradient(self, e0: Tensor, graph: InteractionGraph, counted: Tensor | None = None) -> Tensor:
        """grad F, (n_nodes, d). Cost: two propagations, O(|T| d)."""
        readout = self.readout(e0, graph)
        slopes = self.slopes(self.margins(readout), counted)
        return self.readout(self.triples.signed(slopes) @ readout, graph) + self.decay(counted) * e0

    def difference(
        self, e0: Tensor, remaining: InteractionGraph, lost: Tensor, spilled: Tensor | None = None
    ) -> GradientDifference:
        """g at a base, with its two parts. Cost: five propagations, O(|T| d).

        Args:
            e0: (n_nodes, d) the base.
            remaining: the graph of S_r.
            lost: (m,) bool, the interactions of E_D.
            spilled: (m,) bool, remaining interactions whose changed propagation counts; all where it is left out.
        """
        graph = self.triples.graph
        kept = ~lost if spilled is None else spilled & ~lost
        old, new = self.readout(e0, graph), self.readout(e0, remaining)
        margins = self.margins(old)

        def pull(readout: Tensor, over: InteractionGraph, slopes: Tensor) -> Tensor:
            return self.readout(self.triples.signed(slopes) @ readout, over)

        direct = pull(old, graph, self.slopes(margins, lost)) + self.decay(lost) * e0
        stayed = pull(old, graph, self.slopes(margins, kept))
        moved = pull(new, remaining, self.slopes(self.margins(new), kept))
        return GradientDifference(direct, stayed - moved)

    def readout(self, e0: Tensor, graph: InteractionGraph) -> Tensor:
        """P_S E0 without a gradient; P_S is symmetric, so this is P_S^T, too."""
        with torch.no_grad():
            return self.backbone.propagate(e0, graph)

    def margins(self, readout: Tensor) -> Tensor:
        """(m, k) x_t = y_ui - y_uj."""
        return self.triples.margins(readout[: self._n_users], readout[self._n_users :])

    @staticmethod
    def slopes(margins: Tensor, counted: Tensor | None = None) -> Tensor:
        """(m, k) a = -sig(-x), 0 for what is not counted."""
        slopes = -torch.sigmoid(-margins)
        return slopes if counted is None else slopes * counted[:, None]


class Curvature:
    """The Hessian of an objective at a point, as a product; never formed.

    Args:
        objective: F.
        e0: (n_nodes, d) the point; the graph is that of the objective's triples.
        gauss_newton: leave the loss's slopes out: positive semi-definite, so conjugate gradients are safe. The full
            Hessian is indefinite away from an optimum, and singular at one (rotations of E0).

    Cost: to make, one propagation; a product, two propagations and O(|T| d). Memory: O(N d + |T|).
    """

    def __init__(self, objective: Objective, e0: Tensor, gauss_newton: bool) -> None:
        self.objective, self.gauss_newton, self.shape = objective, gauss_newton, e0.shape
        self.readout = objective.readout(e0, objective.triples.graph)
        margins = objective.margins(self.readout)
        slopes = objective.slopes(margins)
        self._bends = -slopes * (1 + slopes)  # (m, k) b = sig(x) sig(-x)
        self._slopes = None if gauss_newton else objective.triples.signed(slopes)
        self._decay = objective.decay()

    def product(self, direction: Tensor) -> Tensor:
        """H V: (n_nodes, d) -> (n_nodes, d)."""
        triples, n_users = self.objective.triples, self.objective.triples.graph.n_users
        moved = self.objective.readout(direction, triples.graph)  # D
        users = torch.cat((moved[:n_users], self.readout[:n_users]), dim=1)
        items = torch.cat((self.readout[n_users:], moved[n_users:]), dim=1)
        bent = triples.signed(self._bends * triples.margins(users, items)) @ self.readout
        if self._slopes is not None:
            bent += self._slopes @ moved
        return self.objective.readout(bent, triples.graph) + self._decay * direction

    def mean_diagonal(self, probes: int = 4, seed: int = 0) -> float:
        """trace(H) / (N d) by Hutchinson's estimator: a scale that does not depend on the size of the data.

        Cost: a product for each probe.
        """
        generator = torch.Generator(self.readout.device).manual_seed(seed)
        total = 0.0
        for _ in range(probes):
            signs = torch.randint(2, self.shape, generator=generator, device=self.readout.device)
            probe = signs.to(self.readout.dtype) * 2 - 1
            total += float((probe * self.product(probe)).mean())
        return total / probes
