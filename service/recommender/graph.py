"""The interaction graph: who interacted with what, and its normalised adjacency."""

from __future__ import annotations

import warnings
from functools import cached_property

import torch
from torch import Tensor

# PyTorch still calls its CSR layout a beta; the products used here are covered by our own tests.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state", category=UserWarning)


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
        self.n_users = n_users
        self.n_items = n_items
        self._codes: Tensor = torch.unique(edges[0].long() * n_items + edges[1].long())
        self._by_item: Tensor | None = None

    @classmethod
    def _of(cls, n_users: int, n_items: int, codes: Tensor, by_item: Tensor | None) -> InteractionGraph:
        graph = cls.__new__(cls)
        graph.n_users, graph.n_items, graph._codes, graph._by_item = n_users, n_items, codes, by_item
        return graph

    @property
    def n_nodes(self) -> int:
        """Users and items together."""
        return self.n_users + self.n_items

    @property
    def n_edges(self) -> int:
        """Number of interactions."""
        return int(self._codes.numel())

    @property
    def device(self) -> torch.device:
        """Where the graph's tensors live."""
        device: torch.device = self._codes.device
        return device

    @cached_property
    def edges(self) -> Tensor:
        """(2, m) int32 user and item rows, sorted by (user, item)."""
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

    @property
    def by_item(self) -> Tensor:
        """(m,) int64 order of the edges by (item, user): the transpose without a second sort."""
        if self._by_item is None:
            self._by_item = torch.argsort(self.edges[1], stable=True)
        return self._by_item

    @cached_property
    def adjacency(self) -> Tensor:
        """S = D^-1/2 A D^-1/2, symmetric (methods.md section 0); 0^-1/2 := 0, no self-loops."""
        users, items = self.edges[0], self.edges[1]
        scale = self.degree.float().clamp(min=1).rsqrt()
        weight = scale[users] * scale[self.n_users + items]  # (m,)
        ends = torch.cumsum(self.degree, dim=0).int()
        crow = torch.cat((ends.new_zeros(1), ends))
        columns = torch.cat((items + self.n_users, users[self.by_item]))
        weights = torch.cat((weight, weight[self.by_item]))
        return torch.sparse_csr_tensor(crow, columns, weights, (self.n_nodes, self.n_nodes), check_invariants=False)

    def thinned(self, keep: Tensor) -> Tensor:
        """The adjacency of some of the edges, over the same sparsity pattern: what is left out is an explicit zero.

        Args:
            keep: (m,) bool, which of `edges` stay; degrees, and with them the weights, are those of what stays.

        Cost: O(m), no sort; a product costs what one with `adjacency` does.
        """
        users, items = self.edges[0], self.edges[1]
        kept = keep.float()
        degree = torch.bincount(users, kept, self.n_users), torch.bincount(items, kept, self.n_items)
        user_scale, item_scale = (side.clamp(min=1).rsqrt().float() for side in degree)
        weight = user_scale[users] * item_scale[items] * kept
        full = self.adjacency
        weights = torch.cat((weight, weight[self.by_item]))
        return torch.sparse_csr_tensor(
            full.crow_indices(), full.col_indices(), weights, full.shape, check_invariants=False
        )

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

        Cost: O(m + k log m), no sort of the remaining edges.
        """
        position, found = self.find(edges)
        keep = torch.ones(self.n_edges, dtype=torch.bool, device=self.device)
        keep[position[found]] = False
        renumber = torch.cumsum(keep, dim=0) - 1
        by_item = renumber[self.by_item[keep[self.by_item]]]
        return self._of(self.n_users, self.n_items, self._codes[keep], by_item)

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
        by_item = None if self._by_item is None else self._by_item.to(device)
        return self._of(self.n_users, self.n_items, self._codes.to(device), by_item)
