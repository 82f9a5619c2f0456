from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from service.recommender.graph import InteractionGraph
from service.recommender.losses import pair_scores
from service.recommender.training import Training, TrainingConfig
from service.unlearning import shadow as module
from service.unlearning.amplification import swap_graph
from service.unlearning.corrector import Corrector
from service.unlearning.encoder import InfluenceEncoder, OutdatedEncoder
from service.unlearning.expectation import FEATURES, FORM, PairFeatures
from service.unlearning.metric import ReadoutMetric
from service.unlearning.pretraining import Pretraining, PretrainingConfig, PretrainingReport, PretrainingResult
from service.unlearning.ranks import auc
from service.unlearning.request import MODES, Mode, UnlearningRequest
from service.unlearning.shadow import Shadow, learn_expectation
from service.unlearning.state import TrainedState
from service.unlearning.unlearnrec import UnlearnRec
from tests.unit.learning import TASTES as TRAINING
from tests.unit.learning import TASTES_BACKBONE as BACKBONE
from tests.unit.learning import random_state, some_edges, trained_tastes

CPU = torch.device("cpu")


@dataclass
class Spy:
    """What was trained while a shadow was."""

    graphs: list[InteractionGraph]
    configs: list[TrainingConfig]
    results: list[Tensor]


@pytest.fixture(scope="module")
def state() -> TrainedState:
    """A base with enough pairs to learn from; nothing here changes it."""
    return trained_tastes()


@pytest.fixture(scope="module")
def shadow(state: TrainedState) -> Shadow:
    """Its shadow."""
    return Shadow.train(state, TRAINING, 0.02, seed=0)


@pytest.fixture(scope="module")
def pretrained(state: TrainedState) -> PretrainingResult:
    """An encoder as it ships: a shadow, no steps."""
    return Pretraining(state, PretrainingConfig(), TRAINING).run()


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    """Notes what shadows train on; a training of one epoch is enough to look at."""
    seen = Spy([], [], [])

    class Watched(Training):
        def __init__(
            self, backbone: Any, graph: InteractionGraph, validation: Tensor, config: TrainingConfig, device: Any
        ) -> None:
            super().__init__(backbone, graph, validation, replace(config, epochs=1), device)
            seen.graphs.append(graph)
            seen.configs.append(config)

        def run(self, *arguments: Any) -> Any:
            result = super().run(*arguments)
            seen.results.append(result.e0)
            return result

    monkeypatch.setattr(module, "Training", Watched)
    return seen


def _trained(graph: InteractionGraph, validation: Tensor, seed: int) -> Tensor:
    return Training(BACKBONE, graph, validation, replace(TRAINING, seed=seed), CPU).run().e0


def _scores(state: TrainedState, readout: Tensor, edges: Tensor) -> Tensor:
    return pair_scores(readout, state.graph.n_users, edges[0].long(), edges[1].long())


def _on_scale(state: TrainedState, readout: Tensor, scores: Tensor) -> Tensor:
    own, wanted = (_scores(state, rows, state.validation) for rows in (readout, state.readout))
    return (scores - own.mean()) / own.std() * wanted.std() + wanted.mean()


def test_it_never_sees_the_pairs_that_it_tells_of(state: TrainedState, spy: Spy) -> None:
    """It trains once, on the base's interactions without them, under a seed of its own."""
    shadow = Shadow.train(state, TRAINING, 0.02, seed=3)

    (graph,), (config,) = spy.graphs, spy.configs
    assert not graph.contains(shadow.edges).any()
    assert state.graph.contains(shadow.edges).all()
    assert state.graph.contains(graph.edges).all()
    assert graph.keeps(shadow.edges).all()
    assert replace(config, seed=0) == TRAINING
    assert config.seed not in (0, 3)


def test_it_tells_nothing_of_rows_that_it_never_saw(spy: Spy) -> None:
    """The last pair of a user or an item leaves a row that no training has moved."""
    state = random_state(60, 60, 80)

    shadows = [Shadow.train(state, TRAINING, 0.05, seed=seed) for seed in range(6)]

    told = [graph.keeps(shadow.edges).all() for graph, shadow in zip(spy.graphs, shadows, strict=True)]
    assert all(told)
    assert sum(shadow.edges.shape[1] for shadow in shadows) < sum(
        state.graph.n_edges - graph.n_edges for graph in spy.graphs
    ), "the case holds such pairs"


