"""`expunge train` and `pretrain`: make a base, and the influence encoder by which it forgets."""

from __future__ import annotations

import json
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.context import Json, open_home, print_result, settings_of
from service.cli.failures import INTERRUPTED, Refusal
from service.cli.imported import quality_on_test_part
from service.cli.terminal import ProgressCallback, Terminal, duration
from service.erasures.modes import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from service.cli.context import Home
    from service.recommender.ranking import RankingQuality
    from service.recommender.training import EpochReport, TrainingConfig
    from service.unlearning.pretraining import PretrainingReport
    from service.worker.encoders import PublishedEncoder
    from service.worker.training import BaseConfig, PublishedBase


WITHOUT_ENCODER = "It cannot forget yet: erasures wait until `expunge pretrain` has made its encoder."


class Readout(StrEnum):
    """How a backbone puts its layers together; it sets the scale of the scores."""

    MEAN = "mean"
    SUM = "sum"


# What is left out stays as the learning packages have it; reading their defaults here would import torch.
Dimension = Annotated[int | None, typer.Option("--dimension", min=1, help="Width of the embeddings.")]
Layers = Annotated[int | None, typer.Option("--layers", min=0, help="Layers of propagation.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", min=2, help="Interactions in a step.")]
Rate = Annotated[float | None, typer.Option("--learning-rate", min=1e-9, help="Step size of Adam.")]
FinalRate = Annotated[float | None, typer.Option("--final-learning-rate", help="Step size in the last epoch.")]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, help="Most passes; validation stops it earlier.")]
Patience = Annotated[int | None, typer.Option("--patience", min=1, help="Epochs without progress before it stops.")]
GoLive = Annotated[bool, typer.Option("--go-live", help="Use this base even if another one serves now.")]
AcceptWorse = Annotated[
    bool, typer.Option("--accept-worse", help="Publish it even if it ranks far worse than the base in use.")
]
NoPretrain = Annotated[
    bool, typer.Option("--no-pretrain", help="Leave the encoder to `expunge pretrain`; erasures wait for it.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Decides everything that is random.")]


def train(
    context: typer.Context,
    backbone: Annotated[
        str,
        typer.Option(
            "--backbone",
            help="lightgcn, lightgcn_softmax, matrix_factorisation, sgl, simgcl, or one from a package of yours.",
        ),
    ] = "lightgcn",
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Another option of the backbone.")
    ] = None,
    dimension: Dimension = None,
    layers: Layers = None,
    readout: Annotated[Readout | None, typer.Option("--readout", help="Mean or sum over the layers.")] = None,
    weight_decay: Annotated[float | None, typer.Option("--weight-decay", min=0, help="Weight of the L2 term.")] = None,
    batch_size: BatchSize = None,
    learning_rate: Rate = None,
    final_learning_rate: FinalRate = None,
    epochs: Epochs = None,
    patience: Patience = None,
    seed: Seed = 0,
    go_live: GoLive = False,
    accept_worse: AcceptWorse = False,
    no_pretrain: NoPretrain = False,
    json_file: Json = None,
) -> None:
    """Train a base on everything recorded and not suppressed, and the influence encoder by which it forgets.

    The first base serves at once. A training that was interrupted is taken up where it stopped.
    """
    from service.interactions.service import count_recorded
    from service.recommender.backbones import make_backbone
    from service.worker.training import BaseConfig, base_without_encoder, promote_base, train_base

    config = {
        "embedding_size": dimension,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "final_learning_rate": final_learning_rate or learning_rate,
        "epochs": epochs,
        "patience": patience,
    }
    options = {"layers": layers, "readout": readout and readout.value, "weight_decay": weight_decay}
    try:
        chosen = make_backbone({"name": backbone, **_together(_given(options), _parsed(option))})
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    settings, terminal = settings_of(context), Terminal()
    with open_home(settings, upgrade=True) as home, training_alone(home):
        n_recorded = home.database.query(count_recorded)
        recipe = BaseConfig(chosen, _training(n_recorded, seed, _given(config)), accept_worse=accept_worse)
        if dimension is None and n_recorded:
            terminal.say(default_told(recipe.training.embedding_size, n_recorded))
        base = None if no_pretrain else base_without_encoder(home.database, recipe)
        if base is None:
            again = "Stopped; each epoch that ended is kept. Run the same command again to go on from there."
            with stopping(again), terminal.step("Training", "epochs", recipe.training.epochs) as progress:
                base = train_base(home.database, home.store, settings, recipe, epochs_told(progress), go_live=go_live)
        else:
            terminal.say(f"Base {base.version} is trained already; what it lacks is its encoder.")
            if go_live:
                promote_base(home.database, base.version)
        test = quality_on_test_part(home, base.version)
        encoder = None if no_pretrain else pretrain_base(home, terminal, base.version, seed)
    document = _base_document(base, recipe, test) | {"encoder": encoder and encoder_document(encoder, Mode.FORGET)}
    text = [_base_text(base, test)]
    text.append(WITHOUT_ENCODER if encoder is None else encoder_text(encoder, Mode.FORGET))
    print_result(json_file, document, "\n".join(text))


