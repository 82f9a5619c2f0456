"""Small worlds in which the right answer is known."""

import torch
from torch import Tensor

from service.recommender.backbones import LightGCN
from service.recommender.graph import InteractionGraph
from service.recommender.sampling import split_validation
from service.recommender.training import Training, TrainingConfig
from service.unlearning.state import TrainedState


def random_graph(n_users: int = 12, n_items: int = 9, n_edges: int = 40, seed: int = 0) -> InteractionGraph:
    """A random bipartite graph; repeats are merged, so it may hold fewer edges."""
    generator = torch.Generator().manual_seed(seed)
    users = torch.randint(n_users, (n_edges,), generator=generator)
    items = torch.randint(n_items, (n_edges,), generator=generator)
    return InteractionGraph(n_users, n_items, torch.stack((users, items)))


def blocks(n_blocks: int = 4, users: int = 30, items: int = 20, share: float = 0.5, seed: int = 0) -> InteractionGraph:
    """Communities: each user likes a random share of the items of his own block, and nothing else."""
    generator = torch.Generator().manual_seed(seed)
    block_of_user = torch.arange(n_blocks * users) // users
    block_of_item = torch.arange(n_blocks * items) // items
    liked = torch.rand(n_blocks * users, n_blocks * items, generator=generator) < share
    liked &= block_of_user[:, None] == block_of_item[None, :]
    return InteractionGraph(n_blocks * users, n_blocks * items, torch.nonzero(liked).T)


def dense_adjacency(graph: InteractionGraph) -> Tensor:
    """S by its definition, three dense lines: the oracle of the sparse one."""
    adjacency = torch.zeros(graph.n_nodes, graph.n_nodes)
    users, items = graph.edges.long()
    adjacency[users, items + graph.n_users] = adjacency[items + graph.n_users, users] = 1
    degree = adjacency.sum(dim=1)
    scale = torch.where(degree > 0, degree.rsqrt(), torch.zeros(()))
    return scale[:, None] * adjacency * scale[None, :]


def trained_blocks(epochs: int = 12, seed: int = 0) -> TrainedState:
    """A small trained base on communities, with a validation part."""
    graph, validation = split_validation(blocks(), 0.15, seed=0)
    backbone = LightGCN(layers=2, readout="sum", weight_decay=1e-2)
    config = TrainingConfig(
        embedding_size=16, batch_size=512, learning_rate=2e-2, epochs=epochs, patience=20, seed=seed
    )
    result = Training(backbone, graph, validation, config, torch.device("cpu")).run()
    return TrainedState(graph, validation, result.e0, backbone)


TASTES = TrainingConfig(embedding_size=16, batch_size=1024, learning_rate=2e-2, epochs=20, patience=20)
TASTES_BACKBONE = LightGCN(layers=2, readout="sum", weight_decay=1e-2)


def tastes(n_users: int = 300, n_items: int = 150, seed: int = 0) -> InteractionGraph:
    """Low-rank tastes and popularity: 8 to 40 items a user, drawn by Gumbel's trick. More like people than `blocks`."""
    generator = torch.Generator().manual_seed(seed)
    users = torch.randn(n_users, 6, generator=generator)
    items = torch.randn(n_items, 6, generator=generator)
    popularity = 0.8 * torch.randn(n_items, generator=generator)
    luck = -(-torch.rand(n_users, n_items, generator=generator).log()).log()
    ranked = (0.8 * users @ items.T + popularity + luck).argsort(dim=1, descending=True)
    count = torch.randint(8, 40, (n_users,), generator=generator)
    liked = torch.arange(n_items)[None, :] < count[:, None]
    rows = torch.arange(n_users)[:, None].expand(-1, n_items)
    return InteractionGraph(n_users, n_items, torch.stack((rows[liked], ranked[liked])))


def trained_tastes(seed: int = 0) -> TrainedState:
    """A base of `TASTES`, trained on `tastes`: large enough to measure how forgetting shows."""
    graph, validation = split_validation(tastes(seed=seed), 0.1, seed=0)
    e0 = Training(TASTES_BACKBONE, graph, validation, TASTES, torch.device("cpu")).run().e0
    return TrainedState(graph, validation, e0, TASTES_BACKBONE)


def random_state(n_users: int = 12, n_items: int = 9, n_edges: int = 40, size: int = 4, seed: int = 0) -> TrainedState:
    """An untrained base on a random graph, with random embeddings and eight held-out pairs."""
    graph = random_graph(n_users, n_items, n_edges, seed)
    held_out = random_graph(n_users, n_items, 8, seed + 1).edges
    e0 = torch.randn(graph.n_nodes, size, generator=torch.Generator().manual_seed(seed))
    return TrainedState(graph, held_out, e0, LightGCN(layers=2, readout="sum", weight_decay=1e-2))


def some_edges(graph: InteractionGraph, count: int, seed: int = 0) -> Tensor:
    """(2, count) random edges of a graph, unsorted."""
    order = torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(seed))
    return graph.edges[:, order[:count]]
