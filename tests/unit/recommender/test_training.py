from dataclasses import replace
from pathlib import Path

import pytest
import torch

from service.recommender.backbones import LightGCN
from service.recommender.graph import InteractionGraph
from service.recommender.ranking import ranking_quality, top_items
from service.recommender.sampling import batches, occurrence, sample_negatives, split_validation
from service.recommender.training import EpochReport, Training, TrainingConfig
from tests.unit.learning import blocks

CPU = torch.device("cpu")
SMALL = TrainingConfig(embedding_size=16, batch_size=512, learning_rate=2e-2, epochs=6, patience=6)


def _training(config: TrainingConfig = SMALL) -> Training:
    graph, validation = split_validation(blocks(), 0.1, seed=0)
    return Training(LightGCN(layers=2, readout="sum", weight_decay=1e-2), graph, validation, config, CPU)


def test_training_finds_the_communities() -> None:
    """Held-out interactions of a user's own block rank far above the others."""
    result = _training(replace(SMALL, epochs=15)).run()

    assert result.validation.recall > 0.9


def test_the_same_seed_gives_the_same_embeddings() -> None:
    """Training is reproducible, and another seed is another model."""
    first, second, other = _training().run(), _training().run(), _training(replace(SMALL, seed=1)).run()

    assert torch.equal(first.e0, second.e0)
    assert not torch.equal(first.e0, other.e0)


def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    """Checkpoint after three epochs, resume, and end with the same bytes."""
    whole = _training().run()

    def stop(epoch: EpochReport) -> None:
        if epoch.epoch == 3:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        _training().run(stop, checkpoint)
    resumed = _training().run(checkpoint=checkpoint)

    assert torch.equal(resumed.e0, whole.e0)
    assert resumed.best_epoch == whole.best_epoch
    assert [epoch.epoch for epoch in resumed.history] == list(range(6))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    """A checkpoint never mixes two runs."""
    checkpoint = tmp_path / "run.npz"
    _training(replace(SMALL, epochs=1)).run(checkpoint=checkpoint)

    with pytest.raises(ValueError, match="belongs to other settings or data"):
        _training(replace(SMALL, epochs=1, seed=9)).run(checkpoint=checkpoint)


def test_training_stops_when_validation_no_longer_improves() -> None:
    """Patience counts epochs without a better NDCG, and the best epoch is what is kept."""
    result = _training(replace(SMALL, epochs=60, patience=2)).run()

    best = max(result.history, key=lambda epoch: epoch.quality.ndcg)
    assert result.best_epoch == best.epoch
    assert len(result.history) <= best.epoch + 3


def test_without_a_validation_part_all_epochs_run() -> None:
    """The last epoch counts where nothing can be validated."""
    graph = blocks()
    none = graph.edges[:, :0]

    result = Training(LightGCN(), graph, none, replace(SMALL, epochs=3, patience=1), CPU).run()

    assert result.best_epoch == 2


@pytest.mark.parametrize("field", ["batch_size", "epochs", "learning_rate"])
def test_nonsense_settings_are_refused(field: str) -> None:
    """A setting out of range is named."""
    with pytest.raises(ValueError, match=field.split("_")[0]):
        TrainingConfig(**{field: 0})


def test_negatives_are_never_interactions() -> None:
    """Unless the user knows everything, a negative is something the user has not touched."""
    graph = blocks(share=0.9)
    users = torch.arange(graph.n_users).repeat(50)

    items = sample_negatives(graph, users, torch.Generator().manual_seed(0))

    assert not graph.contains(torch.stack((users, items))).any()


def test_an_epoch_shows_every_interaction_once() -> None:
    """Batches partition the interactions."""
    graph = blocks()

    shown = list(batches(graph, 100, torch.Generator().manual_seed(0)))

    pairs = torch.stack((torch.cat([b.users for b in shown]), torch.cat([b.positives for b in shown])))
    assert torch.equal(InteractionGraph(graph.n_users, graph.n_items, pairs).edges, graph.edges)
    assert pairs.shape[1] == graph.n_edges


def test_the_validation_part_leaves_no_row_cold() -> None:
    """Train and validation are disjoint, whole, and every row keeps an interaction."""
    full = blocks(share=0.2)

    graph, validation = split_validation(full, 0.3, seed=3)

    assert not graph.contains(validation).any()
    assert graph.n_edges + validation.shape[1] == full.n_edges
    assert torch.equal(graph.user_degree > 0, full.user_degree > 0)
    assert torch.equal(graph.item_degree > 0, full.item_degree > 0)


def test_occurrence_counts_equals_before() -> None:
    """[5, 7, 5, 5] -> [0, 0, 1, 2]."""
    assert occurrence(torch.tensor([5, 7, 5, 5])).tolist() == [0, 0, 1, 2]


def test_top_items_are_exact_and_never_seen_ones() -> None:
    """The list is what a full sort gives."""
    graph, readout = blocks(), torch.randn(200, 8)

    top = top_items(readout, graph, torch.tensor([3, 77]), 5)

    for row, user in enumerate((3, 77)):
        scores = readout[graph.n_users :] @ readout[user]
        scores[graph.edges[1, graph.edges[0] == user].long()] = -torch.inf
        assert top[row].tolist() == scores.argsort(descending=True)[:5].tolist()


def test_recall_and_ndcg_by_hand() -> None:
    """One user, two held-out items, one of them found in second place of two."""
    readout = torch.tensor([[1.0], [0.9], [0.8], [0.1], [0.0]])  # user, then items 0..3
    seen = InteractionGraph(1, 4, torch.zeros(2, 0, dtype=torch.long))
    held_out = InteractionGraph(1, 4, torch.tensor([[0, 0], [1, 3]]))

    quality = ranking_quality(readout, seen, held_out, n=2)

    assert quality.recall == pytest.approx(0.5)
    discount = 1 / torch.log2(torch.tensor(3.0)).item()
    assert quality.ndcg == pytest.approx(discount / (1 + discount))
    assert quality.n_users == 1
