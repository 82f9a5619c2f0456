"""Making bases: from what SQL holds to a version that the pipeline can forget from, once it has an encoder."""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from sqlalchemy import Connection

from model_store import Array, Manifest, ManifestFacts, ModelStore, StoreError
from service.audit import service as audit
from service.compaction import repository as compactions
from service.interactions.service import Snapshot, dataset_hash, snapshot
from service.models import service as models
from service.models.problems import FarWorse, NothingToLearn, TrainingOvertaken, VersionFenced
from service.platform.clock import Clock, SystemClock
from service.platform.database import Database
from service.platform.gauges import package_version
from service.platform.problem import Problem
from service.recommender.backbones import Backbone, LightGCN
from service.recommender.backbones.registry import BackboneUnavailable, is_built_in
from service.recommender.graph import InteractionGraph
from service.recommender.ranking import RankingQuality
from service.recommender.sampling import split_validation
from service.recommender.soundness import RankingComparison, Unsound, cause_of, judge
from service.recommender.training import EpochReport, Training, TrainingConfig, TrainingResult
from service.settings import Settings
from service.unlearning.protocol import ForgetResult
from service.unlearning.state import TrainedState
from service.worker.engine import (
    BASE,
    EMBEDDINGS,
    embedding_tensors,
)
from service.worker.repository import journal, lineage
from service.worker.retention import TRAINING

EPOCH_OF_TRAINERS = 0  # batches of workers have epochs from 1
FAR_WORSE = 0.5  # of the NDCG of the base in use, each on pairs that it has not learnt
VALIDATION_PAIRS = 3_000  # enough for a stable NDCG and for the quantiles of the calibration


@dataclass(frozen=True)
class BaseConfig:
    """How a base is trained."""

    backbone: Backbone = field(default_factory=LightGCN)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    validation_share: float | None = None
    """Share of the interactions that is held out for stopping, calibration and the gate, in (0, 1); None: 2 %, or more
    where that would be fewer than VALIDATION_PAIRS, but at most 10 %."""
    adopted: str | None = None
    """SHA-256, hex, of the file of a base that was trained elsewhere; it has no training on record."""
    accept_worse: bool = False
    """Whether it may be published though it ranks far worse than the base in use."""

    @property
    def cause(self) -> str:
        """The likely cause where the model comes to nothing."""
        if self.adopted is not None:
            return (
                "Likely causes are the scale of the vectors, rows in another order than their ids, and scores that are "
                "no inner products: mend the file."
            )
        return cause_of(max(self.training.learning_rate, self.training.final_learning_rate))

    def share_of(self, n_interactions: int) -> float:
        """The share that is held out of so many interactions."""
        if self.validation_share is not None:
            return self.validation_share
        return min(0.1, max(0.02, VALIDATION_PAIRS / max(n_interactions, 1)))


@dataclass(frozen=True)
class PublishedBase:
    """A base that was published; `live` where it answers already, else the worker moves there by itself."""

    version: int
    live: bool
    training: TrainingResult
    n_users: int
    n_items: int
    n_edges: int
    n_validation: int


@dataclass(frozen=True)
class UnpublishedBase:
    """A base that is not published yet: what it learnt from, in rows of the snapshot, what it learnt, and how."""

    data: Snapshot
    state: TrainedState
    config: BaseConfig
    result: TrainingResult


def train_base(
    database: Database,
    store: ModelStore,
    settings: Settings,
    config: BaseConfig,
    progress: Callable[[EpochReport], None] | None = None,
    *,
    go_live: bool = False,
    clock: Clock | None = None,
) -> PublishedBase:
    """Train a base from scratch on everything recorded and not suppressed, and publish it.

    The first base goes live at once. A later one is only published, unless `go_live`: then the worker moves to it as
    soon as it has an encoder (`pretrain`). Erasures that were forgotten since its data was read are forgotten again
    from this base first, and live moves to the result.

    Args:
        database: where the interactions are.
        store: where the base goes.
        settings: its checkpoint lies under `settings.home`, so that an interrupted training is taken up again.
        config: backbone, training, validation share.
        progress: told after each epoch.
        go_live: whether a base that is not the first is to be used.
        clock: gives the instants on record.

    Raises:
        NothingToLearn: too few interactions.
        Unsound: the training diverged, or its model must not serve; nothing is published.
        FarWorse: the model ranks far worse than the base in use; nothing is published.
        TrainingOvertaken: another training was published at the same time.
    """
    with database.read() as connection:
        data = snapshot(connection)
    checkpoint = _checkpoint(settings, data)
    learnt = learn(settings, data, config, checkpoint, progress)
    try:
        base = publish_base(database, store, learnt, go_live=go_live, clock=clock)
    except (Unsound, TrainingOvertaken):
        checkpoint.unlink(missing_ok=True)  # going on from it would lead there again
        raise
    checkpoint.unlink(missing_ok=True)
    return base


