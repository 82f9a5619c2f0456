from dataclasses import replace

import pytest
import torch

from service.recommender.losses import pair_scores
from service.unlearning.encoder import EncoderConfig, InfluenceEncoder
from service.unlearning.expectation import FEATURES, Expectation
from service.unlearning.idm import InfluenceDependencyMatrix
from service.unlearning.pretraining import Pretraining, PretrainingConfig
from service.unlearning.request import UnlearningRequest
from service.unlearning.retrain import Retrain
from service.unlearning.state import TrainedState
from service.unlearning.unlearnrec import UnlearnRec
from tests.unit.learning import dense_adjacency, trained_blocks

QUICK = PretrainingConfig(steps=30, batch_size=256, learning_rate=1e-2, judge_every=10)


@pytest.fixture(scope="module")
def state() -> TrainedState:
    """One trained base for all tests of this file; nothing here changes it."""
    return trained_blocks()


@pytest.fixture(scope="module")
def forget(state: TrainedState) -> InfluenceEncoder:
    """A pre-trained encoder for mode `forget`."""
    return Pretraining(state, QUICK).run().encoder


@pytest.fixture(scope="module")
def dislike(state: TrainedState) -> InfluenceEncoder:
    """A pre-trained encoder for mode `dislike`."""
    return Pretraining(state, replace(QUICK, mode="dislike")).run().encoder


def _some(state: TrainedState, count: int = 20, seed: int = 0) -> torch.Tensor:
    order = torch.randperm(state.graph.n_edges, generator=torch.Generator().manual_seed(seed))
    return state.graph.edges[:, order[:count]]


def _random_encoder(state: TrainedState, **config: object) -> InfluenceEncoder:
    shape = (state.graph.n_nodes, state.e0.shape[1])
    encoder = InfluenceEncoder.fresh(EncoderConfig(**config), shape, torch.device("cpu"))  # type: ignore[arg-type]
    encoder.h0.normal_(generator=torch.Generator().manual_seed(1))
    encoder.weight.normal_(generator=torch.Generator().manual_seed(2))
    return encoder


def test_the_influence_matrix_is_that_of_the_request_alone(state: TrainedState) -> None:
    """S_D is normalised by the degrees within the request; only the nodes that it touches are kept."""
    edges = _some(state)

    idm = InfluenceDependencyMatrix(state.graph, edges)

    alone = type(state.graph)(state.graph.n_users, state.graph.n_items, edges)
    dense = dense_adjacency(alone)
    assert torch.equal(idm.nodes, torch.nonzero(alone.degree).flatten())
    assert torch.allclose(idm.matrix.to_dense(), dense[idm.nodes][:, idm.nodes], atol=1e-6)


def test_dropped_entries_are_scaled_up_and_come_with_their_transpose(state: TrainedState) -> None:
    """S'_D of equation (23), entry by entry."""
    idm = InfluenceDependencyMatrix(state.graph, _some(state, 60))

    dropped, transposed = idm.dropped(0.3, torch.Generator().manual_seed(0))

    dense, whole = dropped.to_dense(), idm.matrix.to_dense()
    assert torch.allclose(dense.T, transposed.to_dense())
    kept = dense != 0
    assert torch.allclose(dense[kept], whole[kept] / 0.7)
    assert 0 < int(kept.sum()) < int((whole != 0).sum())


@pytest.mark.parametrize("readout", ["sum0_masked", "sum0"])
def test_the_encoder_computes_the_equations(state: TrainedState, readout: str) -> None:
    """Equations (15)-(18), with dense matrices over all nodes as the oracle."""
    encoder, edges = _random_encoder(state, readout=readout), _some(state)
    alone = type(state.graph)(state.graph.n_users, state.graph.n_items, edges)
    dense = dense_adjacency(alone)

    shift = encoder.shift(InfluenceDependencyMatrix(state.graph, edges), state.readout)

    touched = (alone.degree > 0)[:, None]
    h0 = torch.where(touched, encoder.h0, 0) if readout == "sum0_masked" else encoder.h0
    hidden = h0 + dense @ h0 + dense @ dense @ h0 + dense @ dense @ dense @ h0
    influence = dense @ dense @ dense @ (state.readout * encoder.weight)
    expected = encoder.transform(hidden - 0.1 * influence)
    assert torch.allclose(shift, expected, atol=1e-4)


