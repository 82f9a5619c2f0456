"""Influence-function methods: one Newton step from the base towards what retraining would give."""

from service.unlearning.influence.ceu import CEU
from service.unlearning.influence.gif import GIF
from service.unlearning.influence.ifru import IFRU
from service.unlearning.influence.scif import SCIF

__all__ = ["CEU", "GIF", "IFRU", "SCIF"]
