"""One contract for all backbones, and for one that somebody else wrote and installed."""

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from service.recommender.backbones import make_backbone
from service.recommender.backbones.registry import backbone_names
from tests.contract.backbones import CLAUSES, Case, layer_mean, layer_sum

# In so small a world, where all of a community are alike, the contrast of the ML-1M weight pushes them apart.
GENTLE = {"contrast_weight": 0.01}
CASES = {
    "lightgcn": Case({"name": "lightgcn", "layers": 2}, layer_sum(0, 2)),
    "lightgcn, mean": Case({"name": "lightgcn", "layers": 3, "readout": "mean"}, layer_mean(0, 3)),
    "lightgcn, no layer": Case({"name": "lightgcn", "layers": 0}, layer_sum(0, 0), recall=0.5),
    "lightgcn_softmax": Case({"name": "lightgcn_softmax", "layers": 2}, layer_sum(0, 2)),
    "matrix_factorisation": Case({"name": "matrix_factorisation"}, layer_sum(0, 0), recall=0.5),
    "sgl": Case({"name": "sgl", "layers": 2}, layer_sum(0, 2)),
    "sgl, mean": Case({"name": "sgl", "layers": 2, "readout": "mean"} | GENTLE, layer_mean(0, 2)),
    "simgcl": Case({"name": "simgcl", "layers": 2} | GENTLE, layer_sum(1, 2)),
    "simgcl, mean": Case({"name": "simgcl", "layers": 3, "readout": "mean"} | GENTLE, layer_mean(1, 3)),
}

PLUGIN = '''
from dataclasses import asdict, dataclass
from typing import ClassVar

from service.recommender.losses import bpr_loss, l2_loss
from service.recommender.propagation import product


@dataclass(frozen=True)
class TwoHops:
    """E0 + keep S^2 E0: those who like what I like."""

    keep: float = 0.5
    name: ClassVar[str] = "two_hops"

    def propagate(self, e0, graph):
        return e0 + self.keep * product(graph.adjacency, product(graph.adjacency, e0))

    def loss(self, e0, graph, batch, readout=None):
        readout = self.propagate(e0, graph) if readout is None else readout
        return bpr_loss(readout, graph.n_users, batch) + 1e-2 * l2_loss(e0, graph.n_users, batch)

    def config(self):
        return {"name": self.name, **asdict(self)}
'''


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.__name__)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_built_in(case: Case, clause: Callable[[Case], None]) -> None:
    clause(case)


def test_every_built_in_is_here() -> None:
    assert {case.config["name"] for case in CASES.values()} == set(backbone_names())


def test_names_are_told_apart() -> None:
    with pytest.raises(ValueError, match=r"No backbone is called 'gcn'; known are .*lightgcn"):
        make_backbone({"name": "gcn"})
    with pytest.raises(ValueError, match="'sgl' refuses its options"):
        make_backbone({"name": "sgl", "hops": 2})


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("lightgcn", "layers", -1),
        ("lightgcn", "layers", 1.5),
        ("lightgcn", "readout", "max"),
        ("lightgcn", "weight_decay", float("nan")),
        ("lightgcn_softmax", "sampled", 0),
        ("matrix_factorisation", "weight_decay", -1e-2),
        ("sgl", "drop", 1.0),
        ("sgl", "layers", "two"),
        ("simgcl", "temperature", 0),
        ("simgcl", "layers", 0),
    ],
)
def test_options_out_of_bounds_are_refused(name: str, option: str, value: Any) -> None:
    """Before a training that would end in nonsense; the sentence names the backbone."""
    with pytest.raises(ValueError, match=f"Backbone '{name}' refuses its options: "):
        make_backbone({"name": name, option: value})


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """A distribution of a user's own, as pip would have left it."""
    facts = tmp_path / "two_hops-1.2.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: two-hops\nVersion: 1.2\n")
    (facts / "entry_points.txt").write_text("[expunge.backbones]\ntwo_hops = two_hops_plugin:TwoHops\n")
    (tmp_path / "two_hops_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "two_hops_plugin", raising=False)
    assert version("two-hops") == "1.2"
    return Case({"name": "two_hops", "keep": 0.7}, lambda s, _: s.new_ones(len(s)).diag() + 0.7 * (s @ s))


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.__name__)
def test_a_users_own(installed: Case, clause: Callable[[Case], None]) -> None:
    clause(installed)
    assert "two_hops" in backbone_names()


def test_a_users_own_cannot_take_a_built_in_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bases on record name their backbone: what they mean must not change by installing something."""
    facts = tmp_path / "usurper-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: usurper\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[expunge.backbones]\nlightgcn = collections:Counter\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert make_backbone({"name": "lightgcn"}).config()["layers"] == 3