def test_a_fresh_encoder_without_weight_shifts_nothing(state: TrainedState) -> None:
    """At init H_0 = 0 and W = 0, so E0~ = E0 exactly."""
    shape = (state.graph.n_nodes, state.e0.shape[1])
    encoder = InfluenceEncoder.fresh(EncoderConfig(init_weight=0.0), shape, torch.device("cpu"))

    shift = encoder.shift(InfluenceDependencyMatrix(state.graph, _some(state)), state.readout)

    assert not shift.any()


def test_an_empty_request_gives_the_base_bit_for_bit(state: TrainedState, forget: InfluenceEncoder) -> None:
    """Nothing to forget changes nothing."""
    result = UnlearnRec({"forget": forget}).forget(state, UnlearningRequest.of(state))

    assert torch.equal(result.readout, state.readout)
    assert torch.equal(result.e0, state.e0)


def test_the_code_faithful_readout_shifts_rows_outside_the_request(state: TrainedState) -> None:
    """`sum0` reproduces the published code, its lack of locality included."""
    encoder = _random_encoder(state, readout="sum0")
    idm = InfluenceDependencyMatrix(state.graph, _some(state, 2))

    shift = encoder.shift(idm, state.readout)

    assert (shift.abs().sum(dim=1) > 0).all()


@pytest.mark.P2
def test_requests_are_sets(state: TrainedState, forget: InfluenceEncoder) -> None:
    """Order, batching and repeats of the interactions have no effect on the bytes."""
    edges, method = _some(state), UnlearnRec({"forget": forget})
    shuffled = torch.cat((edges.flip(1), edges[:, :5]), dim=1)

    once = method.forget(state, UnlearningRequest.of(state, forget=edges))
    again = method.forget(state, UnlearningRequest.of(state, forget=shuffled))

    assert torch.equal(once.readout, again.readout)


def test_unknown_interactions_are_no_part_of_a_request(state: TrainedState) -> None:
    """What the base never saw needs no forgetting; what it held out leaves the measurements."""
    asked = torch.cat((state.validation[:, :3], _some(state, 4)), dim=1)

    request = UnlearningRequest.of(state, forget=asked)

    assert request.n_edges == 4
    assert request.held_out.shape == (2, 3)


def test_an_interaction_asked_for_in_both_modes_is_disliked(state: TrainedState) -> None:
    """The stronger wish counts."""
    edges = _some(state, 6)

    request = UnlearningRequest.of(state, forget=edges, dislike=edges[:, :2])

    assert request.dislike.shape[1] == 2
    assert request.forget.shape[1] == 4


def test_forgotten_pairs_come_close_to_their_target(state: TrainedState, forget: InfluenceEncoder) -> None:
    """Mode `forget` leaves most of the distance to unseen pairs behind, and does not fall far below them."""
    method, edges = UnlearnRec({"forget": forget}), _some(state, 40, seed=3)
    request = UnlearningRequest.of(state, forget=edges)
    method.prepare(state)
    assert method._prepared is not None
    targets = method._prepared[1].calibration.targets(state, request.forget)

    result = method.forget(state, request)

    users, items = request.forget.long()
    before = pair_scores(state.readout, state.graph.n_users, users, items) - targets
    after = pair_scores(result.readout, state.graph.n_users, users, items) - targets
    assert abs(float(after.mean())) < 0.5 * abs(float(before.mean()))


