"""Graph recommenders whose only parameters are the layer-0 embeddings."""

from service.recommender.backbones.base import Backbone, Triples
from service.recommender.backbones.factorisation import MatrixFactorisation
from service.recommender.backbones.lightgcn import LightGCN
from service.recommender.backbones.registry import make_backbone
from service.recommender.backbones.sgl import SGL
from service.recommender.backbones.simgcl import SimGCL
from service.recommender.backbones.softmax import SoftmaxLightGCN

__all__ = [
    "SGL",
    "Backbone",
    "LightGCN",
    "MatrixFactorisation",
    "SimGCL",
    "SoftmaxLightGCN",
    "Triples",
    "make_backbone",
]
