"""The modes of an erasure, for all who name one: the API, the command line, the worker. Imports nothing else."""

from enum import StrEnum


class Mode(StrEnum):
    """What is asked of the model: as if it had never happened, or less of this."""

    FORGET = "forget"
    DISLIKE = "dislike"
