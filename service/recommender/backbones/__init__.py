"""Graph recommenders whose only parameters are the layer-0 embeddings."""

from service.recommender.backbones.base import Backbone, Triples
from service.recommender.backbones.lightgcn import LightGCN
from service.recommender.backbones.registry import make_backbone

__all__ = ["Backbone", "LightGCN", "Triples", "make_backbone"]
