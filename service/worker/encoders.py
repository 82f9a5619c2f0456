"""Making influence encoders: what a base needs before anything can be forgotten from it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import isfinite

from sqlalchemy import Connection

from model_store import Array, Manifest, ManifestFacts, ModelStore, VersionExists
from service.audit import service as audit
from service.audit.service import AuditEvent
from service.models.problems import NoBase, TrainingOvertaken
from service.platform.clock import Clock, SystemClock
from service.platform.database import Database
from service.platform.gauges import package_version
from service.recommender.soundness import Unsound, cause_of
from service.recommender.training import TrainingConfig
from service.settings import Settings
from service.unlearning.expectation import Expectation
from service.unlearning.pretraining import Pretraining, PretrainingConfig, PretrainingReport, PretrainingResult
from service.unlearning.request import Mode
from service.worker.engine import ENCODER, LoadedBase, load_base, load_encoder
from service.worker.repository import lineage
from service.worker.training import use_threads

ENCODER_TRIES = 5
WORST_RATIO = 0.5  # of the base's NDCG on simulated requests; good encoders are at .97 and more


@dataclass(frozen=True)
class PublishedEncoder:
    """An influence encoder that was published for a base."""

    number: int
    base: int
    pretraining: PretrainingResult


def pretrain(
    database: Database,
    store: ModelStore,
    settings: Settings,
    config: PretrainingConfig,
    progress: Callable[[PretrainingReport], None] | None = None,
    *,
    base: int | None = None,
    clock: Clock | None = None,
    on_choose: Callable[[Connection], None] | None = None,
) -> PublishedEncoder:
    """Pre-train an influence encoder for a base and use it from now on for erasures of its mode.

    What a shadow taught the base's encoder of the other mode serves this one, too: it is not trained twice.

    Args:
        database: which base is used, and where the encoder is put on record.
        store: where the base is and the encoder goes.
        settings: the number of threads.
        config: mode, steps, weights.
        progress: told after each step.
        base: its version number; by default the one that versions come from now.
        clock: gives the instants on record.
        on_choose: runs in the transaction that puts the encoder on record, and may refuse by raising.

    Raises:
        NoBase: there is none.
        Unsound: the pre-training diverged, or its encoder spoils the model; nothing is published.
    """
    number = base or _wanted_base(database)
    use_threads(settings)
    loaded = load_base(store, number)
    training = _training_of(loaded.manifest)
    taught = _taught(database, store, loaded, config.mode)
    checkpoint = settings.home / "checkpoints" / f"shadow-{number}-{loaded.manifest.checksum[:12]}.npz"
    checkpoint.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    result = Pretraining(loaded.state, config, training, taught, checkpoint).run(progress)
    _refuse_unsound(result, config)
    encoder = publish_encoder(database, store, number, config, result, clock=clock, on_choose=on_choose)
    checkpoint.unlink(missing_ok=True)
    return encoder


def _refuse_unsound(result: PretrainingResult, config: PretrainingConfig) -> None:
    """An encoder that spoils the model by itself would have the gate refuse every version; raises Unsound."""
    finite = all(
        bool(tensor.isfinite().all()) for tensor in result.encoder.tensors().values() if tensor.is_floating_point()
    )
    ratio = result.judgement.quality_ratio
    if finite and isfinite(result.judgement.score) and ratio >= WORST_RATIO:
        return
    what = f"it leaves {ratio:.1%} of the base's NDCG" if finite else "it holds values that are not finite"
    msg = f"The encoder must not be used: {what}. {cause_of(config.learning_rate, PretrainingConfig.learning_rate)}"
    raise Unsound(msg)


def publish_encoder(
    database: Database,
    store: ModelStore,
    base: int,
    config: PretrainingConfig,
    result: PretrainingResult,
    *,
    clock: Clock | None = None,
    on_choose: Callable[[Connection], None] | None = None,
) -> PublishedEncoder:
    """Publish an encoder that was pre-trained for a base, and use it from now on, as `pretrain` does.

    Raises:
        NoBase: the base is not on record.
    """
    clock = clock or SystemClock()
    facts = ManifestFacts(
        kind="encoder",
        dataset_hash=store.manifest("versions", base).facts.dataset_hash,
        code_version=package_version(),
        seed=config.seed,
        created_at=clock.now(),
        parent=base,
        config={"mode": config.mode, "encoder": result.encoder.facts(), "pretraining": asdict(config)},
        metrics={"steps": result.steps, "judgement": asdict(result.judgement)},
    )
    files = {ENCODER: {name: tensor.numpy() for name, tensor in result.encoder.tensors().items()}}
    manifest = _publish_encoder(store, files, facts)

    def unit(connection: Connection) -> None:
        audit.reserve(connection, 0)
        if on_choose is not None:
            on_choose(connection)
        _choose(connection, base, config.mode, manifest, clock)

    database.transact(unit)
    return PublishedEncoder(manifest.number, base, result)


def _taught(database: Database, store: ModelStore, base: LoadedBase, mode: Mode) -> Expectation | None:
    """What a shadow taught the base's encoder of another mode."""
    row = database.query(lambda connection: lineage.version(connection, base.manifest.number))
    chosen = {} if row is None else row.manifest.get("encoders") or {}
    others = (load_encoder(store, number, base.state.e0.device) for name, number in chosen.items() if name != mode)
    return next((other.expectation for other in others if other is not None and other.expectation is not None), None)


def _training_of(manifest: Manifest) -> TrainingConfig | None:
    """The settings a base was trained with: its shadow is trained in the same way. None for an adopted base."""
    config = manifest.facts.config.get("training")
    return None if config is None else TrainingConfig(**config)


def _choose(connection: Connection, base: int, mode: str, manifest: Manifest, clock: Clock) -> None:
    """Use an encoder for a mode of a base from now on; the record of the base names it, its signed manifest cannot."""
    row = lineage.version(connection, base)
    if row is None:
        raise NoBase
    page = dict(row.manifest)
    page["encoders"] = {**(page.get("encoders") or {}), mode: manifest.number}
    lineage.set_manifest(connection, base, page)
    body = {"mode": mode, "encoder": manifest.number, "files": {n: f.sha256 for n, f in manifest.files.items()}}
    audit.write(connection, audit.reserve(connection), [AuditEvent("encoder.chosen", body, version=base)], clock.now())


def _publish_encoder(store: ModelStore, files: Mapping[str, Mapping[str, Array]], facts: ManifestFacts) -> Manifest:
    for _ in range(ENCODER_TRIES):
        number = max(store.numbers("encoders"), default=0) + 1
        try:
            return store.publish("encoders", number, files, facts)
        except VersionExists:  # another pre-training was faster
            continue
    raise TrainingOvertaken


def _wanted_base(database: Database) -> int:
    number = database.query(lineage.wanted_base)
    if number is None:
        raise NoBase
    return number
