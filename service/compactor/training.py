"""A compaction's trainings themselves; the only module of this package that imports torch."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, get_args

from sqlalchemy import Connection

from model_store import ModelStore
from service.compaction import repository as compactions
from service.compaction.steps import CompactionStatus
from service.compactor.files import CompactionFiles
from service.compactor.jobs import AttemptRefused, HopelessTraining, Report, TrainingJob, TrainingTrouble
from service.models.problems import NothingToLearn, TrainingOvertaken
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.recommender.backbones import LightGCN, make_backbone
from service.recommender.backbones.registry import BackboneUnavailable, UnknownBackbone
from service.recommender.defaults import default_training
from service.recommender.soundness import Unsound
from service.recommender.training import EpochReport, TrainingConfig
from service.settings import Settings
from service.unlearning.encoder import EncoderConfig
from service.unlearning.pretraining import PretrainingConfig, PretrainingReport
from service.unlearning.request import Mode
from service.worker.encoders import pretrain
from service.worker.lease import COMPACTOR, Fenced
from service.worker.repository import leases
from service.worker.training import BaseConfig, learn, publish_base

SHADOW_SHARE = 0.8
"""Of a pre-training's time, that its shadow takes."""


def perform(job: TrainingJob, settings: Settings, database: Database, store: ModelStore, report: Report) -> None:
    """Train a base, or pre-train an encoder, and put it on record; taken up where an earlier try of it stopped.

    Raises:
        AttemptRefused: the model must not serve.
        HopelessTraining: there is too little to learn from, or the backbone is not there.
        TrainingTrouble: the training data are not on this machine.
        Fenced, TrainingOvertaken: another compactor is at it, or it was cancelled; nothing was put on record.
        Problem, StoreError: database or store failed.
    """
    try:
        if job.kind == "training":
            _train(job, settings, database, store, report)
        else:
            _pretrain(job, settings, database, store, report)
    except Unsound as error:
        raise AttemptRefused({"reasons": ["unsound"], "detail": str(error)}) from error
    except NothingToLearn as error:
        raise HopelessTraining(error.code) from error
    except (BackboneUnavailable, UnknownBackbone) as error:
        raise HopelessTraining("backbone_unavailable") from error


def base_config(recipe: Mapping[str, Any], attempt: int, n_interactions: int) -> BaseConfig:
    """How the base in use was made, with the attempt's seed; the defaults for one that was trained elsewhere."""
    known = recipe.get("training")
    if known is None:
        return BaseConfig(LightGCN(), default_training(n_interactions, seed=attempt - 1), accept_worse=True)
    training = TrainingConfig(**_known_fields(TrainingConfig, known))
    training = replace(training, seed=training.seed + attempt - 1)
    return BaseConfig(make_backbone(recipe["backbone"]), training, accept_worse=True)


def encoder_config(recipe: Mapping[str, Any], mode: str, attempt: int) -> PretrainingConfig:
    """How the encoder in use was made, with the attempt's seed; the defaults where nobody knows."""
    (chosen,) = (each for each in get_args(Mode) if each == mode)
    given = _known_fields(PretrainingConfig, recipe)
    if "encoder" in given:
        given["encoder"] = EncoderConfig(**_known_fields(EncoderConfig, given["encoder"]))
    config = PretrainingConfig(**{**given, "mode": chosen})
    return replace(config, seed=config.seed + attempt - 1)


def _train(job: TrainingJob, settings: Settings, database: Database, store: ModelStore, report: Report) -> None:
    files, clock = CompactionFiles(settings.home, job.compaction), SystemClock()
    data = files.load()
    if data is None:
        raise TrainingTrouble("snapshot_missing")
    config = base_config(job.recipe, job.attempt, data.edges.size // 2)

    def epochs(epoch: EpochReport) -> None:
        report((epoch.epoch + 1) / epoch.epochs, f"epoch {epoch.epoch + 1} of {epoch.epochs}")

    def on_register(connection: Connection, number: int) -> None:
        _confirm(connection, job)
        compactions.change(connection, job.compaction, (CompactionStatus.RUNNING,), base_after=number)

    learnt = learn(settings, data, config, files.checkpoint(job.attempt), epochs)
    publish_base(database, store, learnt, clock=clock, on_register=on_register)


def _pretrain(job: TrainingJob, settings: Settings, database: Database, store: ModelStore, report: Report) -> None:
    config = encoder_config(job.recipe, job.mode or "", job.attempt)

    def steps(step: PretrainingReport) -> None:
        done = step.step / max(step.steps, 1)
        share = SHADOW_SHARE * done if step.stage == "shadow" else SHADOW_SHARE + (1 - SHADOW_SHARE) * done
        report(share, f"{step.stage} {step.step} of {step.steps}")

    pretrain(
        database, store, settings, config, steps, base=job.base, on_choose=lambda connection: _confirm(connection, job)
    )


def _confirm(connection: Connection, job: TrainingJob) -> None:
    """Make sure that the compactor that asked for this still holds its lease, and the compaction still runs."""
    if not leases.beat(connection, COMPACTOR, job.epoch, SystemClock().now()):
        raise Fenced
    row = compactions.find(connection, job.compaction)
    if row is None or row.status != CompactionStatus.RUNNING or row.attempt != job.attempt:
        raise TrainingOvertaken("The compaction that it belongs to was cancelled.")


def _known_fields(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """What another version put on record and this one does not know is left out."""
    known = {each.name for each in fields(kind)}
    return {name: value for name, value in given.items() if name in known}