def pretrain_base(home: Home, terminal: Terminal, base: int, seed: int = 0) -> PublishedEncoder:
    """Make a base able to forget, with the defaults of `expunge pretrain`."""
    from service.unlearning.pretraining import PretrainingConfig
    from service.worker.encoders import pretrain as pretrain_encoder

    config, command = PretrainingConfig(seed=seed), f"expunge pretrain --base {base}"
    again = f"Stopped. Base {base} is kept, and cannot forget yet: `{command}` goes on with its encoder."
    with stopping(again), terminal.step("Pre-training", "epochs") as progress:
        return pretrain_encoder(home.database, home.store, home.settings, config, steps_told(progress), base=base)


@contextmanager
def training_alone(home: Home) -> Iterator[None]:
    """Train while nobody else does in this home: a compaction purges what others train on.

    Raises:
        TrainingUnderway: somebody does.
    """
    import threading

    from service.compaction.problems import TrainingUnderway
    from service.platform.clock import SystemClock
    from service.worker.lease import COMPACTOR, Lease

    lease = Lease(home.database, seconds=home.settings.lease_seconds, clock=SystemClock(), name=COMPACTOR)
    if not lease.acquire(threading.Event(), 1.5 * home.settings.lease_seconds, until_heard=True):
        raise TrainingUnderway
    try:
        yield
    finally:
        lease.release()


