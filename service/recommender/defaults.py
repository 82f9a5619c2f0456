"""The settings that suit how much there is to learn from, where nobody gave any."""

from typing import Any, Final

from service.recommender.training import TrainingConfig

SMALL_UP_TO: Final = 300_000
"""Interactions up to which SMALL is taken: between ML-100K, where it did best, and ML-1M, where the wide one did."""
SMALL: Final = {"embedding_size": 64, "batch_size": 2048, "final_learning_rate": 1e-3}
"""Of few interactions half the width learns as much, and smaller steps that get smaller end nearer to one another.
Chosen by validation NDCG@20 over several seeds: benchmarks/widths.py, benchmarks/results/widths."""


def default_training(n_interactions: int, **given: Any) -> TrainingConfig:
    """How a backbone is trained on so many interactions; what is given, fields of TrainingConfig, takes precedence."""
    return TrainingConfig(**({**SMALL, **given} if n_interactions <= SMALL_UP_TO else given))
