"""The partition family: sub-models on shards of the data, of which a request retrains those it hits."""

from service.unlearning.partition.aggregation import AttentionConfig, WeightConfig
from service.unlearning.partition.grapheraser import GraphEraser
from service.unlearning.partition.receraser import RecEraser
from service.unlearning.partition.shards import Partition, PartitionResult, PartitionUnlearner
from service.unlearning.partition.sisa import SISA

__all__ = [
    "SISA",
    "AttentionConfig",
    "GraphEraser",
    "Partition",
    "PartitionResult",
    "PartitionUnlearner",
    "RecEraser",
    "WeightConfig",
]
