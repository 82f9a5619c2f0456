"""Why something was not believed."""


class Unverified(Exception):
    """What was presented does not hold.

    Attributes:
        code: a name for the kind of fault, stable, such as `wrong_root`.
    """

    def __init__(self, code: str, detail: str) -> None:
        """`detail` is a sentence for a person."""
        super().__init__(detail)
        self.code = code
