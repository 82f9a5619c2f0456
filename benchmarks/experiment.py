"""The experiment that benchmarks/grids describes: its recipes, and where its models lie."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.cells import CACHE, ROOT
from benchmarks.methods import METHODS as benchmark_methods
from service.evaluation.grid import Grid, Recipe
from service.evaluation.methods import METHODS, REFERENCES

MODELS: Final = CACHE.parent / "evaluation" / "models"
GRIDS: Final = {"ml-100k": "smoke", "ml-1m": "main", "gowalla": "gowalla"}


def recipe_of(dataset: str, backbone: str = "lightgcn") -> Recipe:
    """How the experiment trains a backbone on a data set."""
    path = ROOT / "benchmarks" / "grids" / f"{GRIDS[dataset]}.toml"
    return Grid.read(path, {*METHODS, *benchmark_methods}, REFERENCES).recipe(dataset, backbone)


def encoders_of(dataset: str, backbone: str = "lightgcn") -> Path:
    """Where the runner of the grid keeps its encoders, so that none is trained twice."""
    return MODELS / dataset / backbone
