"""A grid says what is measured, and what is wrong with it in one sentence."""

from pathlib import Path
from typing import Any

import pytest

import benchmarks.methods
from service.evaluation.grid import CellKey, Grid, GridError
from service.evaluation.methods import METHODS, REFERENCES

RECIPES = {"default": {"lightgcn": {"backbone": {"layers": 2}, "training": {"epochs": 3}}}}
BLOCK = {
    "datasets": ["a", "b"],
    "backbones": ["lightgcn"],
    "methods": ["none", "graph_swap"],
    "protocols": ["single", "genuine_1pct"],
    "seeds": [0, 1],
}
ROOT = Path(__file__).resolve().parents[3]


def grid(block: dict[str, Any] | None = None, **document: Any) -> Grid:
    return Grid.of({"recipes": RECIPES, "cells": [BLOCK | (block or {})], **document}, tuple(METHODS), REFERENCES)


def test_a_block_stands_for_the_product_of_its_lists() -> None:
    cells = grid().cells

    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * 2
    assert CellKey("b", "lightgcn", "graph_swap", "single", 1) in cells


def test_cells_of_a_data_set_and_backbone_stand_together_and_of_a_prepared_method_within() -> None:
    cells = grid().cells

    for size, fields in ((8, ("dataset", "backbone")), (2, ("dataset", "seed", "method"))):
        parts = [cells[start : start + size] for start in range(0, len(cells), size)]
        assert all(len({tuple(getattr(key, name) for name in fields) for key in part}) == 1 for part in parts)


def test_a_cell_named_twice_is_measured_once() -> None:
    twice = Grid.of({"recipes": RECIPES, "cells": [BLOCK, BLOCK]}, tuple(METHODS), REFERENCES)

    assert twice.cells == grid().cells


def test_a_reference_is_measured_once_for_all_backbones() -> None:
    recipes: dict[str, Any] = {"default": {"lightgcn": {}, "sgl": {}}}
    block = {"methods": ["popularity"], "backbones": ["lightgcn", "sgl"], "protocols": ["single"], "seeds": [0]}

    cells = grid(block, recipes=recipes).cells

    assert [key.backbone for key in cells] == ["none", "none"]  # of the two data sets


def test_a_cell_lies_where_the_results_look_for_it() -> None:
    assert str(CellKey("ml-1m", "sgl", "gif", "user", 2).path) == "ml-1m/sgl/user/gif-2.json"


def test_the_recipe_of_the_data_set_comes_before_the_default() -> None:
    own = RECIPES | {"a": {"lightgcn": {"training": {"epochs": 7}}}}

    found = grid(recipes=own)

    assert found.recipe("a", "lightgcn").training.epochs == 7
    assert found.recipe("b", "lightgcn").training.epochs == 3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"methods": ["gid"]}, "No method is called 'gid'"),
        ({"protocols": ["all"]}, "No protocol is called 'all'"),
        ({"backbones": ["ngcf"]}, "No backbone is called 'ngcf'"),
        ({"backbones": ["sgl"]}, "no recipe for sgl"),
        ({"seeds": ["0"]}, "whole numbers"),
        ({"seeds": [True]}, "whole numbers"),
        ({"methods": "none"}, "list of names"),
        ({"datasets": []}, "list of names"),
        ({"seed": [0]}, "no key 'seed'"),
    ],
)
def test_what_is_wrong_with_cells_is_said(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(GridError, match=said):
        grid(wrong)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"recipe": {}}, "no key 'recipe'"),
        ({"cells": []}, "names no cells"),
        ({"cells": [{"datasets": ["a"]}]}, "lacks backbones"),
        ({"recipes": {"a": {"lightgcn": {"train": {}}}}}, "no key 'train'"),
        ({"recipes": {"a": {"lightgcn": {"training": {"seed": 1}}}}}, "no key 'seed'"),
        ({"recipes": {"a": {"lightgcn": {"training": {"epochs": 0}}}}}, "at least 1"),
        ({"recipes": {"a": {"lightgcn": {"backbone": {"depth": 3}}}}}, "refuses its options"),
        ({"recipes": {"a": {"ngcf": {}}}}, "No backbone is called 'ngcf'"),
        ({"recipes": []}, "must be a table"),
        ({"retrain_seeds": []}, "whole numbers"),
    ],
)
def test_what_is_wrong_with_a_grid_is_said(document: dict[str, Any], said: str) -> None:
    with pytest.raises(GridError, match=said):
        grid(**document)


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("cells = [")

    with pytest.raises(GridError, match=r"bad\.toml"):
        Grid.read(tmp_path / "bad.toml", tuple(METHODS), REFERENCES)


def test_a_filter_keeps_what_fits_all_its_fields() -> None:
    kept = grid().only(method={"none"}, seed={"1"}, dataset=()).cells

    assert {(key.method, key.seed) for key in kept} == {("none", 1)}
    assert len(kept) == 4


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "grids").glob("*.toml")), ids=lambda path: path.stem)
def test_the_grids_of_this_repository_can_be_read(path: Path) -> None:
    known = {**METHODS, **benchmarks.methods.METHODS}

    assert Grid.read(path, tuple(known), {name for name, method in known.items() if method.reference}).cells
