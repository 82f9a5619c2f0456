"""Why a batch cannot be forgotten as it is."""

from collections.abc import Mapping
from typing import Any


class Unlearnable(Exception):
    """A batch cannot be forgotten as it is: `code` says why, `facts` what was measured."""

    def __init__(self, code: str, facts: Mapping[str, Any]) -> None:
        super().__init__(code)
        self.code, self.facts = code, facts