def test_disliked_pairs_fall(state: TrainedState, dislike: InfluenceEncoder) -> None:
    """Mode `dislike` lowers the scores further than the graph alone."""
    request = UnlearningRequest.of(state, dislike=_some(state, 40, seed=3))
    users, items = request.dislike.long()
    fresh = InfluenceEncoder.fresh(EncoderConfig(init_weight=0.0), (state.graph.n_nodes, 16), torch.device("cpu"))

    swapped = UnlearnRec({"dislike": fresh}).forget(state, request)
    disliked = UnlearnRec({"dislike": dislike}).forget(state, request)

    scores = [pair_scores(r.readout, state.graph.n_users, users, items).mean() for r in (swapped, disliked)]
    assert scores[1] < scores[0]


def test_a_row_without_interactions_is_reset(state: TrainedState, forget: InfluenceEncoder) -> None:
    """An erased user's and an erased item's embeddings are zero in every layer that is kept."""
    user, item = torch.tensor([3]), torch.tensor([7])
    edges = torch.cat((state.graph.edges_of_users(user), state.graph.edges_of_items(item)), dim=1)

    result = UnlearnRec({"forget": forget}).forget(state, UnlearningRequest.of(state, forget=edges))

    node = state.graph.n_users + 7
    assert not result.readout[3].any()
    assert not result.e0[3].any()
    assert not result.readout[node].any()
    assert not result.e0[node].any()
    assert torch.isfinite(result.readout).all()


def test_everything_can_be_forgotten(state: TrainedState, forget: InfluenceEncoder) -> None:
    """The last interaction of all may go too."""
    result = UnlearnRec({"forget": forget}).forget(state, UnlearningRequest.of(state, forget=state.graph.edges))

    assert result.graph.n_edges == 0
    assert not result.readout.any()


def test_a_mode_without_an_encoder_is_refused(state: TrainedState, forget: InfluenceEncoder) -> None:
    """The message says which encoder is missing."""
    with pytest.raises(ValueError, match="No influence encoder for mode 'dislike'"):
        UnlearnRec({"forget": forget}).forget(state, UnlearningRequest.of(state, dislike=_some(state)))


@pytest.mark.P6
def test_fine_tuning_is_reproducible_and_moves_the_model(state: TrainedState, forget: InfluenceEncoder) -> None:
    """The same request and number of epochs give the same bytes; the encoder itself is left as it was."""
    request, kept = UnlearningRequest.of(state, forget=_some(state)), forget.copy()
    method = UnlearnRec({"forget": forget}, epochs=1)

    first, second = method.forget(state, request), method.forget(state, request)
    without = method.with_epochs(0).forget(state, request)

    assert torch.equal(first.readout, second.readout)
    assert first.fine_tune_epochs == 1
    assert not torch.equal(first.readout, without.readout)
    assert all(torch.equal(a, b) for a, b in zip(forget.mlp, kept.mlp, strict=True))


def test_an_encoder_survives_being_stored(state: TrainedState, forget: InfluenceEncoder) -> None:
    """Tensors and configuration are all there is to it."""
    again = InfluenceEncoder.from_tensors(forget.facts(), forget.tensors())
    idm = InfluenceDependencyMatrix(state.graph, _some(state))

    assert torch.equal(again.shift(idm, state.readout), forget.shift(idm, state.readout))


@pytest.mark.parametrize("amplification", [3.2, 1.0])
def test_an_encoder_of_an_older_version_still_forgets(state: TrainedState, amplification: float) -> None:
    """It named an amplification and stored no expectation: it is corrected by quantiles, or, with 1, not at all."""
    old = _random_encoder(state)
    facts = {key: value for key, value in old.facts().items() if key != "correct"} | {"amplification": amplification}
    request = UnlearningRequest.of(state, forget=_some(state))

    encoder = InfluenceEncoder.from_tensors(facts, old.tensors())

    assert encoder.expectation is None
    assert encoder.config.correct == (amplification != 1.0)
    expected = InfluenceEncoder(replace(old.config, correct=amplification != 1.0), old.h0, old.weight, old.mlp)
    first, second = (UnlearnRec({"forget": each}).forget(state, request) for each in (encoder, expected))
    plain = UnlearnRec({"forget": old}).forget(state, request)
    assert torch.isfinite(first.readout).all()
    assert torch.equal(first.readout, second.readout)
    assert torch.equal(first.readout, plain.readout) == (amplification == 1.0)


