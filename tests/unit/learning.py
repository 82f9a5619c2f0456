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
