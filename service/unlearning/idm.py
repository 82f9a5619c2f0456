"""The influence dependency matrix: the graph of what a request revokes."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from service.recommender.graph import InteractionGraph


class InfluenceDependencyMatrix:
    """S_D = norm(A_D), the symmetric normalised adjacency of the revoked edges, over the nodes they touch.

    Rows outside V_D are zero in S_D, so only those inside are kept: products cost O(m d), not O(N d).

    Source: UnlearnRec (SIGIR 2025) equations (13), (15), (16).

    Args:
        graph: gives the number of users and items.
        edges: (2, m) revoked edges.

    Shapes: `nodes` (n,) int64 node rows of V_D, ascending (users first); `matrix` (n, n) sparse CSR.
    """

    def __init__(self, graph: InteractionGraph, edges: Tensor) -> None:
        users, user_rows = torch.unique(edges[0].long(), return_inverse=True)
        items, item_rows = torch.unique(edges[1].long(), return_inverse=True)
        self._local = InteractionGraph(users.numel(), items.numel(), torch.stack((user_rows, item_rows)))
        self.nodes = torch.cat((users, items + graph.n_users))

    @property
    def n_nodes(self) -> int:
        """Nodes that the request touches."""
        return self.nodes.numel()

    @property
    def matrix(self) -> Tensor:
        """S_D over `nodes`."""
        return self._local.adjacency

    def dropped(self, share: float, generator: Generator) -> tuple[Tensor, Tensor]:
        """S'_D of equation (23) and its transpose: entries dropped independently, the rest divided by the keep rate.

        An edge's two directions are drawn apart, as in the authors' code, so S'_D is not symmetric.
        """
        values = self.matrix.values()
        keep = torch.rand(values.shape, generator=generator, device=values.device) >= share
        values = values * keep / (1 - share)
        forward, backward = values.chunk(2)  # (m,) user rows sorted by item; (m,) item rows in the order `by_item`
        order = self._local.by_item
        mirrored = torch.cat((torch.empty_like(forward).index_put_((order,), backward), forward[order]))
        return self._with(values), self._with(mirrored)

    def _with(self, values: Tensor) -> Tensor:
        matrix = self.matrix
        return torch.sparse_csr_tensor(
            matrix.crow_indices(), matrix.col_indices(), values, matrix.shape, check_invariants=False
        )