@pytest.mark.parametrize(("share", "expected"), [(0.02, 0.05), (0.5, 0.05)])
def test_it_leaves_out_a_small_share(state: TrainedState, spy: Spy, share: float, expected: float) -> None:
    """At least MIN_PAIRS, but at most a twentieth: what is left is to be much like what a request leaves."""
    Shadow.train(state, TRAINING, share, seed=0)

    assert spy.graphs[0].n_edges == state.graph.n_edges - round(expected * state.graph.n_edges)


def test_its_scores_are_on_the_scale_of_the_base(state: TrainedState, spy: Spy) -> None:
    """Mean and deviation of its held-out scores are brought to the base's, and nothing else is changed."""
    shadow = Shadow.train(state, TRAINING, 0.02, seed=0)

    readout = BACKBONE.propagate(spy.results[0], spy.graphs[0])
    own = _scores(state, readout, shadow.edges)
    assert torch.allclose(shadow.scores, _on_scale(state, readout, own), atol=1e-4)
    assert not torch.allclose(shadow.scores, own, atol=1e-2), "the case asks for an alignment"


@pytest.mark.P6
def test_the_same_seed_gives_the_same_shadow(state: TrainedState, spy: Spy) -> None:
    """Another seed leaves out other pairs."""
    first, second, other = (Shadow.train(state, TRAINING, 0.02, seed=seed) for seed in (1, 1, 2))

    assert torch.equal(first.edges, second.edges)
    assert torch.equal(first.scores, second.scores)
    assert not torch.equal(first.edges, other.edges)
    assert len(spy.graphs) == 3


def test_the_expectation_tells_what_the_shadow_scores(state: TrainedState, shadow: Shadow) -> None:
    """Nearer than any constant does, and at their level."""
    expectation = learn_expectation(state, shadow)

    assert expectation is not None
    assert expectation.mean.shape == (len(FEATURES),)
    remaining = state.graph.without(shadow.edges)
    features = PairFeatures(state, ReadoutMetric.of(state))
    described = features(swap_graph(state, remaining), remaining, shadow.edges, shadow.edges)
    error = expectation(described) - shadow.scores
    assert error.std() < 0.5 * shadow.scores.std()
    assert abs(error.mean()) < 0.2 * shadow.scores.std()


def test_the_shadows_pairs_stand_among_held_out_ones_as_in_the_shadow(state: TrainedState, shadow: Shadow) -> None:
    """The level of the expectation is set so, with the whole correction applied."""
    corrector = Corrector(state, learn_expectation(state, shadow))
    remaining = state.graph.without(shadow.edges)
    swapped = swap_graph(state, remaining)

    request = UnlearningRequest.of(state, forget=shadow.edges)
    readout = swapped + corrector.change(swapped, remaining, request, ("forget",))

    wanted = auc(shadow.scores, _scores(state, state.readout, state.validation))
    found = auc(_scores(state, readout, shadow.edges), _scores(state, readout, state.validation))
    assert abs(found - wanted) < 0.02


def test_a_shadow_without_pairs_teaches_nothing(state: TrainedState) -> None:
    """Where every pair that was left out emptied a row, the quantiles remain."""
    assert learn_expectation(state, Shadow(state.graph.edges[:, :0].long(), torch.zeros(0), 0.0)) is None


