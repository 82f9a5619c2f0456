"""The route of the hot path, under the name that this domain knew it by."""

from service.platform.routing import LeanRoute

__all__ = ["LeanRoute"]
