"""What the demonstration measured: the document that `--json` writes, key by key."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from service.evaluation.retraining_share import Estimate


@dataclass(frozen=True)
class DatasetFacts:
    """How large the data set is."""

    name: str
    n_users: int
    n_items: int
    n_train: int
    n_test: int


@dataclass(frozen=True)
class TrainFacts:
    """How the base was trained, and how good it is on the test part."""

    seconds: float
    epochs: int
    recall_at_20: float
    ndcg_at_20: float


@dataclass(frozen=True)
class PretrainFacts:
    """How the influence encoder was pre-trained."""

    seconds: float
    steps: int


@dataclass(frozen=True)
class ErasureFacts:
    """One erasure over REST. Seconds are the caller's, but for `seconds_apply`, the worker's unlearning step."""

    id: str
    requested: int
    matched: int
    seconds_accept: float
    seconds_forgotten: float
    seconds_apply: float
    version_before: int
    version_after: int
    fine_tune_epochs: int


@dataclass(frozen=True)
class Quality:
    """Ranking quality on the test part."""

    recall_at_20: float
    ndcg_at_20: float


@dataclass(frozen=True)
class MembershipFacts:
    """Can one tell from the scores that the erased pairs were learnt? See methods of `service.evaluation`."""

    auc_heldout: float
    p_erased: float
    p_heldout: float
    p_negative: float
    mi_bf: float
    mi_ng: float


@dataclass(frozen=True)
class RetrainFacts:
    """How long training from scratch on what remains takes."""

    seconds: float


@dataclass(frozen=True)
class Comparison:
    """The same ruler for three models: `before`, `after` and `retrain`, and how long the last one took.

    `membership` is measured on the first erasure's pairs. `after` has forgotten both erasures, `retrain` knew neither.
    """

    quality: dict[str, Quality]
    membership: dict[str, MembershipFacts]
    retrain: RetrainFacts


@dataclass(frozen=True)
class ListFacts:
    """How many of a user's first ten are the same, on average over the users of the second erasure; in [0, 10].

    `retrains` compares the two retrained models with each other: what chance alone does; None where there is one.
    """

    after_before: float
    before_retrain: float
    after_retrain: float
    retrains: float | None


@dataclass(frozen=True)
class ManyFacts:
    """The second erasure: a random share of all interactions, and what it did, on its pairs.

    By model (`before`, `after`, `retrain`, and `retrain_again`, of another seed, where there was time): `membership`,
    `auc` with its standard error, and the shares of the way from `before` to the mean of the retrained models, by mean
    score and by AUC.
    """

    erasure: ErasureFacts
    n_users: int
    membership: dict[str, MembershipFacts]
    auc: dict[str, Estimate]
    share_by_score: dict[str, Estimate]
    share_by_auc: dict[str, Estimate]
    lists: ListFacts


@dataclass(frozen=True)
class ErasedFacts:
    """The compaction that erased them: `residue_present` counts the stores in which the search found anything."""

    seconds: float
    base_before: int
    base_after: int
    receipt_verified: bool
    residue_present: int


@dataclass(frozen=True)
class DemoReport:
    """The document of `expunge demo --json`."""

    dataset: DatasetFacts
    train: TrainFacts
    pretrain: PretrainFacts
    erasure: ErasureFacts
    comparison: Comparison
    many: ManyFacts
    erased: ErasedFacts

    @property
    def speedup(self) -> float:
        """Seconds of retraining over seconds of the unlearning step."""
        return self.comparison.retrain.seconds / max(self.erasure.seconds_apply, 1e-9)

    def document(self) -> dict[str, Any]:
        """Plain values: dataset, train, pretrain, erasure, quality, membership, retrain, speedup, many, erased.

        What could not be told (a share of no way) is None.
        """
        facts = _plain(asdict(self))
        comparison = facts.pop("comparison")
        return {**facts, **comparison, "speedup": self.speedup}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