def test_both_modes_share_what_one_of_them_has_learnt(state: TrainedState) -> None:
    """An encoder without an expectation beside one that has it."""
    weight = torch.zeros(1 + len(FEATURES) + len(FEATURES) * (len(FEATURES) + 1) // 2)
    weight[0] = -3.0
    learnt = Expectation(torch.zeros(len(FEATURES)), torch.ones(len(FEATURES)), weight)
    knowing, plain = (_random_encoder(state, correct=True) for _ in range(2))
    knowing.expectation = learnt
    method = UnlearnRec({"forget": plain, "dislike": knowing})

    method.prepare(state)

    assert method._prepared is not None
    assert method._prepared[1].expectation is learnt


def test_fine_tuning_aims_where_the_correction_does(state: TrainedState) -> None:
    """Else the epochs would pull the pairs back to the quantiles."""
    weight = torch.zeros(1 + len(FEATURES) + len(FEATURES) * (len(FEATURES) + 1) // 2)
    encoders = []
    for level in (-3.0, 3.0):
        learnt = Expectation(torch.zeros(len(FEATURES)), torch.ones(len(FEATURES)), weight.clone())
        learnt.weight[0] = level
        encoder = InfluenceEncoder.fresh(EncoderConfig(init_weight=0.0), (state.graph.n_nodes, 16), torch.device("cpu"))
        encoder.expectation = learnt
        encoders.append(encoder)
    request = UnlearningRequest.of(state, forget=_some(state))

    low, high = (UnlearnRec({"forget": each}, epochs=2).forget(state, request).readout for each in encoders)

    users, items = request.forget.long()
    scores = [pair_scores(readout, state.graph.n_users, users, items).mean() for readout in (low, high)]
    assert scores[0] < scores[1]


def test_a_base_survives_being_stored(state: TrainedState) -> None:
    """The base that was written is the base that is read."""
    again = TrainedState.from_tensors(state.tensors(), state.graph.n_users, state.backbone)

    assert torch.equal(again.readout, state.readout)
    assert torch.equal(again.validation, state.validation)


def test_pretraining_keeps_the_best_judged_checkpoint(state: TrainedState) -> None:
    """What is returned is the step whose judgement was best among those that keep the quality."""
    result = Pretraining(state, replace(QUICK, mode="dislike")).run()

    floor = min(1.0, result.history[0][1].quality_ratio) - 0.01
    allowed = [judgement.score for step, judgement in result.history if judgement.quality_ratio >= floor]
    assert result.judgement.score == min(allowed)


def test_pretraining_is_reproducible(state: TrainedState) -> None:
    """Same base, same seed, same encoder."""
    first, second = (Pretraining(state, replace(QUICK, steps=8)).run().encoder for _ in range(2))

    assert torch.equal(first.h0, second.h0)
    assert torch.equal(first.weight, second.weight)


def test_pretraining_leaves_the_base_alone(state: TrainedState) -> None:
    """E0 is frozen."""
    before = state.e0.clone()

    Pretraining(state, replace(QUICK, steps=3)).run()

    assert torch.equal(state.e0, before)


def test_retraining_never_sees_the_request(state: TrainedState) -> None:
    """Retrain is a training on what remains, exact by construction."""
    from service.recommender.training import TrainingConfig

    config = TrainingConfig(embedding_size=16, batch_size=512, learning_rate=2e-2, epochs=3, patience=3)
    request = UnlearningRequest.of(state, forget=_some(state))

    result = Retrain(config, seed=5).forget(state, request)

    assert not result.graph.contains(request.edges).any()
    assert torch.isfinite(result.readout).all()
