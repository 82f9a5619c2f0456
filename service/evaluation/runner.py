"""Runs a grid cell by cell: what is measured stays, what fails is told at the end, and several processes may share."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from service.evaluation.cost import measured
from service.evaluation.grid import BACKBONES, NO_BACKBONE, CellKey, Grid
from service.evaluation.group import CellGroup
from service.evaluation.measurement import PreparedMethod, measure
from service.evaluation.methods import METHODS, Method, MethodContext
from service.evaluation.model_cache import ModelCache
from service.evaluation.protocols import Scenario, Split, scenario
from service.recommender.dataset import Dataset
from service.recommender.training import EpochReport, Training, best_device


class CellStatus(StrEnum):
    """How a cell stands."""

    MEASURED = "measured"
    CLAIMED = "claimed"
    """Another process is at it."""
    OPEN = "open"


@dataclass(frozen=True)
class Progress:
    """How far a run is. `seconds_left` is None until a cell was measured; `note` says what is done now."""

    done: int
    total: int
    key: CellKey | None
    seconds_left: float | None
    note: str = ""


@dataclass(frozen=True)
class FailedCell:
    """A cell that could not be measured, and why in a sentence."""

    key: CellKey
    reason: str


@dataclass(frozen=True)
class RunSummary:
    """What a run did: cells measured now, found measured, left to another process, failed."""

    measured: int
    found: int
    left: int
    failures: tuple[FailedCell, ...]


@dataclass
class Runner:
    """Measures the cells of a grid that are not there yet.

    Cells of a base stand together, so that one method's preparation and the models to compare with serve all protocols
    on it; the models of one data set and backbone are held in memory at a time, and one prepared method.

    Args:
        grid: what to measure.
        load: reads a data set by its name.
        results: folder of the cells; each file is written whole or not at all.
        models: folder of trained models and encoders.
        methods: by name.
        report: told after each cell and each step of a training.
    """

    grid: Grid
    load: Callable[[str], Dataset]
    results: Path
    models: Path
    methods: Mapping[str, Method] = field(default_factory=lambda: METHODS)
    report: Callable[[Progress], None] | None = None

    def __post_init__(self) -> None:
        self.device = best_device()
        self._model_cache = ModelCache(self.models, self._training_told)
        self._splits: dict[str, Split] = {}
        self._groups: dict[tuple[str, str, str], CellGroup] = {}
        self._prepared: tuple[tuple[Any, ...], PreparedMethod] | None = None
        self._train_bytes: dict[tuple[str, str], int | None] = {}
        self._progress = Progress(0, len(self.grid.cells), None, None)

    def statuses(self) -> Iterator[tuple[CellKey, CellStatus]]:
        """Every cell in the order of the run, and how it stands."""
        for key in self.grid.cells:
            yield key, self._status(key)

    def run(self) -> RunSummary:
        """Measures what is open; a cell that fails does not stop the others.

        An interruption leaves whole cells only: run it again to go on.
        """
        estimate = _TimeEstimate(self.grid.cells, {key: self._seconds_of(key) for key in self.grid.cells})
        done = found = left = 0
        failures: list[FailedCell] = []
        for place, key in enumerate(self.grid.cells):
            self._report(replace(self._progress, done=place, key=key, seconds_left=estimate.left(place), note=""))
            if self._path(key).exists():
                found += 1
                continue
            with self._claimed(key) as mine:
                if not mine:
                    left += 1
                    continue
                started = time.perf_counter()
                try:
                    self._write(key, self._cell(key))
                except Exception as error:
                    failures.append(FailedCell(key, f"{type(error).__name__}: {error}"))
                    continue
                finally:
                    estimate.took(key, time.perf_counter() - started)
                done += 1
        self._report(replace(self._progress, done=len(self.grid.cells), key=None, seconds_left=0.0, note=""))
        return RunSummary(done, found, left, tuple(failures))

    def _cell(self, key: CellKey) -> dict[str, Any]:
        group = self._group(key)
        train_bytes = self._memory_of_training(key, group)
        prepared = self._prepare(key, group)
        for seed in self.grid.retrain_seeds:  # trained, where they are missing, before the clock starts
            group.retrained(seed)
            group.base(seed)
        started = time.perf_counter()
        cell = measure(key, group, prepared, train_bytes)
        facts = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": _commit(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "seconds": time.perf_counter() - started,
        }
        return cell | {"_measured": facts}

    def _group(self, key: CellKey) -> CellGroup:
        name = (key.dataset, BACKBONES[0] if key.backbone == NO_BACKBONE else key.backbone, key.protocol)
        if name not in self._groups:
            if any(known[:2] != name[:2] for known in self._groups):
                self._groups.clear()
                self._prepared = None
            recipe = self.grid.recipe(key.dataset, name[1])
            split = self._split(key.dataset)
            self._groups[name] = CellGroup(
                split, self._scenario(key, split), recipe, self._model_cache, self.grid.retrain_seeds, self.device
            )
        return self._groups[name]

    def _split(self, dataset: str) -> Split:
        if dataset not in self._splits:
            self._splits.clear()
            self._splits[dataset] = Split.of(self.load(dataset))
        return self._splits[dataset]

    def _scenario(self, key: CellKey, split: Split) -> Scenario:
        def clean() -> Any:
            recipe = self.grid.recipe(key.dataset, BACKBONES[0])
            return self._model_cache.clean(split, recipe.backbone, recipe.training, 0).state.readout

        return scenario(key.protocol, split, clean)

    def _prepare(self, key: CellKey, group: CellGroup) -> PreparedMethod:
        name = (key.dataset, key.backbone, key.method, key.seed, group.scenario.base_key)
        if self._prepared is not None and self._prepared[0] == name and key.method != "retrain":
            return self._prepared[1]
        self._prepared = None  # not two at once in memory
        training = replace(group.recipe.training, seed=key.seed)
        context = MethodContext(
            training,
            key.seed,
            self.models / key.dataset / group.recipe.backbone.name,
            lambda: group.retrained(key.seed),
            lambda step, steps: self._report(replace(self._progress, note=f"preparing, step {step} of {steps}")),
        )
        prepared = PreparedMethod.of(self.methods[key.method], context, group.base(key.seed).state)
        self._prepared = (name, prepared)
        return prepared

    def _memory_of_training(self, key: CellKey, group: CellGroup) -> int | None:
        """Of one epoch: the others take no more."""
        name = (key.dataset, group.recipe.backbone.name)
        if name not in self._train_bytes:
            config = replace(group.recipe.training, epochs=1, seed=key.seed)
            split = group.split

            def training() -> Training:
                return Training(group.recipe.backbone, split.train, split.validation, config, self.device)

            training()  # the first optimiser of a process loads much code, which is no cost of any method
            self._report(replace(self._progress, note="measuring the memory of a training"))
            self._train_bytes[name] = measured(lambda: training().run(), self.device)[1].peak_bytes
        return self._train_bytes[name]

    def _path(self, key: CellKey) -> Path:
        return self.results / key.path

    def _status(self, key: CellKey) -> CellStatus:
        if self._path(key).exists():
            return CellStatus.MEASURED
        claim = _claim_of(self._path(key))
        if not claim.exists():
            return CellStatus.OPEN
        with _locked(claim) as mine:
            return CellStatus.OPEN if mine else CellStatus.CLAIMED

    @contextmanager
    def _claimed(self, key: CellKey) -> Iterator[bool]:
        """Whether the cell is this process's to measure, while the block runs.

        The claim is a lock on a file, which ends with the process that holds it: no claim outlives its owner.
        """
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        claim = _claim_of(path)
        with _locked(claim) as mine:
            try:
                yield mine and not path.exists()
            finally:
                if mine:
                    claim.unlink(missing_ok=True)

    def _write(self, key: CellKey, cell: Mapping[str, Any]) -> None:
        path = self._path(key)
        text = json.dumps(cell, indent=1, allow_nan=False) + "\n"
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            aside.write_text(text, encoding="utf-8")
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def _seconds_of(self, key: CellKey) -> float | None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return float(json.loads(self._path(key).read_text(encoding="utf-8"))["_measured"]["seconds"])
        return None

    def _training_told(self, name: str, epoch: EpochReport) -> None:
        self._report(replace(self._progress, note=f"training {name}, epoch {epoch.epoch + 1} of {epoch.epochs}"))

    def _report(self, progress: Progress) -> None:
        self._progress = progress
        if self.report is not None:
            self.report(progress)


class _TimeEstimate:
    """How long the cells that are left will take: the median of their method's, or of all, as far as is known."""

    def __init__(self, keys: tuple[CellKey, ...], seconds: Mapping[CellKey, float | None]) -> None:
        self._keys, self._open = keys, {key for key in keys if seconds[key] is None}
        self._by_method: dict[str, list[float]] = {}
        for key, known in seconds.items():
            if known is not None:
                self.took(key, known)

    def took(self, key: CellKey, seconds: float) -> None:
        self._by_method.setdefault(key.method, []).append(seconds)

    def left(self, place: int) -> float | None:
        """Seconds from the cell at this place on."""
        if not self._by_method:
            return None
        medians = {method: statistics.median(seconds) for method, seconds in self._by_method.items()}
        overall = statistics.median(second for seconds in self._by_method.values() for second in seconds)
        return sum(medians.get(key.method, overall) for key in self._keys[place:] if key in self._open)


def _claim_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.claim")


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Holds a lock on a file, with this process's number in it; False where another process has it."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield True


@cache
def _commit() -> str | None:
    """The commit of the code, where it lies in a repository."""
    here = Path(__file__).parent
    with suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=True, timeout=10
        )
        return told.stdout.strip()
    return None
