"""Graph recommenders whose only parameters are the layer-0 embeddings."""

from service.recommender.backbones.base import Backbone, Triples, make_backbone
from service.recommender.backbones.lightgcn import LightGCN

__all__ = ["Backbone", "LightGCN", "Triples", "make_backbone"]
