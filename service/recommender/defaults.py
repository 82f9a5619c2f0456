"""The settings that suit how much there is to learn from, where nobody gave any."""

from typing import Any, Final

from service.recommender.training import TrainingConfig

SMALL_UP_TO: Final = 300_000
"""Interactions up to which SMALL is taken: between ML-100K (90,570) and ML-1M (800,168), nearer to the former."""
SMALL: Final = {"embedding_size": 64, "batch_size": 2048, "final_learning_rate": 1e-3}
"""By validation NDCG@20 on ML-100K, 8 seeds (benchmarks/widths.py): 64 dimensions learn as much as 128 (+0.1 % with a
standard error of 1.2) in half the time, 256 no more, 32 less (-1.9, -2.7 %). Smaller steps that get smaller it does not
tell apart from level ones (+0.3 ± 1.4 %), but retrained models of other seeds end nearer to one another, and it is to
them that forgetting is compared."""


def default_training(n_interactions: int, **given: Any) -> TrainingConfig:
    """How a backbone is trained on so many interactions; what is given, fields of TrainingConfig, takes precedence."""
    return TrainingConfig(**({**SMALL, **given} if n_interactions <= SMALL_UP_TO else given))
