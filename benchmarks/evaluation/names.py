"""What things are called on the page, and in which order they stand."""

from __future__ import annotations

from typing import Final

DATASETS: Final = {"ml-1m": "ML-1M", "gowalla": "Gowalla", "yelp2018": "Yelp2018", "ml-100k": "ML-100K"}
BACKBONES: Final = {"lightgcn": "LightGCN", "simgcl": "SimGCL", "sgl": "SGL", "none": "no backbone"}
GRAPH_BACKBONES: Final = ("lightgcn", "simgcl", "sgl")
PROTOCOLS: Final = {
    "genuine_1pct": "1 % of the real pairs",
    "adversarial": "adversarial pairs",
    **{f"genuine_{share}pct": f"{share} % of the real pairs" for share in ("0.1", "0.3", "0.5", "0.75", "1.5", "2")},
    "single": "single pairs",
    "user": "whole users",
    "item": "whole items",
    "stream": "a stream of batches",
}
SHARES: Final = {f"genuine_{share:g}pct": share for share in (0.1, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0)}
"""Per cent of the pairs that a protocol of random genuine pairs erases."""

_FAMILIES: Final[dict[str, dict[str, str]]] = {
    "retraining": {"retrain": "Retrain"},
    "graph only": {"none": "untouched", "graph_swap": "graph swap", "amplified_swap": "amplified swap"},
    "Expunge": {"expunge": "Expunge", "expunge_dislike": "Expunge, dislike"},
    "influence encoder": {f"unlearnrec_{epochs}": f"UnlearnRec ({epochs})" for epochs in range(4)},
    "influence function": {"gif": "GIF", "ceu": "CEU", "ifru": "IFRU", "scif": "SCIF"},
    "partition": {"sisa": "SISA", "receraser": "RecEraser", "grapheraser": "GraphEraser"},
    "other recommender": {
        "lightgcn_softmax": "LightGCN, softmax",
        "popularity": "popularity",
        "als": "ALS",
        "ease_exact": "EASE, exact",
    },
}
FAMILIES: Final = tuple(_FAMILIES)
METHODS: Final = {name: label for members in _FAMILIES.values() for name, label in members.items()}
REFERENCES: Final = frozenset(_FAMILIES["other recommender"])
"""Methods without a graph backbone; their cells lie under the backbone `none` and stand in every backbone's table."""
_FAMILY_OF: Final = {name: family for family, members in _FAMILIES.items() for name in members}
_ORDER: Final = {name: place for place, name in enumerate(METHODS)}


def root_of(method: str) -> str:
    """The method that a variant belongs to: `gif_cg` to `gif`; a name that is not known is its own."""
    known = [name for name in METHODS if method == name or method.startswith(f"{name}_")]
    return max(known, key=len) if known else method


def family_of(method: str) -> str:
    """One of `FAMILIES`; a method nobody knows counts as its own family, `other`."""
    return _FAMILY_OF.get(root_of(method), "other")


def label_of(method: str) -> str:
    """How the page calls a method; a variant by the method's name and what sets it apart."""
    root = root_of(method)
    if root not in METHODS:
        return method.replace("_", " ")
    rest = method[len(root) :].strip("_").replace("_", " ")
    return METHODS[root] if not rest else f"{METHODS[root]}, {rest}"


def place_of(method: str) -> tuple[int, str]:
    """Sorts methods by family, in the order of the page; variants follow what they vary."""
    return _ORDER.get(root_of(method), len(_ORDER)), method


def place(name: str, known: dict[str, str]) -> tuple[int, str]:
    """Sorts data sets, backbones or protocols in the order of the page, unknown ones last."""
    return list(known).index(name) if name in known else len(known), name