def learn(
    settings: Settings,
    data: Snapshot,
    config: BaseConfig,
    checkpoint: Path,
    progress: Callable[[EpochReport], None] | None = None,
) -> UnpublishedBase:
    """Train a base on these data, going on from the checkpoint where there is one; publishes nothing.

    Raises:
        NothingToLearn, Unsound: as `train_base`.
    """
    graph, validation = _split(data, config)
    result = _train(settings, checkpoint, graph, validation, config, progress)
    return UnpublishedBase(data, TrainedState(graph, validation, result.e0.cpu(), config.backbone), config, result)


def base_without_encoder(database: Database, config: BaseConfig) -> PublishedBase | None:
    """The newest base, where it is just what `train_base` would make now and has no encoder yet; else None.

    A training that was interrupted between the two is taken up there.
    """

    def unit(connection: Connection) -> tuple[Snapshot, lineage.LineageVersion | None, int | None]:
        return snapshot(connection), lineage.newest_base(connection), lineage.alias(connection, lineage.LIVE)

    data, row, live = database.query(unit)
    if row is None or row.manifest.get("encoders"):
        return None
    facts, metrics = row.manifest.get("config") or {}, row.manifest.get("metrics") or {}
    made = {**_training_facts(data, config), "snapshot_seq": facts.get("snapshot_seq")}
    if row.manifest.get("dataset_hash") != dataset_hash(data) or facts != json.loads(json.dumps(made)):
        return None
    graph, validation = _split(data, config)
    quality = RankingQuality(metrics["recall_at_20"], metrics["ndcg_at_20"], 0)
    result = TrainingResult(torch.empty(0), int(metrics["best_epoch"]), int(metrics["epochs"]), quality, 0.0, ())
    sizes = (graph.n_users, graph.n_items, graph.n_edges, validation.shape[1])
    return PublishedBase(row.version, live == row.version, result, *sizes)


def promote_base(database: Database, number: int, clock: Clock | None = None) -> None:
    """Have the next versions derive from a base that is published already."""
    at = (clock or SystemClock()).now()
    database.transact(lambda connection: lineage.point_base(connection, number, at))


def publish_base(
    database: Database,
    store: ModelStore,
    learnt: UnpublishedBase,
    *,
    go_live: bool = False,
    clock: Clock | None = None,
    on_register: Callable[[Connection, int], None] | None = None,
) -> PublishedBase:
    """Publish a base that was trained, and put it on record, as `train_base` does.

    With `on_register`, which is given its number in the transaction that does so and may refuse by raising, it is put
    on record as held: it may not serve before that is changed, and no alias moves.

    Raises:
        Unsound, FarWorse: the model must not serve.
        TrainingOvertaken: another training was published at the same time, or a compaction took later data for one:
            what is purged since then would come back by this one.
    """
    clock = clock or SystemClock()
    data, state, config, result = learnt.data, learnt.state, learnt.config, learnt.result
    with torch.no_grad():
        judged = judge(state.readout, state.graph, state.validation, config.cause)
    database.query(lambda connection: _refuse_far_worse(connection, judged, config))
    files = {BASE: _arrays(state), EMBEDDINGS: _embeddings(state, data)}
    manifest = _publish_base(database, store, files, _base_facts(data, config, result, judged, clock), clock)

    def unit(connection: Connection) -> bool:
        audit.reserve(connection, 0)
        _settle_training(connection, manifest, data.seq, clock)
        if on_register is None:
            return _register(connection, manifest, data.seq, go_live, clock)
        models.register(connection, manifest, erasure_seq=data.seq, at=clock.now(), status="held")
        on_register(connection, manifest.number)
        return False

    try:
        live = database.transact(unit)
    except Exception:
        with contextlib.suppress(Problem, StoreError):  # what cannot be taken away now is the sweeper's
            withdraw(database, store, manifest.number, clock)
        raise
    if live:
        store.set_alias(lineage.LIVE, manifest.number)
    facts = state.facts()
    sizes = {name: facts[name] for name in ("n_users", "n_items", "n_edges", "n_validation")}
    return PublishedBase(manifest.number, live, result, **sizes)


def _split(data: Snapshot, config: BaseConfig) -> tuple[InteractionGraph, torch.Tensor]:
    n_users, n_items = len(data.user_keys), len(data.item_keys)
    graph = InteractionGraph(n_users, n_items, torch.from_numpy(data.edges.reshape(2, -1)))
    graph, validation = split_validation(graph, config.share_of(graph.n_edges), config.training.seed)
    if n_users < 2 or n_items < 2 or not validation.shape[1]:
        raise NothingToLearn
    return graph, validation


def withdraw(database: Database, store: ModelStore, number: int, clock: Clock) -> None:
    """Take a base out of the store that was published and is not to be put on record."""

    def unit(connection: Connection) -> bool:
        for batch in journal.unfinished(connection, TRAINING):
            if batch.version == number:
                journal.finish(connection, batch.id, "abandoned", clock.now())
        return lineage.version(connection, number) is None

    if database.transact(unit):
        store.purge("versions", number)


