"""`expunge adopt`: serve, and forget from, a model that was trained elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.context import Json, open_home, print_result, settings_of
from service.cli.data import (
    FormatName,
    ItemColumn,
    MinRating,
    RatingColumn,
    Separator,
    Strip,
    TimeColumn,
    UserColumn,
    reading_options,
)
from service.cli.learn import (
    WITHOUT_ENCODER,
    AcceptWorse,
    GoLive,
    NoPretrain,
    Readout,
    encoder_document,
    encoder_text,
    pretrain_base,
    training_alone,
)
from service.cli.terminal import Terminal
from service.erasures.modes import Mode

if TYPE_CHECKING:
    from service.recommender.backbones import Backbone
    from service.worker.adoption import AdoptionResult

EMBEDDINGS = typer.Option("--embeddings", metavar="FILE", help=".npz or .safetensors with matrices users and items.")
HELD_OUT = typer.Option(
    "--held-out", metavar="FILE", help="Recorded interactions that the model has not learnt: CSV, Parquet ..."
)


def adopt(
    context: typer.Context,
    embeddings: Annotated[Path, EMBEDDINGS],
    held_out: Annotated[Path, HELD_OUT],
    user_ids: Annotated[
        Path | None, typer.Option("--user-ids", metavar="FILE", help="Ids of the user rows, one a line.")
    ] = None,
    item_ids: Annotated[
        Path | None, typer.Option("--item-ids", metavar="FILE", help="Ids of the item rows, one a line.")
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(
            "--layers", min=1, help="The rows are layer 0 of a LightGCN with so many layers [they are final]."
        ),
    ] = None,
    readout: Annotated[
        Readout, typer.Option("--readout", help="Mean or sum over the layers; with --layers.")
    ] = Readout.MEAN,
    without_erased: Annotated[
        bool, typer.Option("--without-erased", help="Vouch that it was trained without anything that was erased here.")
    ] = False,
    go_live: GoLive = False,
    accept_worse: AcceptWorse = False,
    no_pretrain: NoPretrain = False,
    format: FormatName = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    rating_column: RatingColumn = None,
    time_column: TimeColumn = None,
    separator: Separator = None,
    min_rating: MinRating = None,
    strip: Strip = None,
    json_file: Json = None,
) -> None:
    """Make a base of embeddings that were trained elsewhere, on the interactions that are recorded.

    The first base serves at once. Its influence encoder, by which it forgets, is pre-trained next.
    """
    from service.interactions.formats import Reading
    from service.interactions.readers import read_file
    from service.interactions.vectors import read_vectors
    from service.worker.adoption import ExternalModel, adopt_base

    settings = settings_of(context)
    how = reading_options(format, user_column, item_column, rating_column, time_column, separator, min_rating, strip)
    vectors = read_vectors(embeddings.expanduser(), user_ids, item_ids, strip=strip)
    reading = Reading(how)
    pairs = read_file(held_out.expanduser(), reading)
    unseen = list(zip(pairs.users.to_pylist(), pairs.items.to_pylist(), strict=True))
    foreign = ExternalModel(vectors, unseen, _backbone(layers, readout), without_erased, accept_worse)
    with open_home(settings, upgrade=True) as home, training_alone(home):
        adopted = adopt_base(home.database, home.store, home.identity, foreign, go_live=go_live)
        encoder = None if no_pretrain else pretrain_base(home, Terminal(), adopted.base.version)
    remarks = reading.remarks
    document = _document(adopted, foreign.backbone) | {"remarks": remarks}
    document["encoder"] = encoder and encoder_document(encoder, Mode.FORGET)
    able = WITHOUT_ENCODER if encoder is None else encoder_text(encoder, Mode.FORGET)
    print_result(json_file, document, "\n".join((_text(adopted), able, *remarks)))


def _backbone(layers: int | None, readout: Readout) -> Backbone:
    from service.recommender.backbones import LightGCN, MatrixFactorisation

    return MatrixFactorisation() if layers is None else LightGCN(layers=layers, readout=readout.value)


def _document(adopted: AdoptionResult, backbone: Backbone) -> dict[str, Any]:
    base = adopted.base
    return {
        "version": base.version,
        "live": base.live,
        "backbone": backbone.config(),
        "n_users": base.n_users,
        "n_items": base.n_items,
        "n_edges": base.n_edges,
        "n_validation": base.n_validation,
        "unused": {
            "users": adopted.unused_users,
            "items": adopted.unused_items,
            "held_out": adopted.unused_held_out,
        },
        "held_out_auc": adopted.held_out_auc,
        "validation": {
            "recall_at_20": base.training.validation.recall,
            "ndcg_at_20": base.training.validation.ndcg,
        },
    }


def _text(adopted: AdoptionResult) -> str:
    base, quality = adopted.base, adopted.base.training.validation
    where = "It serves now." if base.live else "It does not serve yet."
    lines = [
        f"Base {base.version}, trained elsewhere: {base.n_users:,} users, {base.n_items:,} items, {base.n_edges:,} "
        f"interactions learnt, {base.n_validation:,} held out.",
        f"Validation Recall@20 {quality.recall:.4f}, NDCG@20 {quality.ndcg:.4f}; a learnt interaction scores above a "
        f"held-out one in {adopted.held_out_auc:.1%} of cases. {where}",
    ]
    if adopted.unused_users or adopted.unused_items or adopted.unused_held_out:
        lines.append(
            f"Passed over: {adopted.unused_users:,} users and {adopted.unused_items:,} items that nothing recorded "
            f"needs, {adopted.unused_held_out:,} held-out pairs that are not recorded or would leave a row empty."
        )
    return "\n".join(lines)
