import torch

from service.unlearning.partition.aggregation import Attention, WeightConfig, fit_weights, side_by_side
from tests.unit.learning import trained_blocks


def test_scores_side_by_side_are_the_weighted_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(9, 4, generator=generator) for _ in range(3)]
    weights = torch.tensor([0.2, 0.0, 0.8])
    whole = side_by_side(parts, weights)
    expected = 0.2 * parts[0] @ parts[0].T + 0.8 * parts[2] @ parts[2].T
    assert torch.allclose(whole @ whole.T, expected, atol=1e-5)


def test_weights_are_a_mixture_that_prefers_the_model_that_ranks() -> None:
    state = trained_blocks()
    noise = torch.randn(state.readout.shape, generator=torch.Generator().manual_seed(0)) * 0.3
    contrary = state.readout.clone()
    contrary[: state.graph.n_users] *= -1
    readouts = [noise, state.readout, contrary]
    alpha = fit_weights(readouts, state.graph, WeightConfig(ridge=0.0), seed=0)
    assert (alpha >= 0).all()
    assert abs(float(alpha.sum()) - 1) < 1e-5
    assert alpha[1] > 0.9
    even = fit_weights(readouts, state.graph, WeightConfig(ridge=100.0), seed=0)
    assert torch.allclose(even, torch.full((3,), 1 / 3), atol=0.05)
    assert torch.equal(alpha, fit_weights(readouts, state.graph, WeightConfig(ridge=0.0), seed=0))


def test_attention_is_shared_among_the_shards_that_know_a_row() -> None:
    generator = torch.Generator().manual_seed(0)
    attention = Attention(3, 4, generator, torch.device("cpu"))
    attention.outer.normal_(generator=generator)
    vectors = torch.randn(3, 5, 4, generator=generator)
    known = torch.rand(3, 5, generator=generator) < 0.6
    known[0] = True
    weights, rows = attention(vectors, known)
    assert torch.allclose(weights.sum(dim=0), torch.ones(5))
    assert (weights[~known] == 0).all()
    assert (weights[known] > 0).all()
    assert torch.allclose(rows, (weights[..., None] * vectors).sum(dim=0), atol=1e-6)  # W starts as the identity


def test_a_row_that_no_shard_knows_stays_finite() -> None:
    attention = Attention(2, 4, torch.Generator().manual_seed(0), torch.device("cpu"))
    _, rows = attention(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool))
    assert torch.isfinite(rows).all()
