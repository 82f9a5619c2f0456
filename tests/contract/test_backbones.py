"""One contract for all backbones, and for one that somebody else wrote and installed."""

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from service.recommender.backbones import make_backbone
from service.recommender.backbones.registry import BackboneUnavailable, backbone_names
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
    with pytest.raises(ValueError, match=r"'sgl' refuses its options: it has no 'layer', only layers, .*'layers'"):
        make_backbone({"name": "sgl", "layer": 2})
    with pytest.raises(ValueError, match="Did you mean 'lightgcn'"):
        make_backbone({"name": "LightGCN".lower().replace("gcn", "gnc")})


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


BROKEN = {
    "import": ("import no_such_module_at_all", "", r"the package odd 1.0 cannot be loaded: ModuleNotFoundError"),
    "exit": ("raise SystemExit(3)", "", "cannot be loaded: SystemExit"),
    "gone": ("", "", "cannot be loaded: AttributeError"),
    "raises": ("def Odd():", "    raise RuntimeError('no such device')", "making it fails with RuntimeError"),
    "other kind": ("def Odd():", "    return object()", "it gives a object without name, propagate, loss, config"),
    "no class": ("Odd = 7", "", "is no class"),
    "other name": (PLUGIN, "Odd = TwoHops", "its config.. names it 'two_hops'"),
}


@pytest.mark.parametrize(("first", "second", "why"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_package_is_told_in_a_sentence_and_harms_no_other(
    first: str, second: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not even looked at for another backbone."""
    _install(tmp_path, "odd", f"{first}\n{second}\n", "odd = odd_plugin:Odd")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "odd_plugin", raising=False)

    with pytest.raises(BackboneUnavailable, match=f"Backbone 'odd' cannot be used: .*{why}"):
        make_backbone({"name": "odd"})

    assert "odd" in backbone_names()
    for name in ("lightgcn", "matrix_factorisation"):
        assert make_backbone({"name": name}).name == name


def test_two_packages_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("one", "other"):
        _install(tmp_path, package, PLUGIN, f"two_hops = {package}_plugin:TwoHops")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(BackboneUnavailable, match=r"package one 1.0 and the package other 1.0 both offer"):
        make_backbone({"name": "two_hops"})


@pytest.mark.parametrize("value", ["much", True, float("nan"), None])
def test_a_users_own_options_are_checked_by_their_defaults(installed: Case, value: Any) -> None:
    with pytest.raises(ValueError, match="'two_hops' refuses its options: keep must be a finite number"):
        make_backbone({"name": "two_hops", "keep": value})


def _install(folder: Path, package: str, code: str, entry: str) -> None:
    facts = folder / f"{package}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[expunge.backbones]\n{entry}\n")
    (folder / f"{package}_plugin.py").write_text(code)


def test_a_users_own_cannot_take_a_built_in_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bases on record name their backbone: what they mean must not change by installing something."""
    facts = tmp_path / "usurper-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: usurper\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[expunge.backbones]\nlightgcn = collections:Counter\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert make_backbone({"name": "lightgcn"}).config()["layers"] == 3