@contextmanager
def stopping(sentence: str) -> Iterator[None]:
    """Say on Ctrl-C what is kept, and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Refusal(sentence, INTERRUPTED) from None


def pretrain(
    context: typer.Context,
    mode: Annotated[Mode, typer.Option("--mode", help="What the encoder is for.")] = Mode.FORGET,
    steps: Annotated[int | None, typer.Option("--steps", min=0, help="Steps of Adam.")] = None,
    batch_size: BatchSize = None,
    learning_rate: Rate = None,
    seed: Seed = 0,
    base: Annotated[int | None, typer.Option("--base", help="Version to make it for [the one in use].")] = None,
    published: Annotated[
        bool, typer.Option("--published", help="The encoder alone, without shadow and correction.")
    ] = False,
    json_file: Json = None,
) -> None:
    """Pre-train the influence encoder of a base, by which it forgets; `train` and `adopt` do it by themselves.

    Mode forget trains one more model, a shadow, on all but a few interactions, and learns from it what a forgotten
    pair should score; the other mode then learns from the same shadow. With --published it is UnlearnRec as its paper
    has it.
    """
    from service.unlearning.pretraining import PretrainingConfig
    from service.worker.encoders import pretrain as pretrain_encoder

    given = _given({"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate})
    recipe = (PretrainingConfig.published if published else PretrainingConfig)(mode=mode.value, seed=seed, **given)
    settings = settings_of(context)
    again = "Stopped; the shadow's epochs that ended are kept. Run the same command again to go on from there."
    step = Terminal().step("Pre-training", "steps")
    with open_home(settings, upgrade=True) as home, training_alone(home), stopping(again), step as progress:
        encoder = pretrain_encoder(home.database, home.store, settings, recipe, steps_told(progress), base=base)
    print_result(json_file, encoder_document(encoder, mode), encoder_text(encoder, mode))


def _parsed(options: list[str] | None) -> dict[str, Any]:
    """`name=value`, the value as JSON where it is some, else as text."""
    parsed: dict[str, Any] = {}
    for each in options or ():
        name, separator, value = each.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{each!r} is no NAME=VALUE.")
        if name in parsed:
            raise typer.BadParameter(f"--option {name}=... is given twice.")
        try:
            parsed[name] = json.loads(value)
        except ValueError:
            parsed[name] = value
    return parsed


def _together(given: dict[str, Any], parsed: dict[str, Any]) -> dict[str, Any]:
    """Options of their own and those of --option; raises BadParameter for one that is given twice, or names itself."""
    for name in parsed:
        if name in given or name == "name":
            raise typer.BadParameter(f"--option {name}=... is given by an option of its own.")
    return given | parsed


def _training(n_recorded: int, seed: int, given: dict[str, Any]) -> TrainingConfig:
    from service.recommender.defaults import default_training

    try:
        return default_training(n_recorded, seed=seed, **given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def default_told(dimension: int, n_interactions: int) -> str:
    """The width that was chosen, and why."""
    return f"{dimension} dimensions: the default for {n_interactions:,} interactions."


def epochs_told(progress: ProgressCallback) -> Callable[[EpochReport], None]:
    """A progress callback for trainings."""

    def told(report: EpochReport) -> None:
        note = f"NDCG@20 {report.quality.ndcg:.3f}"
        progress(report.epoch + 1, report.epochs, note)

    return told


def steps_told(progress: ProgressCallback) -> Callable[[PretrainingReport], None]:
    """A progress callback for pre-trainings."""

    def told(report: PretrainingReport) -> None:
        progress(report.step, report.steps, f"{report.stage}, loss {report.loss:.3f}")

    return told


def _base_document(base: PublishedBase, recipe: BaseConfig, test: RankingQuality | None) -> dict[str, Any]:
    return {
        "version": base.version,
        "live": base.live,
        "backbone": recipe.backbone.config(),
        "dimension": recipe.training.embedding_size,
        "n_users": base.n_users,
        "n_items": base.n_items,
        "n_edges": base.n_edges,
        "n_validation": base.n_validation,
        "epochs": base.training.epochs,
        "best_epoch": base.training.best_epoch + 1,
        "validation": {
            "recall_at_20": base.training.validation.recall,
            "ndcg_at_20": base.training.validation.ndcg,
        },
        "test": None
        if test is None
        else {"recall_at_20": test.recall, "ndcg_at_20": test.ndcg, "n_users": test.n_users},
        "seconds": base.training.seconds,
    }


def _base_text(base: PublishedBase, test: RankingQuality | None) -> str:
    quality = base.training.validation
    where = "It serves now." if base.live else "It does not serve yet."
    took = f", {duration(base.training.seconds)}" if base.training.seconds else ""
    found = (
        f"\nTest part of the import: Recall@20 {test.recall:.4f}, NDCG@20 {test.ndcg:.4f}, {test.n_users:,} users."
        if test is not None
        else ""
    )
    return (
        f"Base {base.version}: {base.n_users:,} users, {base.n_items:,} items, {base.n_edges:,} interactions learnt, "
        f"{base.n_validation:,} held out.\n"
        f"Validation Recall@20 {quality.recall:.4f}, NDCG@20 {quality.ndcg:.4f} after epoch "
        f"{base.training.best_epoch + 1} of {base.training.epochs}{took}. {where}{found}"
    )


def encoder_document(encoder: PublishedEncoder, mode: Mode) -> dict[str, Any]:
    """What `--json` says of an encoder that was made."""
    result = encoder.pretraining
    return {
        "encoder": encoder.number,
        "base": encoder.base,
        "mode": mode.value,
        "chosen_step": result.steps,
        "seconds": result.seconds,
        "shadow_seconds": result.shadow_seconds,
        "score": result.judgement.score,
        "quality_ratio": result.judgement.quality_ratio,
    }


def encoder_text(encoder: PublishedEncoder, mode: Mode) -> str:
    """The same for people."""
    result = encoder.pretraining
    how = f"the one of step {result.steps} was best on held-out requests" if result.steps else "corrects revoked pairs"
    shadow = f" (its shadow {duration(result.shadow_seconds)})" if result.shadow_seconds else ""
    return (
        f"Encoder {encoder.number} for base {encoder.base}, mode {mode.value}: {how}, with "
        f"{result.judgement.quality_ratio:.1%} of the base's NDCG on simulated ones. {duration(result.seconds)}"
        f"{shadow}."
    )
