"""EASE, a linear item-to-item model, and its exact down-date: what a graph recommender is measured against."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.unlearning.protocol import ForgetResult, Guarantee, Unlearner
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState

MAX_ITEMS = 20_000
"""Largest catalogue: its inverse alone is 3.2 GB, and fitting it takes minutes."""
REFIT_SHARE = 0.15
"""Touched users per item from which fitting anew is cheaper than the down-date. On ML-1M, one busy core:
98 users 1.1 s against 7.5 s, 839 users (.23) 15 s against 10 s."""


@dataclass
class Ease(Unlearner):
    """Scores are x_u B: B is the item-to-item ridge regression with a zero diagonal, in closed form.

    B_ij = -P_ij / P_jj off the diagonal, P = (X'X + lambda I)^-1, X the 0/1 matrix of users and items. A user who
    loses the items d of x changes X'X by -x d' - d x' + d d', so m touched users are one Woodbury step of rank 2 m.
    Nothing of the base's embeddings is used: the model serves a readout of its own, of width n_items, users' rows X and
    items' rows B'.

    Guarantee: exact. The result is that of fitting anew, up to the rounding of float64.
    Source: Steck, WWW 2019, equation (8); design.md section 7.
    Cost: `prepare` O(n_items^3) time, 8 n_items^2 bytes; `forget` O(m n_items^2) time for m touched users, and where
    that is more than fitting, fitting; the readout takes 4 (n_users + n_items) n_items bytes.

    Args:
        regularisation: lambda, > 0.
    """

    regularisation: float = 500.0

    guarantee = Guarantee.EXACT

    def __post_init__(self) -> None:
        if self.regularisation <= 0:
            msg = f"The regularisation is {self.regularisation}; it must be above 0."
            raise ValueError(msg)
        self._prepared: tuple[TrainedState, Tensor] | None = None

    def prepare(self, state: TrainedState) -> None:
        """Fits the base's interactions.

        Raises:
            ValueError: more than MAX_ITEMS items.
        """
        self._prepared = (state, inverse_gram(state.graph, self.regularisation))

    def before(self, state: TrainedState) -> Tensor:
        """(n_nodes, n_items) float32: the model of all the base's interactions."""
        return ease_readout(state.graph, self._inverse(state))

    def forget(self, state: TrainedState, request: UnlearningRequest) -> ForgetResult:
        """The model of what remains."""
        inverse = self._inverse(state)
        started = time.perf_counter()
        remaining = state.graph.without(request.edges) if request.n_edges else state.graph
        touched = torch.unique(request.edges[0])
        if touched.numel() > REFIT_SHARE * state.graph.n_items:
            step, left = "refit", inverse_gram(remaining, self.regularisation)
        else:
            step, left = "downdate", downdated(inverse, state.graph, request.edges)
        solved = time.perf_counter()
        readout = ease_readout(remaining, left)
        seconds = {step: solved - started, "readout": time.perf_counter() - solved}
        return ForgetResult(readout, readout, remaining, 0, seconds)

    def _inverse(self, state: TrainedState) -> Tensor:
        if self._prepared is None or self._prepared[0] is not state:
            self.prepare(state)
        assert self._prepared is not None
        return self._prepared[1]


def inverse_gram(graph: InteractionGraph, regularisation: float) -> Tensor:
    """(n_items, n_items) float64 P = (X'X + lambda I)^-1.

    Raises:
        ValueError: more than MAX_ITEMS items.
    """
    if graph.n_items > MAX_ITEMS:
        msg = f"EASE inverts a matrix of items by items; {graph.n_items:,} items are more than {MAX_ITEMS:,}."
        raise ValueError(msg)
    gram = torch.zeros(graph.n_items, graph.n_items, dtype=torch.float64, device=graph.device)
    for block in torch.split(torch.arange(graph.n_users, device=graph.device), max(graph.n_items, 1)):
        x = _rows(graph, block, torch.float64)
        gram.addmm_(x.T, x)
    gram.diagonal().add_(regularisation)
    return torch.cholesky_inverse(torch.linalg.cholesky(gram))


def downdated(inverse: Tensor, graph: InteractionGraph, gone: Tensor) -> Tensor:
    """P of what remains, from the P of a graph: (P^-1 + U C U')^-1 = P - P U (C^-1 + U'P U)^-1 U'P.

    U holds x and d of every touched user side by side; C is [[0, -1], [-1, 1]] for each of them.

    Args:
        inverse: (n_items, n_items) float64 P.
        graph: what it was made of.
        gone: (2, k) edges of the graph, unique.
    """
    users = torch.unique(gone[0])
    if not users.numel():
        return inverse
    lost = InteractionGraph(graph.n_users, graph.n_items, gone)
    u = torch.cat([_sparse_rows(part, users) for part in (graph, lost)])  # (2 m, n_items) U'
    w = u @ inverse  # (2 m, n_items) U'P
    core = (u @ w.T.contiguous()).T  # (2 m, 2 m), symmetric
    m = users.numel()
    block = torch.arange(m, device=core.device)
    core[block, block] -= 1
    core[block, block + m] -= 1
    core[block + m, block] -= 1
    return torch.addmm(inverse, w.T, torch.linalg.solve(core, w), alpha=-1)


def ease_readout(graph: InteractionGraph, inverse: Tensor) -> Tensor:
    """(n_nodes, n_items) float32: X over B', so that the score of (u, i) is the inner product of their rows."""
    readout = torch.empty(graph.n_nodes, graph.n_items, device=graph.device)
    readout[: graph.n_users] = _rows(graph, torch.arange(graph.n_users, device=graph.device), torch.float32)
    # P is symmetric: row i of B' is -P_i: / P_ii.
    items = readout[graph.n_users :]
    items[:] = inverse / -inverse.diagonal()[:, None]
    items.fill_diagonal_(0)
    return readout


def _rows(graph: InteractionGraph, users: Tensor, dtype: torch.dtype) -> Tensor:
    """(b, n_items) dense rows of X; the users ascend."""
    edges = graph.edges_of_users(users).long()
    dense = torch.zeros(users.numel(), graph.n_items, dtype=dtype, device=graph.device)
    dense[torch.searchsorted(users.long(), edges[0].contiguous()), edges[1]] = 1
    return dense


def _sparse_rows(graph: InteractionGraph, users: Tensor) -> Tensor:
    """(b, n_items) float64 rows of X, sparse; the users ascend."""
    edges = graph.edges_of_users(users).long()
    places = torch.stack((torch.searchsorted(users.long(), edges[0].contiguous()), edges[1]))
    ones = torch.ones(edges.shape[1], dtype=torch.float64, device=graph.device)
    return torch.sparse_coo_tensor(places, ones, (users.numel(), graph.n_items), check_invariants=False)