def _train(
    settings: Settings,
    checkpoint: Path,
    graph: InteractionGraph,
    validation: torch.Tensor,
    config: BaseConfig,
    progress: Callable[[EpochReport], None] | None,
) -> TrainingResult:
    use_threads(settings)
    checkpoint.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    run = Training(config.backbone, graph, validation, config.training)
    try:
        return run.run_afresh_or_on(progress, checkpoint)
    except (Problem, ArithmeticError, OSError):
        raise
    except Exception as error:
        name = config.backbone.name
        if is_built_in(name):
            raise
        raise BackboneUnavailable(name, f"its training fails with {type(error).__name__}") from error


def _publish_base(
    database: Database, store: ModelStore, files: Mapping[str, Mapping[str, Array]], facts: ManifestFacts, clock: Clock
) -> Manifest:
    """Publish under a number reserved in the journal, so that whoever finds an unfinished one knows what it was."""
    stored = max(store.numbers("versions"), default=0)

    def unit(connection: Connection) -> int:
        for stale in journal.unfinished(connection, TRAINING):
            journal.finish(connection, stale.id, "abandoned", clock.now())
        batch = journal.open_batch(connection, epoch=EPOCH_OF_TRAINERS, step=TRAINING, size=0, now=clock.now())
        return journal.reserve(connection, batch, stored)

    number = database.transact(unit)
    return store.publish("versions", number, files, facts)


def _settle_training(connection: Connection, manifest: Manifest, seq: int, clock: Clock) -> None:
    mine = [batch for batch in journal.unfinished(connection, TRAINING) if batch.version == manifest.number]
    if not mine or not journal.finish(connection, mine[0].id, "settled", clock.now()):
        raise TrainingOvertaken
    if seq < compactions.newest_snapshot(connection):
        raise TrainingOvertaken("A compaction has read the interactions since, and purges what it did without.")


def _register(connection: Connection, manifest: Manifest, seq: int, go_live: bool, clock: Clock) -> bool:
    """Put a base on record; the first one goes live, a later one that is wanted is left to the worker."""
    now, number = clock.now(), manifest.number
    models.register(connection, manifest, erasure_seq=seq, at=now)
    first = lineage.alias(connection, lineage.LIVE) is None
    if first or go_live:
        lineage.point_base(connection, number, now)
    if not first:
        return False
    try:
        models.move_alias(connection, models.LIVE, number, now, fenced=False)
    except VersionFenced:
        return False
    return True


def _refuse_far_worse(connection: Connection, judged: RankingComparison, config: BaseConfig) -> None:
    number = lineage.wanted_base(connection)
    row = None if number is None else lineage.version(connection, number)
    before = 0.0 if row is None else float((row.manifest.get("metrics") or {}).get("ndcg_at_20") or 0.0)
    if config.accept_worse or judged.model.ndcg >= FAR_WORSE * before:
        return
    msg = (
        f"Its validation NDCG@20 is {judged.model.ndcg:.4f}, that of base {number}, which is in use, {before:.4f}. "
        f"{config.cause}"
    )
    raise FarWorse(msg)


def _base_facts(
    data: Snapshot, config: BaseConfig, result: TrainingResult, judged: RankingComparison, clock: Clock
) -> ManifestFacts:
    facts = _training_facts(data, config)
    metrics = _quality(result.validation) | {"epochs": result.epochs, "best_epoch": result.best_epoch}
    metrics["popularity_ndcg_at_20"] = judged.popularity
    metrics["ndcg_at_20_error"] = judged.model.ndcg_error
    return ManifestFacts(
        kind="base",
        dataset_hash=dataset_hash(data),
        code_version=package_version(),
        seed=config.training.seed,
        created_at=clock.now(),
        config=facts,
        metrics=metrics,
    )


def _training_facts(data: Snapshot, config: BaseConfig) -> dict[str, Any]:
    """How a base is made, for its manifest; what may differ by data is in `dataset_hash`."""
    facts: dict[str, Any] = {"backbone": config.backbone.config(), "snapshot_seq": data.seq}
    if config.adopted is None:
        facts |= {"training": asdict(config.training), "validation_share": config.share_of(data.edges.size // 2)}
    else:
        facts["adopted"] = config.adopted
    return facts


def _quality(quality: RankingQuality) -> dict[str, float]:
    return {"recall_at_20": quality.recall, "ndcg_at_20": quality.ndcg}


def _arrays(state: TrainedState) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in state.tensors().items()}


def _embeddings(state: TrainedState, data: Snapshot) -> dict[str, Array]:
    return embedding_tensors(ForgetResult(state.e0, state.readout, state.graph), data.user_keys, data.item_keys)


def _checkpoint(settings: Settings, data: Snapshot) -> Path:
    return settings.home / "checkpoints" / f"{dataset_hash(data)[:16]}.npz"


def use_threads(settings: Settings) -> None:
    """As many as the settings ask for."""
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
