import pytest
import torch
from torch.nn.functional import cross_entropy

from service.recommender.backbones import SoftmaxLightGCN, Triples
from service.recommender.losses import sampled_softmax_loss
from service.recommender.training import TrainingConfig
from service.unlearning.request import UnlearningRequest
from service.unlearning.retrain import Retrain
from tests.unit.learning import random_state, some_edges


def test_with_all_items_sampled_it_is_the_softmax_and_the_item_s_own_share() -> None:
    """The sum over all items, to which the positive is added once more: no item is looked up among the sampled."""
    generator = torch.Generator().manual_seed(0)
    n_users, n_items = 6, 5
    readout = torch.randn(n_users + n_items, 4, generator=generator, dtype=torch.float64)
    users, positives = torch.tensor([0, 3, 5]), torch.tensor([1, 0, 4])
    batch = Triples(users, positives, torch.arange(n_items))

    scores = readout[users] @ readout[n_users:].T
    liked = scores.gather(1, positives[:, None])
    wanted = cross_entropy(torch.cat((liked, scores), dim=1), torch.zeros(3, dtype=torch.long))

    assert float(sampled_softmax_loss(readout, n_users, batch, sampled=100)) == pytest.approx(float(wanted))


def test_a_sample_estimates_the_sum_over_all_items() -> None:
    """Weighted up to the number of items, so the loss does not depend on how many are sampled."""
    generator = torch.Generator().manual_seed(1)
    n_users, n_items = 50, 4_000
    readout = 0.3 * torch.randn(n_users + n_items, 16, generator=generator)
    users = torch.randint(n_users, (2_000,), generator=generator)
    items = torch.randperm(n_items, generator=generator)[:2_000]
    batch = Triples(users, items, torch.randperm(n_items, generator=generator)[:2_000])

    few, many = (float(sampled_softmax_loss(readout, n_users, batch, sampled)) for sampled in (200, 2_000))

    assert few == pytest.approx(many, rel=0.02)


def test_another_backbone_is_trained_before_and_after() -> None:
    """As a reference it has a model of its own: nothing of the base's embeddings is in it."""
    state = random_state(seed=0)
    method = Retrain(TrainingConfig(embedding_size=8, epochs=2), seed=3, backbone=SoftmaxLightGCN(layers=2))
    request = UnlearningRequest.of(state, forget=some_edges(state.graph, 5))

    before, result = method.before(state), method.forget(state, request)

    assert before.shape == result.readout.shape == (state.graph.n_nodes, 8)
    assert torch.equal(before, method.before(state))
    assert not result.graph.contains(request.edges).any()
    assert not torch.equal(before, result.readout)