def test_what_is_stored_holds_no_row_of_the_shadow(state: TrainedState, pretrained: PretrainingResult) -> None:
    """The encoder's own tensors, which learnt nothing, and three small ones, whatever the number of nodes."""
    tensors, terms = pretrained.encoder.tensors(), len(FEATURES)

    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == {
        "h0": (state.graph.n_nodes, 16),
        "weight": (state.graph.n_nodes, 1),
        "mlp0": (16, 16),
        "mlp1": (16,),
        "mlp2": (16, 16),
        "mlp3": (16,),
        "expectation_mean": (terms,),
        "expectation_scale": (terms,),
        "expectation_weight": (1 + terms + terms * (terms + 1) // 2,),
    }
    assert not tensors["h0"].any()
    assert not tensors["weight"].any()


def test_an_encoder_of_another_version_is_refused(
    pretrained: PretrainingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers would be read amiss: scores would move anywhere."""
    facts, tensors = pretrained.encoder.facts(), pretrained.encoder.tensors()
    monkeypatch.setattr("service.unlearning.encoder.FORM", FORM + 1)

    with pytest.raises(OutdatedEncoder, match="pre-train it anew"):
        InfluenceEncoder.from_tensors(facts, tensors)


def test_a_stored_encoder_forgets_just_as_well(state: TrainedState, pretrained: PretrainingResult) -> None:
    """The expectation goes with it."""
    encoder = pretrained.encoder
    again = InfluenceEncoder.from_tensors(encoder.facts(), encoder.tensors())
    request = UnlearningRequest.of(state, forget=some_edges(state.graph, 20))

    first, second = (UnlearnRec({"forget": each}).forget(state, request) for each in (encoder, again))

    assert torch.equal(first.readout, second.readout)


def test_forgetting_comes_closer_to_retraining_than_the_graph_alone(
    state: TrainedState, pretrained: PretrainingResult
) -> None:
    """In the erased pairs' scores: nearly no bias is left, and the distance pair by pair is less too."""
    request = UnlearningRequest.of(state, forget=some_edges(state.graph, 124, seed=7))
    remaining = state.graph.without(request.edges)
    aligned = []
    for seed in (1, 2):
        readout = BACKBONE.propagate(_trained(remaining, state.validation, seed), remaining)
        aligned.append(_on_scale(state, readout, _scores(state, readout, request.forget)))
    retrained = torch.stack(aligned).mean(dim=0)

    forgotten = UnlearnRec({"forget": pretrained.encoder}).forget(state, request).readout
    readouts = (forgotten, swap_graph(state, remaining))
    after, swapped = (_scores(state, readout, request.forget) - retrained for readout in readouts)
    assert abs(after.mean()) < 0.3 * abs(swapped.mean())
    assert after.square().mean() < 0.8 * swapped.square().mean()


@pytest.mark.parametrize(
    "options", [{"mode": "dislike", "correct": False}, {"shadow_share": 0.0}], ids=["published", "none"]
)
def test_no_shadow_where_nothing_asks_for_one(state: TrainedState, spy: Spy, options: dict[str, Any]) -> None:
    """The published method has no use for it."""
    result = Pretraining(state, PretrainingConfig(**options), TRAINING).run()

    assert spy.graphs == []
    assert result.encoder.expectation is None
    assert result.shadow_seconds == 0


@pytest.mark.parametrize("mode", MODES)
def test_both_modes_learn_from_a_shadow(state: TrainedState, spy: Spy, mode: Mode) -> None:
    """What a forgotten pair should score is the same for both."""
    result = Pretraining(state, PretrainingConfig(mode=mode), TRAINING).run()

    assert len(spy.graphs) == 1
    assert result.encoder.expectation is not None
    assert 0 < result.shadow_seconds <= result.seconds


def test_no_shadow_of_a_base_whose_training_is_unknown(state: TrainedState, spy: Spy) -> None:
    """A base that was trained elsewhere falls back on quantiles, and still forgets."""
    encoder = Pretraining(state, PretrainingConfig()).run().encoder

    result = UnlearnRec({"forget": encoder}).forget(
        state, UnlearningRequest.of(state, forget=some_edges(state.graph, 20))
    )

    assert spy.graphs == []
    assert encoder.expectation is None
    assert torch.isfinite(result.readout).all()


def test_progress_says_which_stage_it_is_in(state: TrainedState, spy: Spy) -> None:
    """Epochs of the shadow first, then steps of the encoder."""
    told: list[PretrainingReport] = []

    Pretraining(state, PretrainingConfig(steps=2, batch_size=64), TRAINING).run(told.append)

    assert [(report.stage, report.step, report.steps) for report in told] == [
        ("shadow", 1, 1),
        ("encoder", 1, 2),
        ("encoder", 2, 2),
    ]
    assert len(spy.graphs) == 1
