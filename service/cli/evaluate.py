"""`expunge evaluate`: measure a grid of data, backbones, methods, requests and seeds, cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from service.cli.context import Json, print_result, settings_of
from service.cli.evaluation_table import table
from service.cli.failures import FAILED, INTERRUPTED, USAGE, Refusal
from service.cli.terminal import BAR_WIDTH, LINE_EVERY_S, Terminal, count, cropped, duration

if TYPE_CHECKING:
    from service.evaluation.grid import Grid
    from service.evaluation.methods import Method
    from service.evaluation.runner import Progress, Runner, RunSummary
    from service.recommender.dataset import Dataset

FIELDS = ("dataset", "backbone", "method", "protocol", "seed")


def evaluate(
    context: typer.Context,
    grid_file: Annotated[Path, typer.Argument(metavar="GRID.toml", help="What to measure; see benchmarks/grids.")],
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Folder of the data sets, one folder each.")
    ] = None,
    results: Annotated[Path, typer.Option("--results", metavar="DIR", help="Where the cells are written.")] = Path(
        "results"
    ),
    models: Annotated[Path, typer.Option("--models", metavar="DIR", help="Where trained models are kept.")] = Path(
        ".cache/evaluation/models"
    ),
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="FIELD=A,B", help="Leave out other cells; FIELD is method, protocol, ..."),
    ] = None,
    methods_from: Annotated[
        str | None,
        typer.Option("--methods-from", metavar="MODULE", help="A Python module whose METHODS are offered, too."),
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads of the arithmetic.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells and how they stand; measure none.")
    ] = False,
    json_file: Json = None,
) -> None:
    """Measure unlearning methods against retraining. What is measured stays: run it again to go on.

    Several processes may work on one grid at once, each on cells of its own.
    """
    settings = settings_of(context)
    folder = data or settings.data_dir
    if folder is None:
        msg = "Where are the data sets? Name their folder with --data DIR or EXPUNGE_DATA_DIR."
        raise Refusal(msg)
    import torch

    from service.evaluation.grid import Grid
    from service.evaluation.methods import METHODS
    from service.evaluation.runner import Runner

    torch.set_num_threads(threads or settings.torch_threads or torch.get_num_threads())
    methods = {**METHODS, **_more(methods_from)}
    references = {name for name, method in methods.items() if method.reference}
    grid = _filtered(Grid.read(grid_file, tuple(methods), references), only or [])
    runner = Runner(grid, _reader(folder.expanduser()), results, models, methods)
    if dry_run:
        _list(runner, json_file)
        return
    with _shown(Terminal(), grid.name) as show:
        runner.report = show
        try:
            outcome = runner.run()
        except KeyboardInterrupt:
            there = sum(status == "measured" for _, status in runner.statuses())
            msg = f"Stopped; {there} of {len(grid.cells)} cells are measured. Run the same command again to go on."
            raise Refusal(msg, INTERRUPTED) from None
    print_result(json_file, _document(outcome), _text(outcome, results, grid))
    if outcome.failures:
        raise Refusal("\n".join(f"{failed.key}: {failed.reason}" for failed in outcome.failures), FAILED)


def _more(module: str | None) -> dict[str, Method]:
    if module is None:
        return {}
    from importlib import import_module

    try:
        return dict(import_module(module).METHODS)
    except (ImportError, AttributeError) as error:
        msg = f"The module {module} offers no METHODS ({error}). Name one that can be imported and has them."
        raise Refusal(msg, USAGE) from error


def _filtered(grid: Grid, only: list[str]) -> Grid:
    chosen: dict[str, set[str]] = {}
    for text in only:
        name, _, values = text.partition("=")
        if name not in FIELDS or not values:
            msg = f"--only {text} is not understood. Write FIELD=A,B with one of {', '.join(FIELDS)}."
            raise Refusal(msg, USAGE)
        chosen.setdefault(name, set()).update(values.split(","))
    return grid.only(**chosen)


def _reader(folder: Path) -> Callable[[str], Dataset]:
    from service.interactions.readers import read

    def reader(name: str) -> Dataset:
        found = read(folder / name)
        for remark in found.remarks:
            Terminal().say(f"{name}: {remark}")
        return found.dataset

    return reader


def _list(runner: Runner, json_file: Path | None) -> None:
    cells = list(runner.statuses())
    document = {"cells": [{"cell": str(key), "status": status.value} for key, status in cells]}
    print_result(json_file, document, "\n".join(f"{status.value:9} {key}" for key, status in cells))


@contextmanager
def _shown(terminal: Terminal, name: str) -> Iterator[Callable[[Progress], None]]:
    """Progress as a bar on a terminal; elsewhere a line a cell, and every few seconds one of what is done in it."""
    if not terminal.console.is_terminal:
        yield _Lines(terminal, name)
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=BAR_WIDTH), TextColumn("{task.fields[text]}"))
    room = terminal.console.width - len(name) - BAR_WIDTH - 2
    with Bars(*columns, console=terminal.console, transient=True) as bars:
        task = bars.add_task(name, text="")
        yield lambda progress: bars.update(
            task, completed=progress.done, total=progress.total, text=cropped(_outlook(progress), room)
        )


class _Lines:
    def __init__(self, terminal: Terminal, name: str) -> None:
        self._terminal, self._name = terminal, name
        self._last, self._key = -LINE_EVERY_S, ""

    def __call__(self, progress: Progress) -> None:
        now = self._terminal.clock()
        if str(progress.key) != self._key or now - self._last >= LINE_EVERY_S:
            self._last, self._key = now, str(progress.key)
            self._terminal.line(f"{self._name}: {_outlook(progress)}")


def _outlook(progress: Progress) -> str:
    """`3 of 40 cells, 12 min 05 s left, ml-1m lightgcn single expunge seed 0, training ..., epoch 3 of 15`."""
    left = "" if not progress.seconds_left else f"{duration(progress.seconds_left)} left"
    key = "" if progress.key is None else str(progress.key)
    parts = (f"{progress.done} of {count(progress.total, 'cells')}", left, key, progress.note)
    return ", ".join(part for part in parts if part)


def _document(outcome: RunSummary) -> dict[str, Any]:
    return {
        "measured": outcome.measured,
        "found": outcome.found,
        "left": outcome.left,
        "failures": [{"cell": str(failed.key), "reason": failed.reason} for failed in outcome.failures],
    }


def _text(outcome: RunSummary, results: Path, grid: Grid) -> str:
    parts = [f"{count(outcome.measured, 'cells')} measured", f"{outcome.found} there before"]
    if outcome.left:
        parts.append(f"{outcome.left} left to another process")
    if outcome.failures:
        parts.append(f"{len(outcome.failures)} failed")
    measured = table(results, grid.cells)
    return "\n".join((*([measured, ""] if measured else []), f"{', '.join(parts)}; they lie in {results}."))
