"""The interaction graph: who interacted with what, and its normalised adjacency."""

from __future__ import annotations

import warnings
from functools import cached_property

import torch
from torch import Tensor

# PyTorch still calls its CSR layout a beta; the products used here are covered by our own tests.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state", category=UserWarning)


MOST = 0.9
"""A graph that keeps at least so much of another shares its sparsity pattern: the zeros cost no more than they save."""


class InteractionGraph:
    """A bipartite graph of users and items, immutable; nodes are users first, then items.

    Args:
        n_users: number of user rows, >= 0.
        n_items: number of item rows, >= 0.
        edges: (2, m) integer tensor; row 0 user rows in [0, n_users), row 1 item rows in [0, n_items).
            Need not be sorted or unique.

    Raises:
        ValueError: edges of another shape, or a row out of range.

    Shapes: `edges` (2, m) int32, sorted by (user, item), unique; `user_degree` (n_users,) and `item_degree`
    (n_items,) int64; `adjacency` (n_nodes, n_nodes) float32 sparse CSR with int32 indices.
    """

    def __init__(self, n_users: int, n_items: int, edges: Tensor) -> None:
        if edges.ndim != 2 or edges.shape[0] != 2:
            msg = f"Edges have shape {tuple(edges.shape)}; expected (2, m)."
            raise ValueError(msg)
        if edges.shape[1]:
            low, high = edges.amin(dim=1), edges.amax(dim=1)
            if int(low.min()) < 0 or int(high[0]) >= n_users or int(high[1]) >= n_items:
                msg = f"An edge points outside {n_users} users x {n_items} items."
                raise ValueError(msg)
        codes: Tensor = torch.unique(edges[0].long() * n_items + edges[1].long())
        self._set(n_users, n_items, codes.numel(), codes.device)
        self._codes = codes

    def _set(self, n_users: int, n_items: int, n_edges: int, device: torch.device) -> None:
        self.n_users, self.n_items, self.n_edges, self.device = n_users, n_items, n_edges, device
        # Of a graph that is another one without some edges: that other one, and which of its edges stay. What the two
        # share is then taken over when it is asked for.
        self._whole: tuple[InteractionGraph, Tensor] | None = None

    @property
    def n_nodes(self) -> int:
        """Users and items together."""
        return self.n_users + self.n_items

    @cached_property
    def _codes(self) -> Tensor:
        """(m,) int64 user * n_items + item, ascending."""
        assert self._whole is not None
        whole, keep = self._whole
        return whole._codes[keep]

    @cached_property
    def edges(self) -> Tensor:
        """(2, m) int32 user and item rows, sorted by (user, item)."""
        if self._whole is not None:
            whole, keep = self._whole
            return whole.edges[:, keep]
        users = torch.div(self._codes, max(self.n_items, 1), rounding_mode="floor")
        return torch.stack((users, self._codes - users * self.n_items)).int()

    @cached_property
    def user_degree(self) -> Tensor:
        """(n_users,) int64 interactions of each user."""
        return torch.bincount(self.edges[0], minlength=self.n_users)

    @cached_property
    def item_degree(self) -> Tensor:
        """(n_items,) int64 interactions of each item."""
        return torch.bincount(self.edges[1], minlength=self.n_items)

    @cached_property
    def degree(self) -> Tensor:
        """(n_nodes,) int64 degrees, users first."""
        return torch.cat((self.user_degree, self.item_degree))

    @cached_property
    def by_item(self) -> Tensor:
        """(m,) int64 order of the edges by (item, user): the transpose without a second sort."""
        if self._whole is None:
            return torch.argsort(self.edges[1], stable=True)
        whole, keep = self._whole
        renumber = torch.cumsum(keep, dim=0) - 1
        return renumber[whole.by_item[keep[whole.by_item]]]

    @cached_property
    def adjacency(self) -> Tensor:
        """S = D^-1/2 A D^-1/2, symmetric (methods.md section 0); 0^-1/2 := 0, no self-loops.

        Of a graph without a few edges of another it keeps the other's sparsity pattern, with zeros: that is most of the
        work.
        """
        if self._whole is not None and self._shares_pattern:
            whole, keep = self._whole
            return whole._pattern(self.degree, keep)
        ends = torch.cumsum(self.degree, dim=0).int()
        crow = torch.cat((ends.new_zeros(1), ends))
        columns = torch.cat((self.edges[1] + self.n_users, self.edges[0][self.by_item]))
        weights = self._weights(self.degree, None)
        return torch.sparse_csr_tensor(crow, columns, weights, (self.n_nodes, self.n_nodes), check_invariants=False)

    def _pattern(self, degree: Tensor, keep: Tensor) -> Tensor:
        full, weights = self.adjacency, self._weights(degree, keep)
        return torch.sparse_csr_tensor(
            full.crow_indices(), full.col_indices(), weights, full.shape, check_invariants=False
        )

    def _weights(self, degree: Tensor, keep: Tensor | None) -> Tensor:
        """(2 m,) entries of S in the order of its rows, by these degrees of the nodes."""
        scale = degree.clamp(min=1).rsqrt().float()
        weight = scale.index_select(0, self.edges[0]) * scale[self.n_users :].index_select(0, self.edges[1])  # (m,)
        if keep is not None:
            weight.mul_(keep)
        return torch.cat((weight, weight.index_select(0, self.by_item)))

    def thinned(self, keep: Tensor) -> Tensor:
        """The adjacency of some of the edges, over the same sparsity pattern: what is left out is an explicit zero.

        Args:
            keep: (m,) bool, which of `edges` stay; degrees, and with them the weights, are those of what stays.

        Cost: O(m), no sort; a product costs what one with `adjacency` does.
        """
        kept = keep.double()
        users, items = self.edges
        degree = torch.cat((torch.bincount(users, kept, self.n_users), torch.bincount(items, kept, self.n_items)))
        if self._whole is None or not self._shares_pattern:
            return self._pattern(degree, keep)
        whole, stays = self._whole  # the pattern is the whole graph's, so the choice is told in its edges
        return whole._pattern(degree, stays.masked_scatter(stays, keep))

    @property
    def _shares_pattern(self) -> bool:
        return self._whole is not None and self.n_edges >= MOST * self._whole[0].n_edges

    def find(self, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Positions of edges in this graph.

        Args:
            edges: (2, k) integer rows.

        Returns:
            (k,) int64 positions into `edges` of the graph, and (k,) bool whether each is there; a position whose
            flag is false means nothing.
        """
        wanted = edges[0].long() * self.n_items + edges[1].long()
        if not self.n_edges:
            return torch.zeros_like(wanted), torch.zeros_like(wanted, dtype=torch.bool)
        position = torch.searchsorted(self._codes, wanted).clamp(max=self.n_edges - 1)
        return position, self._codes[position] == wanted

    def contains(self, edges: Tensor) -> Tensor:
        """(k,) bool: which of the (2, k) edges are in the graph."""
        return self.find(edges)[1]

    def common(self, edges: Tensor) -> Tensor:
        """The (2, k') of these edges that are in the graph, sorted and unique."""
        position, found = self.find(edges)
        return self.edges[:, torch.unique(position[found])]

    def without(self, edges: Tensor) -> InteractionGraph:
        """The graph that remains when these edges are gone; edges that are not in it are passed over.

        Cost: O(k log m + N), and one byte an edge; what else the new graph is asked for it derives from this one.
        """
        # Of a graph that is another one without some edges, the result is that other one without more of them: whatever
        # the number of steps, one graph is kept alive.
        whole, stays = self._whole or (self, None)
        position, found = whole.find(edges)
        gone = torch.unique(position[found])
        if stays is None:
            keep = torch.ones(whole.n_edges, dtype=torch.bool, device=self.device)
        else:
            gone, keep = gone[stays[gone]], stays.clone()
        keep[gone] = False
        rest = InteractionGraph.__new__(InteractionGraph)
        rest._set(self.n_users, self.n_items, self.n_edges - gone.numel(), self.device)
        rest._whole = (whole, keep)
        users, items = whole.edges[:, gone]
        rest.user_degree = self.user_degree - torch.bincount(users, minlength=self.n_users)
        rest.item_degree = self.item_degree - torch.bincount(items, minlength=self.n_items)
        return rest

    def compact(self) -> InteractionGraph:
        """The same graph, sharing nothing with another: for one that lasts."""
        if self._whole is None:
            return self
        graph = self.to(self.device)
        graph.by_item = self.by_item
        return graph

    def keeps(self, edges: Tensor) -> Tensor:
        """(k,) bool: which of the (2, k) pairs have a user and an item that still hold an interaction each."""
        return (self.user_degree[edges[0].long()] > 0) & (self.item_degree[edges[1].long()] > 0)

    def edges_of_users(self, users: Tensor) -> Tensor:
        """All (2, k) edges of these user rows."""
        chosen = torch.zeros(self.n_users, dtype=torch.bool, device=self.device)
        chosen[users.long()] = True
        return self.edges[:, chosen[self.edges[0].long()]]

    def edges_of_items(self, items: Tensor) -> Tensor:
        """All (2, k) edges of these item rows."""
        chosen = torch.zeros(self.n_items, dtype=torch.bool, device=self.device)
        chosen[items.long()] = True
        return self.edges[:, chosen[self.edges[1].long()]]

    def to(self, device: torch.device | str) -> InteractionGraph:
        """The same graph on another device."""
        graph = InteractionGraph.__new__(InteractionGraph)
        codes = self._codes.to(device)
        graph._set(self.n_users, self.n_items, self.n_edges, codes.device)
        graph._codes = codes
        return graph
