"""Bounds of a backbone's options, checked when it is made: a training with a wrong one would end in nonsense."""

from math import isfinite


def whole(**options: int) -> None:
    """Raises ValueError for the first option that is no whole number."""
    for name, value in options.items():
        if type(value) is not int:
            msg = f"{name} must be a whole number, not {value!r}"
            raise ValueError(msg)


def at_least(low: float, **options: float) -> None:
    """Raises ValueError for the first option below `low`, or no number."""
    for name, value in options.items():
        if not _number(name, value) >= low:
            msg = f"{name} must be at least {low:g}, not {value:g}"
            raise ValueError(msg)


def above(low: float, **options: float) -> None:
    """Raises ValueError for the first option that is not above `low`."""
    for name, value in options.items():
        if not _number(name, value) > low:
            msg = f"{name} must be above {low:g}, not {value:g}"
            raise ValueError(msg)


def below(high: float, **options: float) -> None:
    """Raises ValueError for the first option that is not below `high`."""
    for name, value in options.items():
        if not _number(name, value) < high:
            msg = f"{name} must be below {high:g}, not {value:g}"
            raise ValueError(msg)


def known_readout(readout: str) -> None:
    """Raises ValueError for a readout other than `mean` and `sum`."""
    if readout not in ("mean", "sum"):
        msg = f"readout must be mean or sum, not {readout!r}"
        raise ValueError(msg)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{name} must be a number, not {value!r}"
        raise ValueError(msg)
    if not isfinite(value):
        msg = f"{name} must be a finite number, not {value}"
        raise ValueError(msg)
    return value
